//! Moves bytes between a command's pipes and its [`Sink`]s and [`Input`].
//!
//! An output pipe is read to its end whatever happens: past the cap bytes are counted and thrown away, so that a command
//! is never blocked or killed for writing too much. Reading goes through one scratch buffer per thread; a silent command
//! costs no buffer at all.

use super::sink::{Captured, Input, Sink};
use crate::warden::streams::{Inlet, Outlet};
use crate::warden::terminal::CTRL_D;
use bytes::Bytes;
use std::cell::RefCell;
use std::io::{self, ErrorKind};
use tokio::sync::{mpsc, watch};

/// Bytes read at once: as much as a pipe holds by default, pipe(7), four times over.
const CHUNK: usize = 256 * 1024;

/// Most bytes in a piece for a file or a reader.
pub const PIECE: usize = 64 * 1024;

/// Full reads in a row before other tasks get their turn.
const TURN: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// Reads `outlet` to its end. When `gone` is raised, or its sender is gone, no process of the cell is left that could write:
/// then only what is there is read. Somebody else may have been handed the outlet's other end, by SCM_RIGHTS to another cell
/// of the runtime: neither that it stays open nor what is written to it from then on is the command's. Readers are waited for
/// until `stop` is raised.
pub(super) async fn drain(
    outlet: Outlet,
    mut sink: Sink,
    mut gone: watch::Receiver<bool>,
    mut stop: watch::Receiver<bool>,
) -> Captured {
    loop {
        let ready = tokio::select! {
            biased;
            // First, since there is no end to what somebody else may write.
            () = raised(&mut gone) => break,
            ready = outlet.readable() => ready,
        };
        let ended = match ready {
            Err(_) => true,
            Ok(()) if sink.waits() => read_piece(&outlet, &mut sink, &mut stop).await,
            Ok(()) => read_available(&outlet, &mut sink),
        };
        if ended {
            return sink.finish();
        }
        // Without this a command that floods its output would keep the thread for itself.
        tokio::task::yield_now().await;
    }
    read_rest(&outlet, &mut sink, &mut stop).await;
    sink.finish()
}

/// Reads as much as is there now.
async fn read_rest(outlet: &Outlet, sink: &mut Sink, stop: &mut watch::Receiver<bool>) {
    let mut left = outlet.left();
    while left > 0 {
        let read = SCRATCH.with_borrow_mut(|scratch| {
            let count = outlet.read_now(&mut scratch[..left.min(PIECE)])?;
            io::Result::Ok(Bytes::copy_from_slice(&scratch[..count]))
        });
        match read {
            Ok(piece) if piece.is_empty() => return,
            Ok(piece) => {
                left -= piece.len();
                sink.put(piece, stop).await;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Waits until the flag is true or nobody can raise it any more.
pub(super) async fn raised(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|raised| *raised).await;
}

/// Reads what is there, for one turn; true at the end of the pipe.
fn read_available(outlet: &Outlet, sink: &mut Sink) -> bool {
    SCRATCH.with_borrow_mut(|scratch| {
        for _ in 0..TURN {
            match outlet.try_read(scratch) {
                Ok(0) => return true,
                Ok(count) => sink.take(&scratch[..count]),
                Err(error) if again(&error) => return false,
                Err(_) => return true,
            }
        }
        false
    })
}

/// Reads one piece and waits until the sink has taken it; true at the end of the pipe.
async fn read_piece(outlet: &Outlet, sink: &mut Sink, stop: &mut watch::Receiver<bool>) -> bool {
    let read = SCRATCH.with_borrow_mut(|scratch| {
        let count = outlet.try_read(&mut scratch[..PIECE])?;
        io::Result::Ok(Bytes::copy_from_slice(&scratch[..count]))
    });
    match read {
        Ok(piece) if piece.is_empty() => return true,
        Ok(piece) => sink.put(piece, stop).await,
        Err(error) => return !again(&error),
    }
    false
}

fn again(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Writes the input, and then its end. A command that does not read it, or ends before it has read all, is no error.
pub(super) async fn feed(mut inlet: Inlet, input: Input) {
    let written = match input {
        Input::Nothing => Ok(()),
        Input::Bytes(bytes) => inlet.write_all(&bytes).await,
        Input::Channel(pieces) => feed_pieces(inlet, pieces).await,
    };
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        tracing::debug!(%error, "writing a command's stdin");
    }
}

async fn feed_pieces(mut inlet: Inlet, mut pieces: mpsc::Receiver<Bytes>) -> io::Result<()> {
    let mut last = None;
    while let Some(piece) = pieces.recv().await {
        inlet.write_all(&piece).await?;
        last = piece.last().copied().or(last);
    }
    let in_a_line = last.is_some_and(|byte| !matches!(byte, b'\n' | b'\r' | CTRL_D));
    inlet.close(in_a_line).await
}

#[cfg(test)]
#[path = "pump_tests.rs"]
mod tests;
