//! The api process's handle to the warden.

use crate::resources::{CellResources, RuntimeResources, Usage};
use crate::warden::protocol::{CellEnd, Failure, RuntimeSpec};
use tokio::net::unix::pipe;
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
    /// The message could not be sent.
    #[error("sending to the warden")]
    Send(#[source] std::io::Error),
}

/// A shared handle; cheap to clone. Survives restarts of the warden.
#[derive(Clone, Debug)]
pub struct Warden {}

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
}

/// A command that runs. Dropping it kills its cell.
#[derive(Debug)]
pub struct RunningExec {
    /// The command's stdin, where asked for. Dropping it is EOF.
    pub stdin: Option<pipe::Sender>,
    /// The command's stdout; EOF comes when the last process of the cell is gone.
    pub stdout: pipe::Receiver,
    /// The command's stderr.
    pub stderr: pipe::Receiver,
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
}

impl Warden {
    /// Makes a runtime's disk.
    pub async fn create_runtime(&self, _spec: RuntimeSpec) -> Result<(), WardenError> {
        todo!()
    }
    /// Kills a runtime's cells and removes its disk.
    pub async fn delete_runtime(&self, _id: Uuid) -> Result<(), WardenError> {
        todo!()
    }
    /// Kills a runtime's cells; the disk stays.
    pub async fn stop_runtime(&self, _id: Uuid) -> Result<(), WardenError> {
        todo!()
    }
    /// All runtimes on disk.
    pub async fn list_runtimes(&self) -> Result<Vec<Uuid>, WardenError> {
        todo!()
    }
    /// Names of usable images.
    pub async fn list_images(&self) -> Result<Vec<String>, WardenError> {
        todo!()
    }
    /// Opens a cell and starts the command.
    pub async fn exec(&self, _request: ExecRequest) -> Result<RunningExec, WardenError> {
        todo!()
    }
}

impl RunningExec {
    /// Kills everything in the cell. Returns at once; the end still arrives through [`RunningExec::ended`].
    pub fn kill(&self) {
        todo!()
    }
    /// Waits for the end; may be called once more after a cancelled wait. `Lost` when the warden died with the cell.
    pub async fn ended(&mut self) -> Result<Ended, WardenError> {
        todo!()
    }
}
