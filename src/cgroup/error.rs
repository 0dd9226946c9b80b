//! What can go wrong with a group: one enum, so that callers can tell a busy group from a host that
//! can't do it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A failed operation on the cgroup file systems.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A system call on a cgroup file or directory failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a limit.
    #[error("cannot set the {limit} limit of {} to {value}", path.display())]
    Limit {
        /// `memory`, `swap`, `pids` or `cpu`.
        limit: &'static str,
        /// What was to be written.
        value: String,
        /// The group.
        path: PathBuf,
        /// What the cgroups crate says, with the kernel's answer as its source.
        source: Box<cgroups_rs::fs::error::Error>,
    },
    /// A lower limit that what is in use does not fit under.
    #[error("{} can't be limited to {limit} bytes: {used} are in use", path.display())]
    InUse {
        /// The group.
        path: PathBuf,
        /// Bytes that were to be allowed.
        limit: u64,
        /// Bytes in use, after as much was reclaimed as could be.
        used: u64,
    },
    /// A cgroup file does not look as the kernel documents it.
    #[error("cannot understand {}: {found:?}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its text.
        found: String,
    },
    /// An id that can't be a directory name of ours.
    #[error("{name:?} cannot name a group: 1 to 128 letters, digits, '-' or '_' are needed")]
    Name {
        /// The id as given.
        name: String,
    },
    /// Processes in a group that should be empty did not go away.
    #[error("{} still holds processes after {after:?}", path.display())]
    Busy {
        /// The group.
        path: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
}

impl CgroupError {
    /// For `map_err`: the operation and path that an I/O error belongs to.
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            operation,
            path: path.to_path_buf(),
            source,
        }
    }
}
