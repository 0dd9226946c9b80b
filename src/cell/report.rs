//! What a cell tells the warden over its control socket, and the one message that the warden sends.
//!
//! Up: [`UserNamespaceMade`](FromCell::UserNamespaceMade) once, then at the most one [`FromCell::End`]. Down: one [`GO`]
//! with the descriptors of [`Stdio`], after the maps are written. SOCK_SEQPACKET keeps the messages apart.

use crate::warden::protocol::CellEnd;
use serde::{Deserialize, Serialize};
/// The warden's only message: the maps are written, run what the descriptors hold.
pub const GO: &[u8] = b"go";

/// Longest message of a cell in bytes; a longer text in it is cut before sending.
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
