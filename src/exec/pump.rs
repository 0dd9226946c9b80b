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

/// Reads that are still done when there is no time left: more than enough for a full pipe, and no end to the patience with
/// somebody who goes on writing.
const LAST_READS: usize = 64;

/// Reads `outlet` to its end, or until `stop` turns true or its sender is gone and what was in it is read.
pub(super) async fn drain(
    outlet: Outlet,
    mut sink: Sink,
    mut stop: watch::Receiver<bool>,
) -> Captured {
    let mut last_reads = LAST_READS;
    loop {
        let ready = tokio::select! {
            biased;
            ready = outlet.readable() => ready,
            () = raised(&mut stop) => break,
        };
        if *stop.borrow() || stop.has_changed().is_err() {
            if last_reads == 0 {
                break;
            }
            last_reads -= 1;
        }
        let ended = match ready {
            Err(_) => true,
            Ok(()) if sink.waits() => read_piece(&outlet, &mut sink, &mut stop).await,
            Ok(()) => read_available(&outlet, &mut sink),
        };
        if ended {
            break;
        }
        // Without this a command that floods its output would keep the thread for itself.
        tokio::task::yield_now().await;
    }
    sink.finish()
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
