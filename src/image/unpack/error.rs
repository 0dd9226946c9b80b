//! Why a layer, a user or an archive is not taken.

use std::io;
use std::path::PathBuf;

/// What went wrong, for the operator who imports an image.
///
/// Texts that come from the archive are escaped and cut before they stand here.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// An entry of the archive is not taken.
    #[error("entry {entry}: {reason}")]
    Entry {
        /// Its name.
        entry: String,
        /// Why not.
        reason: String,
    },
    /// The archive as a whole is not taken.
    #[error("the archive {reason}")]
    Archive {
        /// Why not.
        reason: String,
    },
    /// The user that the image names can't be found.
    #[error("user {user:?} of the image: {reason}")]
    User {
        /// As the image writes it.
        user: String,
        /// Why not.
        reason: String,
    },
    /// The confined process met a failure of this machine's: a full disk, a missing right.
    #[error("the confined process failed: {0}")]
    Failed(String),
    /// The confined process ended without a word: killed, or out of memory.
    #[error("the confined process ended before it was done ({0})")]
    Ended(String),
    /// The confined process said what it never says.
    #[error("the confined process sent a report that makes no sense: {0}")]
    Nonsense(&'static str),
    /// An operation of this process failed.
    #[error("{operation} {}", .path.display())]
    Io {
        /// What was done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Adds operation and path to an I/O error.
pub(super) fn io_error<'a, E: Into<io::Error>>(
    operation: &'static str,
    path: &'a std::path::Path,
) -> impl FnOnce(E) -> UnpackError + 'a {
    move |source| UnpackError::Io {
        operation,
        path: path.to_owned(),
        source: source.into(),
    }
}
