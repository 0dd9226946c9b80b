//! What a client learns of a file that was not read or written.

use super::{ApiError, Code, refused, unavailable};
use crate::cell::file::Refusal;
use crate::exec::AdmissionError;
use crate::files::{FileError, SourceError};
use axum::http::StatusCode;
use nix::errno::Errno;

impl ApiError {
    /// What came of the operation on `path`, which is fit for a message.
    pub fn of_file(error: FileError, path: &str) -> Self {
        let text = error.to_string();
        let with = |code, reason| Self::with_reason(code, reason, text.clone());
        match error {
            FileError::Admission(refusal) => match refusal {
                AdmissionError::RuntimeBusy => with(Code::RateLimited, "runtime_busy"),
                AdmissionError::Closed => with(Code::Unavailable, "shutting_down"),
                AdmissionError::ServerBusy | AdmissionError::NeverFits { .. } => {
                    with(Code::Unavailable, "server_busy")
                }
            },
            FileError::Runtime(error) => error.into(),
            FileError::NotKept(_) => with(Code::FailedPrecondition, "not_persistent"),
            FileError::DiskFull(_) => {
                with(Code::FailedPrecondition, "disk_full").detail("field", "limits.disk_mib")
            }
            FileError::OutOfMemory => {
                with(Code::FailedPrecondition, "out_of_memory").detail("field", "limits.memory_mib")
            }
            FileError::NoRoom => unavailable("no_room", text).retry_after(1),
            FileError::Stopped => with(Code::FailedPrecondition, "stopped"),
            FileError::Refused { writing, refusal } => explained(refusal, writing, path, &error),
            FileError::TooLargeToRead { most, .. } => {
                Self::new(Code::InvalidArgument, format!("`path` '{path}': {text}"))
                    .detail("reason", "too_large")
                    .detail("field", "path")
                    .detail("max_file_read_bytes", most)
            }
            FileError::Source(SourceError::TooLarge(most)) => {
                Self::invalid(StatusCode::PAYLOAD_TOO_LARGE, text).detail("max_file_bytes", most)
            }
            FileError::Source(_) => Self::invalid(StatusCode::BAD_REQUEST, text),
            FileError::ShuttingDown => with(Code::Unavailable, "shutting_down"),
            FileError::Silent(_) => with(Code::DeadlineExceeded, "no_answer"),
            FileError::Lost => with(Code::Unavailable, "launcher_restarted"),
            FileError::KilledByHost => with(Code::Unavailable, "killed_by_host"),
            FileError::Start(ref source) => refused(source).because(&error),
            FileError::Failed(_) => Self::internal(&error),
        }
    }
}

/// What stands in the way of a path, as the kernel said it.
fn explained(refusal: Refusal, writing: bool, path: &str, error: &FileError) -> ApiError {
    let bad = Code::InvalidArgument;
    let (code, reason, problem) = match refusal {
        Refusal::NotRegular => (
            bad,
            "not_regular",
            "is not a regular file but a FIFO, a socket or a device",
        ),
        Refusal::Elsewhere if writing => (
            bad,
            "not_on_disk",
            "does not lie on the runtime's own disk, so what is written there would not be kept",
        ),
        Refusal::Elsewhere => (
            bad,
            "not_regular",
            "lies in `/proc`, whose files mean something to running commands only",
        ),
        Refusal::HostFull => {
            return unavailable("no_room", "the server's disk is full")
                .because(error)
                .retry_after(30);
        }
        Refusal::Kernel(errno) => match errno {
            Errno::ENOENT if writing => (
                Code::NotFound,
                "not_found",
                "leads through a link to nothing, or through `..` of a directory that does not exist",
            ),
            Errno::ENOENT => (Code::NotFound, "not_found", "does not exist in the runtime"),
            Errno::ENOTDIR => (
                bad,
                "not_a_directory",
                "leads through something that is not a directory",
            ),
            Errno::EISDIR => (bad, "is_directory", "is a directory"),
            Errno::EACCES | Errno::EPERM => (
                Code::PermissionDenied,
                "permission_denied",
                "is closed to the user that commands run as in this runtime",
            ),
            Errno::EROFS => (bad, "read_only", "lies on something that can't be written"),
            Errno::ELOOP => (
                bad,
                "link_loop",
                "leads through too many links, or through one that may not be followed",
            ),
            Errno::ENAMETOOLONG => (bad, "too_long", "has a part that is too long"),
            Errno::EINVAL => (bad, "invalid", "can't be the name of a file"),
            Errno::EAGAIN | Errno::ETXTBSY | Errno::EBUSY => (
                Code::FailedPrecondition,
                "busy",
                "is held by a command that runs in this runtime",
            ),
            Errno::ENXIO | Errno::ENODEV => (bad, "not_regular", "is not a regular file"),
            _ => return ApiError::internal(error),
        },
    };
    ApiError::with_reason(code, reason, format!("`path` '{path}' {problem}"))
        .detail("field", "path")
}
