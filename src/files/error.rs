//! Why a file was not read or written.

use super::write::SourceError;
use crate::cell::file::Refusal;
use crate::exec::AdmissionError;
use crate::runtime::RuntimeError;
use crate::warden::client::WardenError;

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It was not admitted.
    #[error("{}", admission(*.0))]
    Admission(#[from] AdmissionError),
    /// The runtime was paused or deleted while it waited for its place.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The runtime keeps no files.
    #[error(
        "runtime '{0}' has no file system of its own to write to (`filesystem` is not `persistent`)"
    )]
    NotKept(String),
    /// The cell looked, and it can't be.
    #[error("the operation was refused: {refusal:?}")]
    Refused {
        /// Whether the file was to be written.
        writing: bool,
        /// What stands in the way.
        refusal: Refusal,
    },
    /// The runtime's disk, of so many MiB, can't take it.
    #[error("the runtime's disk is full (`limits.disk_mib` is {0})")]
    DiskFull(u64),
    /// It is larger than may be read.
    #[error("file is too large: it has {size} bytes, but at most {most} can be read")]
    TooLargeToRead {
        /// Its bytes.
        size: u64,
        /// Bytes that may be read.
        most: u64,
    },
    /// Its bytes did not come.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The runtime's memory was used up.
    #[error(
        "the runtime has no memory left for this; what runs in it takes all of `limits.memory_mib`"
    )]
    OutOfMemory,
    /// Its cell had no room.
    #[error(
        "there was no room for the process that does this: commands use up what the runtime, or the machine, may have \
         (`limits.pids`); try again when they have ended"
    )]
    NoRoom,
    /// The runtime was stopped or deleted meanwhile.
    #[error("the runtime was stopped meanwhile")]
    Stopped,
    /// The service stops.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// The cell let us wait: the runtime is starved, or its disk slow.
    #[error("the runtime did not answer within {0} seconds")]
    Silent(u64),
    /// The warden did not open the cell.
    #[error("opening a cell for a file")]
    Start(#[source] WardenError),
    /// The warden died meanwhile.
    #[error("the launcher was restarted meanwhile; whether the file was written is unknown")]
    Lost,
    /// Somebody on the host killed the cell.
    #[error(
        "the operation was killed by the host and not by this service; whether the file was written is unknown"
    )]
    KilledByHost,
    /// The cell could not be built, or ended without a word.
    #[error("the cell of a file operation ended without a report: {0}")]
    Failed(String),
}

fn admission(error: AdmissionError) -> &'static str {
    match error {
        AdmissionError::RuntimeBusy => "as many files of the runtime are on their way as may be",
        AdmissionError::Closed => "the service is shutting down",
        _ => "as many files are on their way as may be",
    }
}
