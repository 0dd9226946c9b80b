//! Why something about a runtime was refused.

use crate::store::StoreError;
use crate::warden::client::WardenError;
use uuid::Uuid;

/// A field of a request that can't be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}")]
pub struct Invalid {
    /// The field's path, such as `resources.limits.memory_mib`.
    pub field: String,
    /// What is wrong with it and what is allowed, as the end of a sentence that begins with the field.
    pub problem: String,
    /// The values that are allowed, where they are few.
    pub allowed: Vec<String>,
}

impl Invalid {
    /// A field and what is wrong with it.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
            allowed: Vec::new(),
        }
    }

    /// A field that must be one of a few words.
    pub fn one_of<S: AsRef<str>>(
        field: impl Into<String>,
        allowed: impl IntoIterator<Item = S>,
    ) -> Self {
        let allowed: Vec<String> = allowed
            .into_iter()
            .map(|name| name.as_ref().to_owned())
            .collect();
        let problem = format!("must be one of: {}", allowed.join(", "));
        Self {
            field: field.into(),
            problem,
            allowed,
        }
    }
}

impl Invalid {
    /// `value`, which must be in a range; `unit` follows the range in the message.
    pub(crate) fn within(
        field: &str,
        value: u64,
        least: u64,
        most: u64,
        unit: &str,
    ) -> Result<u64, Self> {
        if value < least || value > most {
            let problem = format!("is {value}, but must be from {least} to {most}{unit}");
            return Err(Self::new(field, problem));
        }
        Ok(value)
    }
}

/// Why an operation on a runtime did not happen.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No such runtime in the tenant.
    #[error("runtime '{0}' was not found")]
    NotFound(String),
    /// The tenant has a runtime of that name.
    #[error("a runtime named '{0}' exists already")]
    Exists(String),
    /// Its status does not allow the operation.
    #[error("runtime '{name}' is not running (status: {status})")]
    NotRunning {
        /// The runtime's name.
        name: String,
        /// Its status.
        status: &'static str,
    },
    /// Its status has no way to where the operation leads.
    #[error("runtime '{name}' can't be {what} (status: {status})")]
    Impossible {
        /// The runtime's name.
        name: String,
        /// What was asked for, as a participle.
        what: &'static str,
        /// Its status.
        status: &'static str,
    },
    /// It is being created, and nothing else can be done with it yet.
    #[error("runtime '{0}' is still being created")]
    StillCreating(String),
    /// Its sandbox profile is none of the server's any more.
    #[error("the runtime's sandbox profile does not exist any more")]
    ProfileGone,
    /// Another operation on it takes long.
    #[error("another operation on runtime '{0}' is still under way; try again later")]
    Busy(String),
    /// No such checkpoint in the tenant.
    #[error("checkpoint '{0}' was not found")]
    CheckpointNotFound(String),
    /// Nothing can be restored from it.
    #[error("checkpoint '{id}' is not ready (state: {state})")]
    NotReady {
        /// Which one.
        id: Uuid,
        /// Its state.
        state: &'static str,
    },
    /// It is being made, or a runtime is being made of it.
    #[error("checkpoint '{0}' is in use; try again later")]
    CheckpointBusy(Uuid),
    /// It keeps no files that could be copied.
    #[error(
        "runtime '{name}' keeps no files (filesystem: {filesystem}); only a persistent one can be \
         checkpointed"
    )]
    NothingToKeep {
        /// The runtime's name.
        name: String,
        /// Its kind of file system.
        filesystem: &'static str,
    },
    /// The request asks for something that can't be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Its disk, of this many MiB, has no room now.
    #[error("the server's disk has no room for `limits.disk_mib` = {0} now; ask for less or later")]
    NoRoom(u64),
    /// The state could not be read or written.
    #[error("storing a runtime")]
    Store(#[source] StoreError),
    /// A stored runtime or checkpoint makes no sense.
    #[error("reading or writing the settings of {id}")]
    Corrupt {
        /// Which one.
        id: Uuid,
        /// What does not parse.
        source: serde_json::Error,
    },
    /// The warden could not do it.
    #[error("{operation}")]
    Warden {
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        source: WardenError,
    },
    /// The operating system gave no random bytes.
    #[error("making a random name: {0}")]
    Random(getrandom::Error),
    /// The task that carried the operation out ended early.
    #[error("the operation was interrupted")]
    Interrupted,
}
