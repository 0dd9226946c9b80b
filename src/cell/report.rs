//! What a cell tells the warden over its control socket, and the one message that the warden sends.
//!
//! Up: [`UserNamespaceMade`](FromCell::UserNamespaceMade) once, then how it ended: from init, and before
//! that from the payload where it could not become the command. The first word counts. Down: one [`GO`]
//! with the descriptors of [`Stdio`], after the maps are written. SOCK_SEQPACKET keeps the messages apart.

use crate::cell::error::CellError;
use crate::sys::packet;
use crate::warden::protocol::CellEnd;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};

/// The warden's only message: the maps are written, run what the descriptors hold.
pub const GO: &[u8] = b"go";

/// Longest message of a cell in bytes; a longer one is not sent.
pub const MAX_REPORT: usize = 1024;

/// From the cell.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromCell {
    /// The cell made its user namespace and waits for the maps.
    UserNamespaceMade,
    /// How it ended. The first one counts.
    End(CellEnd),
    /// It could not be built: the step that failed and why, for the log.
    Failed(String),
}

/// What the warden sends when the maps are written.
#[derive(Debug)]
pub struct Stdio {
    /// The sealed memfd with the command.
    pub command: OwnedFd,
    /// Descriptors 0, 1 and 2 of the payload.
    pub streams: [OwnedFd; 3],
}

/// Tells the warden's log which step failed. The socket may be gone; then nobody wants to know.
pub fn report_failure(control: &OwnedFd, error: &CellError) {
    let text = format!("{}: {}", error.step, error.source);
    tell(control, &FromCell::Failed(text), &[]);
}

/// Sends a report, with descriptors beside it; one that is too long or comes too late is dropped.
pub fn tell(control: &OwnedFd, message: &FromCell, fds: &[OwnedFd]) {
    if let Ok(bytes) = serde_json::to_vec(message)
        && bytes.len() <= MAX_REPORT
    {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let _ = packet::send(control.as_fd(), &bytes, &fds);
    }
}
