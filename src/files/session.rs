//! The cell of one operation and what it says.

use super::FileError;
use crate::cell::file::{Operation, Report};
use crate::resources::{CellResources, MIB};
use crate::runtime::Runtime;
use crate::warden::client::{Ended, ExecRequest, RunningExec, Warden, WardenError};
use crate::warden::protocol::CellEnd;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::timeout;

/// Memory of the cell: its buffer, and pages of the file that the disk has yet to take. Where the runtime has less, that
/// holds.
const MEMORY: u64 = 64 * MIB;

/// The payload and nothing else.
const PIDS: u64 = 2;

/// How long mounting the runtime and building the cell may take.
const START_WAIT: Duration = Duration::from_secs(30);

/// How long a cell may take to end by itself when nobody needs it any more.
const GRACE: Duration = Duration::from_secs(1);

/// How long a kill may take before the warden is taken to be stuck.
const KILL_WAIT: Duration = Duration::from_secs(30);

/// A cell that works on a file.
pub(super) struct Session {
    running: RunningExec,
    reports: pipe::Receiver,
    idle: Duration,
}

impl Session {
    /// Opens it. The other two pipes are the caller's to move bytes through.
    pub(super) async fn open(
        warden: &Warden,
        runtime: &Runtime,
        operation: &Operation,
        idle: Duration,
    ) -> Result<(Self, Option<pipe::Sender>, pipe::Receiver), FileError> {
        let runtime_resources = runtime.settings.resources();
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
        // Dropping it ends a cell that takes too long.
        let (stdin, stdout, reports) = timeout(START_WAIT, starting.started())
            .await
            .map_err(|_| FileError::Silent(START_WAIT.as_secs()))?
            .map_err(FileError::Start)?
            .into_pipes()
            .ok_or_else(|| FileError::Failed("it has no pipes".into()))?;
        let session = Self {
            running: starting.running(),
            reports,
            idle,
        };
        Ok((session, stdin, stdout))
    }

    /// The next report; an error where the cell ends without one.
    pub(super) async fn report(&mut self) -> Result<Report, FileError> {
        let mut bytes = [0; Report::LENGTH];
        let read = timeout(self.idle, self.reports.read_exact(&mut bytes)).await;
        match read {
            Err(_) => Err(self.silent()),
            Ok(Ok(_)) => Report::decode(bytes)
                .ok_or_else(|| FileError::Failed("it can't be understood".into())),
            Ok(Err(_)) => Err(self.why_it_ended().await),
        }
    }

    /// How long either side may let the other wait.
    pub(super) fn idle(&self) -> Duration {
        self.idle
    }

    /// The error for a cell that lets us wait.
    pub(super) fn silent(&self) -> FileError {
        FileError::Silent(self.idle.as_secs())
    }

    async fn why_it_ended(&mut self) -> FileError {
        match timeout(KILL_WAIT, self.running.ended()).await {
            Ok(Ok(Ended {
                oom_killed: true, ..
            })) => FileError::OutOfMemory,
            Ok(Ok(Ended {
                end: CellEnd::Killed,
                ..
            })) => FileError::Stopped,
            Ok(Ok(ended)) => FileError::Failed(format!("{:?}", ended.end)),
            Ok(Err(WardenError::Lost)) => FileError::Lost,
            Ok(Err(error)) => FileError::Start(error),
            Err(_) => FileError::Failed("it did not end".into()),
        }
    }

    /// Waits until every process of the cell is gone. One whose stdin was closed ends by itself, and cleans up; what does
    /// not is killed.
    pub(super) async fn close(mut self) {
        if timeout(GRACE, self.running.ended()).await.is_err() {
            self.kill().await;
        }
    }

    /// Ends the cell, and waits until every process of it is gone.
    pub(super) async fn kill(mut self) {
        self.running.kill();
        if timeout(KILL_WAIT, self.running.ended()).await.is_err() {
            tracing::error!("the cell of a file operation could not be killed");
        }
    }
}
