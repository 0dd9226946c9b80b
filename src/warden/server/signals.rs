//! Signals that clients send to their commands, on their way to the cell's init.

use crate::sys::packet;
use crate::warden::protocol::CommandSignal;
use crate::warden::server::Warden;
use crate::warden::server::cells::Cell;
use nix::errno::Errno;
use std::os::fd::AsFd;

impl Warden {
    /// Passes a signal on to the payload of an exec; an ended or unknown one is nothing to do for.
    pub(super) fn signal(&mut self, seq: u64, signal: CommandSignal) {
        let slot = self.cells.by_seq(seq);
        if let Some(cell) = slot.and_then(|slot| self.cells.get_mut(slot)) {
            // Sent at the end of this turn of the loop, see `tick`.
            cell.signals.add(signal);
        }
    }
}

/// Sends what waits, once the cell was told to start: before that, init would take it for the start. Called again and
/// again, since the socket may be full (the cell may be frozen).
pub(super) fn pass_signals(cell: &mut Cell) {
    let Some(opened) = cell.opened.as_ref().filter(|_| cell.was_started()) else {
        return;
    };
    if cell.signals.is_empty() {
        return;
    }
    match packet::send(opened.control.as_fd(), &cell.signals.encode(), &[]) {
        Err(Errno::EAGAIN) => {}
        // Sent, or there is nobody left to signal.
        Ok(()) | Err(_) => cell.signals = Default::default(),
    }
}
