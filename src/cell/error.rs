//! One error for all steps of building a cell: the step in words and the kernel's errno.

use crate::sys::packet;
use crate::warden::protocol::CellEnd;
use nix::errno::Errno;

/// A step of the recipe that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct CellError {
    /// What was being done, with the path where there is one.
    pub step: String,
    /// The kernel's answer.
    #[source]
    pub source: Errno,
}

impl CellError {
    /// Whether something was used up, within the runtime's limits or the machine's: nothing is wrong then, and another try may
    /// succeed.
    pub fn is_shortage(&self) -> bool {
        use Errno::{EAGAIN, EMFILE, ENFILE};
        packet::is_shortage(self.source) || matches!(self.source, EAGAIN | EMFILE | ENFILE)
    }

    /// What it means for a command that was to run in the cell, and has not.
    pub fn end(&self) -> CellEnd {
        match self.is_shortage() {
            true => CellEnd::NoRoom,
            false => CellEnd::SetupFailed,
        }
    }
}

/// Shorthand for results of the recipe's steps.
pub type Result<T> = std::result::Result<T, CellError>;

/// Names the step that a system call belongs to.
pub trait Step<T> {
    /// Turns the errno into a [`CellError`] of this step.
    fn step(self, step: &str) -> Result<T>;
}

impl<T> Step<T> for std::result::Result<T, Errno> {
    fn step(self, step: &str) -> Result<T> {
        self.map_err(|source| CellError {
            step: step.to_owned(),
            source,
        })
    }
}

impl<T> Step<T> for std::io::Result<T> {
    fn step(self, step: &str) -> Result<T> {
        self.map_err(|error| CellError {
            step: step.to_owned(),
            source: Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
        })
    }
}
