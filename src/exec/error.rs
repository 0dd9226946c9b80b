//! Why a command gave no result.

use super::admission::AdmissionError;
use super::drive::START_WAIT;
use crate::runtime::{Invalid, RuntimeError};
use crate::store::StoreError;
use crate::warden::client::WardenError;
use uuid::Uuid;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It was not admitted.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// The request turned out to be impossible when it was tried.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// That it runs could not be stored, so it does not.
    #[error("storing the record of an exec")]
    Record(#[source] StoreError),
    /// The runtime was stopped, paused or deleted meanwhile.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The warden did not start it.
    #[error("starting a command")]
    Start(#[source] WardenError),
    /// The warden died while it ran.
    #[error(
        "the launcher was restarted while the command ran; the command was killed and its outcome is unknown"
    )]
    Lost {
        /// The exec.
        exec_id: Uuid,
    },
    /// Its cell was killed, and not by us.
    #[error(
        "the command was killed together with what stood over it, by the host and not by this service; its outcome is unknown"
    )]
    Unseen {
        /// The exec.
        exec_id: Uuid,
    },
    /// It was not started in time.
    #[error("the command was not started within {} seconds", START_WAIT.as_secs())]
    Late {
        /// The exec.
        exec_id: Uuid,
    },
    /// It was killed, and its end is not known yet.
    #[error("the command was killed but has not ended yet; its outcome is unknown")]
    NotKilled {
        /// The exec.
        exec_id: Uuid,
    },
    /// The cell could not be built.
    #[error("the cell of exec {exec_id} could not be built")]
    Setup {
        /// The exec.
        exec_id: Uuid,
    },
    /// Its cell had no room.
    #[error(
        "there was no room for the command's first processes: others use up what the runtime, or the machine, may have \
         (`limits.pids`); try again when they have ended"
    )]
    NoRoom {
        /// The exec.
        exec_id: Uuid,
    },
    /// The task ended early.
    #[error("the task of exec {exec_id} ended early")]
    Interrupted {
        /// The exec.
        exec_id: Uuid,
    },
}

impl ExecError {
    /// Whether it tells a client the exec's id, so that there must be a record of it.
    pub fn names_record(&self) -> bool {
        match self {
            Self::Admission(_)
            | Self::Invalid(_)
            | Self::Record(_)
            | Self::Runtime(_)
            | Self::Start(_) => false,
            Self::Lost { .. }
            | Self::Unseen { .. }
            | Self::Late { .. }
            | Self::NotKilled { .. }
            | Self::Setup { .. }
            | Self::NoRoom { .. }
            | Self::Interrupted { .. } => true,
        }
    }

    /// Whether it is certain that nothing was run: then the request may be tried again.
    pub fn ran_nothing(&self) -> bool {
        match self {
            Self::Admission(_)
            | Self::Invalid(_)
            | Self::Record(_)
            | Self::Runtime(_)
            | Self::Late { .. }
            | Self::Setup { .. }
            | Self::NoRoom { .. } => true,
            // Of a launcher that died before it answered nobody knows what it began.
            Self::Start(error) => !matches!(error, WardenError::Lost),
            Self::Lost { .. }
            | Self::Unseen { .. }
            | Self::NotKilled { .. }
            | Self::Interrupted { .. } => false,
        }
    }
}
