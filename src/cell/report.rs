//! What a cell tells the warden over its control socket, and what the warden sends.
//!
//! Up: [`UserNamespaceMade`](FromCell::UserNamespaceMade) once, then how it ended: from init, and before
//! that from the payload where it could not become the command. The first word counts. Down: one [`GO`], after the maps are
//! written, then any number of [`SignalSet`]s. SOCK_SEQPACKET keeps the messages apart and in order.
//!
//! The payload's order ([`Stdio`]) comes over a socket of its own, so that nobody has to be woken to pass it on.

use crate::cell::error::CellError;
use crate::sys::packet;
use crate::warden::protocol::{CellEnd, CommandSignal};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The warden's first message: the maps are written.
pub const GO: &[u8] = b"go";

/// The order's only message; the descriptors with it are the command and its streams.
pub const RUN: &[u8] = b"run";

/// Longest message of a cell in bytes; a longer one is not sent.
pub const MAX_REPORT: usize = 1024;

/// From the cell.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromCell {
    /// The cell made its user namespace and waits for the maps.
    UserNamespaceMade,
    /// From the payload: why it ends without having become the command.
    Refused(CellEnd),
    /// From init: how the command ended, when it began (execve(2), in [`monotonic_us`](crate::sys::monotonic_us); 0 for never),
    /// and that no process of the cell but init is left.
    End(CellEnd, u64),
    /// From init, behind that: the cell's namespaces, to be held for a moment; see the warden's `recent`.
    Namespaces,
    /// It could not be built: the step that failed and why, for the log, and what that means.
    Failed(String, CellEnd),
}

/// What the payload is to run, and with what.
#[derive(Debug)]
pub struct Stdio {
    /// The sealed memfd with the command.
    pub command: OwnedFd,
    /// Descriptors 0, 1 and 2 of the payload.
    pub streams: [OwnedFd; 3],
}

impl Stdio {
    /// Sends it to the payload.
    ///
    /// # Errors
    /// EPIPE where that is gone.
    pub fn send(&self, order: BorrowedFd<'_>) -> Result<(), Errno> {
        let [stdin, stdout, stderr] = self.streams.each_ref().map(AsFd::as_fd);
        let fds = [self.command.as_fd(), stdin, stdout, stderr];
        packet::send(order, RUN, &fds)
    }

    /// Waits for it.
    ///
    /// # Errors
    /// EPIPE where the warden has none for this cell; EPROTO for anything else than an order.
    pub fn receive(order: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mut buffer = [0; 16];
        let packet = loop {
            match packet::receive_trusted(order, &mut buffer) {
                Err(Errno::EINTR) => {}
                other => break other?.ok_or(Errno::EPIPE)?,
            }
        };
        let expected = &buffer[..packet.length] == RUN;
        let fds: Result<[OwnedFd; 4], _> = packet.fds.try_into();
        match fds {
            Ok([command, stdin, stdout, stderr]) if expected => Ok(Self {
                command,
                streams: [stdin, stdout, stderr],
            }),
            _ => Err(Errno::EPROTO),
        }
    }
}

/// Signals on their way to the payload's process group. A set, like the kernel's own: one that is sent again before it
/// was delivered is delivered once.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SignalSet(u64);

impl SignalSet {
    /// Adds one.
    pub fn add(&mut self, signal: CommandSignal) {
        self.0 |= 1 << signal.number();
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The message.
    pub fn encode(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }

    /// Reads what [`SignalSet::encode`] wrote; bits that are no [`CommandSignal`] have no meaning.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        bytes
            .try_into()
            .ok()
            .map(|bytes| Self(u64::from_le_bytes(bytes)))
    }

    /// What is in it.
    pub fn signals(self) -> impl Iterator<Item = CommandSignal> {
        CommandSignal::ALL
            .into_iter()
            .filter(move |signal| self.0 >> signal.number() & 1 == 1)
    }
}

/// Tells the warden's log which step failed, and the warden what that means. The socket may be gone; then nobody wants to know.
pub fn report_failure(control: &OwnedFd, error: &CellError, end: CellEnd) {
    let text = format!("{}: {}", error.step, error.source);
    tell(control, &FromCell::Failed(text, end), &[]);
}

/// Sends a report, with descriptors beside it; one that is too long or comes too late is dropped. Whether it was sent.
pub fn tell(control: &OwnedFd, message: &FromCell, fds: &[OwnedFd]) -> bool {
    let bytes = serde_json::to_vec(message).unwrap_or_default();
    if bytes.is_empty() || bytes.len() > MAX_REPORT {
        return false;
    }
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    packet::send(control.as_fd(), &bytes, &fds).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_added_and_nothing_else() {
        let mut set = SignalSet::default();
        assert!(set.is_empty());
        set.add(CommandSignal::Usr1);
        set.add(CommandSignal::Int);
        set.add(CommandSignal::Int);
        let read = SignalSet::decode(&set.encode()).unwrap();
        let signals: Vec<_> = read.signals().collect();
        assert_eq!(signals, [CommandSignal::Int, CommandSignal::Usr1]);
        let foreign = SignalSet::decode(&(1u64 << 19).to_le_bytes()).unwrap();
        assert_eq!(
            foreign.signals().count(),
            0,
            "SIGSTOP is not in the closed set"
        );
        assert_eq!(SignalSet::decode(b"go"), None);
    }
}
