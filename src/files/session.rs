//! The cell of one operation and what it says.

use super::FileError;
use crate::cell::file::{Operation, Report};
use crate::exec::{KILL_WAIT, Launch, START_WAIT, time_is_up, until_started};
use crate::resources::{CellResources, MIB};
use crate::runtime::Runtime;
use crate::warden::client::{Ended, ExecRequest, RunningExec, Warden, WardenError};
use crate::warden::protocol::{CellEnd, SIGKILL};
use std::io;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

/// Memory of the cell: its buffer, and pages of the file that the disk has yet to take. Where the runtime has less, that
/// holds.
const MEMORY: u64 = 64 * MIB;

/// The payload and nothing else.
const PIDS: u64 = 2;

/// How long a cell may take to end by itself when nobody needs it any more.
const GRACE: Duration = Duration::from_secs(1);

/// A cell that works on a file.
pub(super) struct Session {
    cell: Cell,
    reports: pipe::Receiver,
    clock: Clock,
}

/// How long a cell may let us wait. While its runtime stands still it can't do anything, and its time stands still too.
#[derive(Clone)]
pub(super) struct Clock {
    idle: Duration,
    paused: watch::Receiver<bool>,
}

impl Clock {
    /// What the cell does for us, unless that takes too long.
    pub(super) async fn bound<T>(&self, wait: impl Future<Output = T>) -> Result<T, FileError> {
        tokio::select! {
            biased;
            done = wait => Ok(done),
            () = time_is_up(self.idle, self.paused.clone()) => Err(FileError::Silent(self.idle.as_secs())),
        }
    }

    /// How long the client may let us wait, whatever its runtime does.
    pub(super) fn idle(&self) -> Duration {
        self.idle
    }
}

/// A cell that was asked for, until it is gone.
pub(super) struct Cell(RunningExec);

impl Cell {
    /// Ends it, and waits until every process of it is gone.
    pub(super) async fn kill(mut self) {
        self.0.kill();
        if timeout(KILL_WAIT, self.0.ended()).await.is_err() {
            tracing::error!("the cell of a file operation was not dead so long after its kill");
            let _ = self.0.ended().await;
        }
    }
}

/// A cell that does not work on its file: why, and the cell, where there may be one.
pub(super) struct Unopened {
    error: FileError,
    cell: Option<Cell>,
}

impl Unopened {
    /// Tells who asked for it, and ends what there is of it.
    pub(super) async fn tell<T>(self, asker: oneshot::Sender<Result<T, FileError>>) {
        let _ = asker.send(Err(self.error));
        if let Some(cell) = self.cell {
            cell.kill().await;
        }
    }
}

impl<E: Into<FileError>> From<E> for Unopened {
    fn from(error: E) -> Self {
        let error = error.into();
        Self { error, cell: None }
    }
}

impl Session {
    /// Opens it. The other two pipes are the caller's to move bytes through. Ends early when the `client` goes away.
    pub(super) async fn open(
        warden: &Warden,
        runtime: &Runtime,
        operation: &Operation,
        idle: Duration,
        client: impl Future<Output = ()>,
    ) -> Result<(Self, Option<pipe::Sender>, pipe::Receiver), Unopened> {
        let gate = runtime.starting_on_file().await?;
        let runtime_resources = gate.resources();
        let request = ExecRequest {
            runtime: runtime.id,
            runtime_resources,
            cell_resources: CellResources {
                memory_bytes: runtime_resources.memory_bytes.min(MEMORY),
                pids: runtime_resources.pids.min(PIDS),
                cpu_secs: None,
            },
            hostname: runtime.name.clone(),
            command: operation.encode(),
            stdin: matches!(operation, Operation::Write(_)),
            terminal: None,
        };
        let mut starting = warden.exec(request).map_err(FileError::Start)?;
        // The warden hears of it before it hears of whatever changes the status or the limits now.
        drop(gate);
        let paused = runtime.paused();
        let late = time_is_up(START_WAIT, paused.clone());
        let launch = until_started(&mut starting, late, client).await;
        let cell = Cell(starting.running());
        let streams = match launch {
            Launch::Started(streams, None) => streams,
            Launch::Failed(error) => return Err(FileError::Start(error).into()),
            Launch::Started(_, Some(_)) | Launch::Stuck => {
                let error = FileError::Silent(START_WAIT.as_secs());
                let cell = Some(cell);
                return Err(Unopened { error, cell });
            }
        };
        let Some((stdin, stdout, reports)) = streams.into_pipes() else {
            let error = FileError::Failed("it has no pipes".into());
            let cell = Some(cell);
            return Err(Unopened { error, cell });
        };
        let session = Self {
            cell,
            reports,
            clock: Clock { idle, paused },
        };
        Ok((session, stdin, stdout))
    }

    /// The next report; an error where the cell ends without one.
    pub(super) async fn report(&mut self) -> Result<Report, FileError> {
        let bytes = self.clock.bound(next(&mut self.reports)).await?;
        self.understood(bytes).await
    }

    /// As [`Session::report`], of a cell that waits for us: however long that takes.
    pub(super) async fn unasked(&mut self) -> Result<Report, FileError> {
        let bytes = next(&mut self.reports).await;
        self.understood(bytes).await
    }

    async fn understood(
        &mut self,
        bytes: io::Result<[u8; Report::LENGTH]>,
    ) -> Result<Report, FileError> {
        match bytes {
            Ok(bytes) => Report::decode(bytes)
                .ok_or_else(|| FileError::Failed("it can't be understood".into())),
            Err(_) => Err(self.why_it_ended().await),
        }
    }

    /// How long it may let us wait.
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    async fn why_it_ended(&mut self) -> FileError {
        match timeout(KILL_WAIT, self.cell.0.ended()).await {
            Ok(Ok(Ended {
                oom_killed: true, ..
            })) => FileError::OutOfMemory,
            Ok(Ok(Ended {
                end: CellEnd::Killed,
                ..
            })) => FileError::Stopped,
            // Nobody in its runtime can signal it, and init tells of no kill of ours.
            Ok(Ok(Ended {
                end: CellEnd::Unseen | CellEnd::Signaled(SIGKILL),
                ..
            })) => FileError::KilledByHost,
            Ok(Ok(Ended {
                end: CellEnd::NoRoom,
                ..
            })) => FileError::NoRoom,
            Ok(Ok(ended)) => FileError::Failed(format!("{:?}", ended.end)),
            Ok(Err(WardenError::Lost)) => FileError::Lost,
            Ok(Err(error)) => FileError::Start(error),
            Err(_) => FileError::Failed("it did not end".into()),
        }
    }

    /// Waits until every process of the cell is gone. One whose stdin was closed ends by itself, and cleans up; what does
    /// not is killed.
    pub(super) async fn close(mut self) {
        if timeout(GRACE, self.cell.0.ended()).await.is_err() {
            self.kill().await;
        }
    }

    /// Ends the cell, and waits until every process of it is gone.
    pub(super) async fn kill(self) {
        self.cell.kill().await;
    }
}

/// A report's bytes. They are written in one piece, so that they are all there or none.
async fn next(reports: &mut pipe::Receiver) -> io::Result<[u8; Report::LENGTH]> {
    let mut bytes = [0; Report::LENGTH];
    reports.read_exact(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Status, test_runtime};
    use crate::sys::packet;
    use std::future::pending;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_cell_is_not_late_while_its_runtime_stands_still() {
        let (_keep, replacements) = mpsc::unbounded_channel();
        // A warden that never answers.
        let (ours, _theirs) = packet::pair().unwrap();
        let warden = Warden::connect(ours, replacements).unwrap();
        let runtime = test_runtime(Status::Running);
        let still = runtime.copying();
        let operation = Operation::Read(c"/file".to_owned());
        let idle = Duration::from_secs(1);
        let open = Session::open(&warden, &runtime, &operation, idle, pending());
        tokio::pin!(open);
        let hour = Duration::from_secs(3600);
        assert!(timeout(hour, &mut open).await.is_err(), "it was given up");
        drop(still);
        let since = Instant::now();
        let Err(unopened) = open.await else {
            panic!("nobody opened it");
        };
        assert!(matches!(unopened.error, FileError::Silent(30)));
        assert!(unopened.cell.is_some(), "nobody would wait for its end");
        let waited = since.elapsed();
        assert!(waited >= START_WAIT && waited < hour, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cell_is_not_silent_while_its_runtime_stands_still() {
        let runtime = test_runtime(Status::Running);
        let clock = Clock {
            idle: Duration::from_secs(60),
            paused: runtime.paused(),
        };
        let still = runtime.copying();
        let hour = Duration::from_secs(3600);
        let silent = clock.bound(pending::<()>());
        tokio::pin!(silent);
        assert!(timeout(hour, &mut silent).await.is_err(), "it was given up");
        drop(still);
        let since = Instant::now();
        assert!(matches!(silent.await, Err(FileError::Silent(60))));
        assert_eq!(since.elapsed().as_secs(), 60);
    }
}
