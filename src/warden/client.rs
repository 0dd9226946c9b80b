//! The api process's handle to the warden. One task owns the socket; callers talk to it over a channel. When the warden
//! dies, everything that waits for it learns so at once ([`WardenError::Lost`]); what is asked meanwhile waits for the
//! next warden, whose socket the supervisor sends.

use crate::resources::{CellResources, RuntimeResources, Usage};
use crate::warden::protocol::{
    Beginning, CellEnd, CellRequest, CommandSignal, Failure, Reply, Request, TerminalSize,
};
use crate::warden::streams::Streams;
use crate::warden::{link, memfd};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// Why a call to the warden gave no answer of its own.
#[derive(Debug, thiserror::Error)]
pub enum WardenError {
    /// The warden answered that it can't.
    #[error("the warden refused: {0:?}")]
    Refused(Failure),
    /// The warden went away before it answered; it is being restarted.
    #[error("the warden went away before it answered")]
    Lost,
    /// The request could not be made or its answer not be used.
    #[error("{operation}")]
    Io {
        /// What was done.
        operation: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl WardenError {
    /// Whether a process died before it had answered: what can be done twice may be asked for again.
    pub fn is_death(&self) -> bool {
        matches!(self, Self::Lost | Self::Refused(Failure::Killed))
    }
}

/// A shared handle; cheap to clone. Survives restarts of the warden.
#[derive(Clone, Debug)]
pub struct Warden {
    calls: mpsc::UnboundedSender<link::Call>,
    there: Arc<AtomicBool>,
}

/// What to run and within which limits.
#[derive(Debug)]
pub struct ExecRequest {
    /// The runtime to run in.
    pub runtime: Uuid,
    /// Limits of the runtime's group.
    pub runtime_resources: RuntimeResources,
    /// Limits of this cell.
    pub cell_resources: CellResources,
    /// Host name inside.
    pub hostname: String,
    /// Encoded command, see [`crate::cell::command::Command::encode`].
    pub command: Vec<u8>,
    /// Whether a stdin pipe is wanted.
    pub stdin: bool,
    /// A terminal in the place of all pipes.
    pub terminal: Option<TerminalSize>,
}

/// A command that was asked for. Dropping it kills the cell.
#[derive(Debug)]
pub struct Starting {
    running: RunningExec,
    answer: oneshot::Receiver<link::Answer>,
    stdin: bool,
    terminal: bool,
}

/// A command that runs: the way to its end, and to bring that about. Dropping it kills the cell.
#[derive(Debug)]
pub struct RunningExec {
    calls: mpsc::UnboundedSender<link::Call>,
    life: Life,
}

/// The end is told once and may be asked for as often as wanted, so it is remembered.
#[derive(Debug)]
enum Life {
    Runs {
        seq: u64,
        ended: oneshot::Receiver<Ended>,
    },
    /// None when the warden took the end along.
    Over(Option<Ended>),
}

/// A way to signal a running command beside whoever waits for its end. Once it has ended, nothing happens any more.
#[derive(Debug, Clone)]
pub struct Signals {
    seq: u64,
    calls: mpsc::UnboundedSender<link::Call>,
}

impl Signals {
    /// Sends a signal to the process group of the command's main process.
    pub fn send(&self, signal: CommandSignal) {
        let seq = self.seq;
        let message = Request::Signal { seq, signal };
        let _ = self.calls.send(link::Call::Tell(message));
    }
}

/// The end of a command that ran.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How the main process ended.
    pub end: CellEnd,
    /// The kernel's OOM killer struck in the cell.
    pub oom_killed: bool,
    /// The cell was killed for its CPU seconds.
    pub cpu_exceeded: bool,
    /// What it used.
    pub usage: Usage,
    /// How long it took to begin.
    pub beginning: Beginning,
}

impl Warden {
    /// Starts the task that talks to the warden over `socket`. `replacements` yields the next socket when the supervisor
    /// has started another warden.
    ///
    /// # Errors
    /// When the socket can't be registered with the runtime. Must be called inside one.
    pub fn connect(
        socket: OwnedFd,
        replacements: mpsc::UnboundedReceiver<OwnedFd>,
    ) -> io::Result<Warden> {
        let (calls, queue) = mpsc::unbounded_channel();
        let there = Arc::new(AtomicBool::new(true));
        tokio::spawn(link::run(
            crate::sys::polled::register(socket)?,
            replacements,
            queue,
            there.clone(),
        ));
        Ok(Warden { calls, there })
    }

    /// Whether there is a warden now that answers: not between the end of one and the start of the next, and not while one
    /// takes longer than `limit`.
    pub async fn answers(&self, limit: Duration) -> bool {
        // Behind the last id there is none.
        let after = Some(Uuid::max());
        let ask = self.ask(|seq| Request::ListRuntimes { seq, after });
        self.there.load(Ordering::Relaxed)
            && tokio::time::timeout(limit, ask)
                .await
                .is_ok_and(|answer| answer.is_ok())
    }

    /// Kills a runtime's cells and removes its disk.
    pub async fn delete_runtime(&self, id: Uuid) -> Result<(), WardenError> {
        self.done(|seq| Request::DeleteRuntime { seq, id }).await
    }

    /// Kills a runtime's cells; the disk stays.
    pub async fn stop_runtime(&self, id: Uuid) -> Result<(), WardenError> {
        self.done(|seq| Request::StopRuntime { seq, id }).await
    }

    /// Mounts a runtime.
    pub async fn start_runtime(&self, id: Uuid) -> Result<(), WardenError> {
        self.done(|seq| Request::StartRuntime { seq, id }).await
    }

    /// Brings a runtime's processes to stand still, and keeps cells from being opened.
    pub async fn pause_runtime(&self, id: Uuid) -> Result<(), WardenError> {
        self.done(|seq| Request::PauseRuntime { seq, id }).await
    }

    /// Undoes [`Warden::pause_runtime`].
    pub async fn resume_runtime(&self, id: Uuid) -> Result<(), WardenError> {
        self.done(|seq| Request::ResumeRuntime { seq, id }).await
    }

    /// Changes the limits of a runtime, of what runs in it too.
    pub async fn set_resources(
        &self,
        id: Uuid,
        resources: RuntimeResources,
    ) -> Result<(), WardenError> {
        self.done(|seq| Request::SetResources { seq, id, resources })
            .await
    }

    /// Copies a runtime's disk; returns the bytes that the copy takes on the host's.
    pub async fn create_checkpoint(&self, id: Uuid, runtime: Uuid) -> Result<u64, WardenError> {
        let message = |seq| Request::CreateCheckpoint { seq, id, runtime };
        match self.ask(message).await? {
            Reply::Checkpointed { disk_bytes, .. } => Ok(disk_bytes),
            _ => Err(unexpected()),
        }
    }

    /// Removes a checkpoint's disk.
    pub async fn delete_checkpoint(&self, id: Uuid) -> Result<(), WardenError> {
        self.done(|seq| Request::DeleteCheckpoint { seq, id }).await
    }

    /// All runtimes on disk.
    pub async fn list_runtimes(&self) -> Result<Vec<Uuid>, WardenError> {
        self.list(|seq, after| Request::ListRuntimes { seq, after })
            .await
    }

    /// All checkpoints on disk.
    pub async fn list_checkpoints(&self) -> Result<Vec<Uuid>, WardenError> {
        self.list(|seq, after| Request::ListCheckpoints { seq, after })
            .await
    }

    async fn list(
        &self,
        message: impl Fn(u64, Option<Uuid>) -> Request,
    ) -> Result<Vec<Uuid>, WardenError> {
        let mut all = Vec::new();
        loop {
            let after = all.last().copied();
            match self.ask(|seq| message(seq, after)).await? {
                Reply::Ids { ids, .. } if ids.is_empty() => return Ok(all),
                Reply::Ids { ids, .. } => all.extend(ids),
                _ => return Err(unexpected()),
            }
        }
    }

    /// Asks for a cell with a command in it.
    ///
    /// # Errors
    /// When the request can't be made.
    pub fn exec(&self, request: ExecRequest) -> Result<Starting, WardenError> {
        let ExecRequest {
            runtime,
            runtime_resources,
            cell_resources,
            hostname,
            command,
            stdin,
            terminal,
        } = request;
        let memfd = memfd::seal(c"command", &command).map_err(|source| WardenError::Io {
            operation: "seal the command",
            source,
        })?;
        let (tell_end, ended) = oneshot::channel();
        let message = |seq| {
            Request::Exec(CellRequest {
                seq,
                runtime,
                runtime_resources,
                cell_resources,
                hostname,
                stdin,
                terminal,
            })
        };
        let ask = link::Ask {
            fd: Some(memfd),
            ended: Some(tell_end),
        };
        let (seq, answer) = self.send(message, ask)?;
        let running = RunningExec {
            calls: self.calls.clone(),
            life: Life::Runs { seq, ended },
        };
        Ok(Starting {
            running,
            answer,
            stdin,
            terminal: terminal.is_some(),
        })
    }

    async fn done(&self, message: impl FnOnce(u64) -> Request) -> Result<(), WardenError> {
        match self.ask(message).await? {
            Reply::Done { .. } => Ok(()),
            _ => Err(unexpected()),
        }
    }

    async fn ask(&self, message: impl FnOnce(u64) -> Request) -> Result<Reply, WardenError> {
        Ok(self.ask_for_more(message).await?.0)
    }

    /// As [`Warden::ask`], for a reply with something beside it.
    pub(super) async fn ask_for_more(
        &self,
        message: impl FnOnce(u64) -> Request,
    ) -> Result<(Reply, Vec<OwnedFd>), WardenError> {
        let (_, answer) = self.send(message, link::Ask::default())?;
        answered(answer.await)
    }

    fn send(
        &self,
        message: impl FnOnce(u64) -> Request,
        ask: link::Ask,
    ) -> Result<(u64, oneshot::Receiver<link::Answer>), WardenError> {
        let seq = link::next_seq();
        let (tell, answer) = oneshot::channel();
        let call = link::Call::Ask {
            seq,
            message: message(seq),
            ask,
            answer: tell,
        };
        self.calls.send(call).map_err(|_| WardenError::Lost)?;
        Ok((seq, answer))
    }
}

/// What the warden answered; a link that ended without an answer has lost it.
fn answered(
    answer: Result<link::Answer, oneshot::error::RecvError>,
) -> Result<(Reply, Vec<OwnedFd>), WardenError> {
    match answer.map_err(|_| WardenError::Lost)?? {
        (Reply::Failed { failure, .. }, _) => Err(WardenError::Refused(failure)),
        answer => Ok(answer),
    }
}

impl Starting {
    /// Waits until the command is let go; a cancelled wait may be repeated, a finished one not.
    pub async fn started(&mut self) -> Result<Streams, WardenError> {
        match answered((&mut self.answer).await)? {
            (Reply::Started { .. }, fds) => {
                let streams = match self.terminal {
                    true => Streams::of_master(fds),
                    false => Streams::pipes(fds, self.stdin),
                };
                streams.map_err(|source| WardenError::Io {
                    operation: "take over the command's streams",
                    source,
                })
            }
            _ => Err(unexpected()),
        }
    }

    /// Kills it, be it started or not: it still starts or fails, and in the first case ends.
    pub fn kill(&self) {
        self.running.kill();
    }

    /// The rest of its life.
    pub fn running(self) -> RunningExec {
        self.running
    }
}

impl RunningExec {
    /// Kills everything in the cell. Returns at once; the end still arrives through [`RunningExec::ended`].
    pub fn kill(&self) {
        if let Life::Runs { seq, .. } = self.life {
            let _ = self.calls.send(link::Call::Tell(Request::Kill { seq }));
        }
    }

    /// A way to signal it. None once it has ended.
    pub fn signals(&self) -> Option<Signals> {
        match self.life {
            Life::Runs { seq, .. } => Some(Signals {
                seq,
                calls: self.calls.clone(),
            }),
            Life::Over(_) => None,
        }
    }

    /// Waits for the end. May be asked again, be the wait before cancelled or finished: there is one answer.
    ///
    /// # Errors
    /// [`WardenError::Lost`] when the warden died, and the cell with it.
    pub async fn ended(&mut self) -> Result<Ended, WardenError> {
        if let Life::Runs { ended, .. } = &mut self.life {
            self.life = Life::Over(ended.await.ok());
        }
        match &self.life {
            Life::Over(Some(ended)) => Ok(ended.clone()),
            _ => Err(WardenError::Lost),
        }
    }
}

impl Drop for RunningExec {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) fn unexpected() -> WardenError {
    let source = io::Error::other("an answer of another kind than asked for");
    WardenError::Io {
        operation: "understand the warden",
        source,
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
