//! From one status to another: which way each operation leads from each status, and how it is gone.
//!
//! One operation at a time changes a runtime: it holds the runtime's turn from its first look at the status to its last
//! write. What is stored is true at every moment in the only sense that survives a crash: after one, no process of any
//! runtime is left, and the status says what may be done next. So what destroys (`stop`) is stored before it happens, and
//! what makes (`start`) after it has happened.

use super::error::RuntimeError;
use super::model::Runtime;
use super::service::{Inner, Runtimes, now};
use super::status::Status;
use crate::tenant::TenantId;
use crate::warden::client::WardenError;
use crate::warden::protocol::Failure;
use std::sync::Arc;

/// What can be asked of a runtime that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// To take commands again after a stop.
    Start,
    /// To end everything that runs in it; the disk is kept.
    Stop,
    /// To hold everything that runs in it still, memory and all.
    Pause,
    /// To let it go on.
    Resume,
}

/// What an operation means for a runtime of some status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It is there already.
    Nothing,
    /// It can get there.
    Go,
    /// It can't.
    None,
}

impl Operation {
    /// The whole table.
    fn from(self, status: Status) -> Way {
        use Status::{Crashed, Paused, Running, Shutdown, Suspended};
        match (self, status) {
            (Self::Start | Self::Resume, Running)
            | (Self::Stop, Shutdown)
            | (Self::Pause, Paused) => Way::Nothing,
            (Self::Start, Shutdown | Crashed)
            | (Self::Stop, Running | Paused | Suspended | Crashed)
            | (Self::Pause, Running)
            | (Self::Resume, Paused | Suspended) => Way::Go,
            _ => Way::None,
        }
    }

    /// What it does to a runtime, as a participle.
    fn done(self) -> &'static str {
        match self {
            Self::Start => "started",
            Self::Stop => "stopped",
            Self::Pause => "paused",
            Self::Resume => "resumed",
        }
    }
}

impl Runtimes {
    /// Carries an operation out and returns the runtime in its new status. It is carried out to its end even if the
    /// caller stops waiting.
    pub async fn operate(
        &self,
        tenant: TenantId,
        key: &str,
        operation: Operation,
    ) -> Result<Arc<Runtime>, RuntimeError> {
        let (turn, runtime) = self.turn(tenant, key).await?;
        let inner = self.inner().clone();
        let task = tokio::spawn(async move {
            let _turn = turn;
            inner.operate(&runtime, operation).await.map(|()| runtime)
        });
        task.await.map_err(|_| RuntimeError::Interrupted)?
    }
}

impl Inner {
    async fn operate(&self, runtime: &Runtime, operation: Operation) -> Result<(), RuntimeError> {
        let status = runtime.status();
        match operation.from(status) {
            Way::Nothing => Ok(()),
            Way::None => Err(RuntimeError::Impossible {
                name: runtime.name.clone(),
                what: operation.done(),
                status: status.as_str(),
            }),
            Way::Go => match operation {
                Operation::Start => self.start(runtime).await,
                Operation::Stop => self.stop(runtime).await,
                Operation::Pause => self.pause(runtime).await,
                Operation::Resume => self.resume(runtime).await,
            },
        }
    }

    async fn start(&self, runtime: &Runtime) -> Result<(), RuntimeError> {
        // Twice, since a warden that dies has done nothing wrong.
        let mut started = self.warden.start_runtime(runtime.id).await;
        if started.as_ref().is_err_and(WardenError::is_death) {
            started = self.warden.start_runtime(runtime.id).await;
        }
        started.map_err(|source| warden("starting a runtime", source))?;
        self.store_status(runtime, Status::Running).await
    }

    async fn stop(&self, runtime: &Runtime) -> Result<(), RuntimeError> {
        self.store_status(runtime, Status::Shutdown).await?;
        match self.warden.stop_runtime(runtime.id).await {
            // A warden takes its cells and mounts along.
            Ok(()) | Err(WardenError::Lost) => Ok(()),
            Err(source) => Err(warden("stopping a runtime", source)),
        }
    }

    async fn pause(&self, runtime: &Runtime) -> Result<(), RuntimeError> {
        // First no command can be started any more, and the clocks of those that run stand still.
        runtime.set(Status::Paused, now()).await;
        let paused = match self.warden.pause_runtime(runtime.id).await {
            Ok(()) => self.store_status(runtime, Status::Paused).await,
            Err(source) => Err(warden("pausing a runtime", source)),
        };
        if paused.is_err() {
            if let Err(error) = self.warden.resume_runtime(runtime.id).await {
                tracing::error!(runtime = %runtime.id, %error, "undoing a pause");
            }
            runtime.set(Status::Running, now()).await;
        }
        paused
    }

    async fn resume(&self, runtime: &Runtime) -> Result<(), RuntimeError> {
        match self.warden.resume_runtime(runtime.id).await {
            // With the warden went what was paused; there is nothing left to go on.
            Ok(()) | Err(WardenError::Lost) => {}
            Err(source) => return Err(warden("resuming a runtime", source)),
        }
        let resumed = self.store_status(runtime, Status::Running).await;
        if resumed.is_err()
            && let Err(error) = self.warden.pause_runtime(runtime.id).await
        {
            tracing::error!(runtime = %runtime.id, %error, "undoing a resume");
        }
        resumed
    }

    /// Stores a status and, when that is done, makes it the runtime's.
    pub(super) async fn store_status(
        &self,
        runtime: &Runtime,
        status: Status,
    ) -> Result<(), RuntimeError> {
        let now = now();
        self.store
            .set_status(runtime.id, status.as_str(), &now)
            .await
            .map_err(RuntimeError::Store)?;
        runtime.set(status, now).await;
        Ok(())
    }
}

pub(super) fn warden(operation: &'static str, source: WardenError) -> RuntimeError {
    RuntimeError::Warden { operation, source }
}

/// Whether the warden knows nothing of what it was asked to remove.
pub(super) fn is_gone(error: &WardenError) -> bool {
    matches!(
        error,
        WardenError::Refused(Failure::UnknownRuntime | Failure::UnknownCheckpoint)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_from_every_status() {
        use Way::{Go, None, Nothing};
        // start, stop, pause, resume
        let expected = |status| match status {
            Status::Creating | Status::Deleting | Status::Error => [None, None, None, None],
            Status::Running => [Nothing, Go, Go, Nothing],
            Status::Paused => [None, Go, Nothing, Go],
            Status::Suspended => [None, Go, None, Go],
            Status::Shutdown => [Go, Nothing, None, None],
            Status::Crashed => [Go, Go, None, None],
        };
        let operations = [
            Operation::Start,
            Operation::Stop,
            Operation::Pause,
            Operation::Resume,
        ];
        for status in Status::ALL {
            let found = operations.map(|operation| operation.from(status));
            assert_eq!(found, expected(status), "{}", status.as_str());
        }
    }
}
