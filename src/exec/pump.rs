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
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::task::{Poll, ready};
use tokio::sync::{mpsc, watch};

/// Bytes read at once: as much as a pipe holds by default, pipe(7), four times over.
const CHUNK: usize = 256 * 1024;

/// Most bytes in a piece for a file or a reader.
pub const PIECE: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// Reads `outlet` to its end. When `gone` is raised, or its sender is gone, no process of the cell is left that could write:
/// then only what is there is read. Somebody else may have been handed the outlet's other end, by SCM_RIGHTS to another cell
/// of the runtime: neither that it stays open nor what is written to it from then on is the command's. Readers are waited for
/// until `stop` is raised.
pub(super) async fn drain(
    mut outlet: Outlet,
    mut sink: Sink,
    mut gone: watch::Receiver<bool>,
    mut stop: watch::Receiver<bool>,
) -> Captured {
    loop {
        let waits = sink.waits();
        let most = if waits { PIECE } else { CHUNK };
        let take = |bytes: &[u8]| match waits {
            true => Bytes::copy_from_slice(bytes),
            false => {
                sink.take(bytes);
                Bytes::new()
            }
        };
        let read = tokio::select! {
            biased;
            // First, since there is no end to what somebody else may write.
            () = raised(&mut gone) => break,
            read = read(&mut outlet, most, take) => read,
        };
        match read {
            Ok((0, _)) => return sink.finish(),
            Ok((_, piece)) if waits => sink.put(piece, &mut stop).await,
            Ok(_) => {}
            Err(error) if again(&error) => {}
            Err(_) => return sink.finish(),
        }
    }
    read_rest(&outlet, &mut sink, &mut stop).await;
    sink.finish()
}

/// Reads at most so many bytes as soon as some are there, and hands them over; 0 is the end.
async fn read(
    outlet: &mut Outlet,
    most: usize,
    mut take: impl FnMut(&[u8]) -> Bytes,
) -> io::Result<(usize, Bytes)> {
    outlet.ready().await?;
    poll_fn(|context| {
        SCRATCH.with_borrow_mut(|scratch| {
            let count = ready!(outlet.poll_read(context, &mut scratch[..most]))?;
            Poll::Ready(Ok((count, take(&scratch[..count]))))
        })
    })
    .await
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
