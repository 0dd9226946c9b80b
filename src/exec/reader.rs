//! A command's streams in the hands of somebody who reads along and perhaps writes: bounded channels in both directions.
//! What a command leaves in its pipes when it ends is little, and waits for its reader here, so that nobody else has to.

use super::outputs::{Outputs, Stream};
use super::pump::raised;
use super::request::ValidExec;
use super::sink::{Input, Io, Sink};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use uuid::Uuid;

/// Pieces that wait for the reader, per stream; one more is in the pump's hands.
const OUTPUT_QUEUE: usize = 1;

/// Pieces that wait for the command. More than one, so that a command which pauses for a moment does not stop its client
/// from being heard, see `api::stream`.
const INPUT_QUEUE: usize = 4;

/// More pieces that may wait when the command has ended: as much as a pipe can be made to hold, 1 MiB (pipe(7)), or a
/// terminal holds in its smaller pieces, and some.
const REST: usize = 32;

/// A piece and its place in the queue.
type Piece = (Bytes, OwnedSemaphorePermit);

/// The side of an output that the command writes to.
#[derive(Debug)]
pub struct LiveSink {
    pieces: mpsc::UnboundedSender<Piece>,
    places: Arc<Semaphore>,
}

/// The reader's side.
#[derive(Debug)]
pub struct LiveStream(mpsc::UnboundedReceiver<Piece>);

/// The bound on what waits for a reader.
#[derive(Debug)]
pub(super) struct Bound(Arc<Semaphore>);

/// A way from a command to somebody who reads along, on which `places` pieces may wait.
pub fn live_output(places: usize) -> (LiveSink, LiveStream) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let sink = LiveSink {
        pieces: sender,
        places: Arc::new(Semaphore::new(places)),
    };
    (sink, LiveStream(receiver))
}

impl LiveSink {
    /// Hands a piece on when there is a place for it; false when the reader is gone, and when there is no place and `stop`
    /// is raised.
    pub(super) async fn send(&self, piece: Bytes, stop: &mut watch::Receiver<bool>) -> bool {
        let place = tokio::select! {
            biased;
            () = self.pieces.closed() => return false,
            place = self.places.clone().acquire_owned() => place,
            () = raised(stop) => return false,
        };
        // The semaphore is never closed.
        place.is_ok_and(|place| self.pieces.send((piece, place)).is_ok())
    }

    pub(super) fn bound(&self) -> Bound {
        Bound(self.places.clone())
    }
}

impl LiveStream {
    /// The next piece; none after the last one. Nothing is lost when the wait is cancelled.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.0.recv().await.map(|(piece, _place)| piece)
    }

    /// How many pieces wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.0.len()
    }
}

impl Bound {
    /// Makes room for all that an ended command has left. It is a bound still: a process that was handed the pipe, in
    /// another cell of the runtime, may go on writing.
    pub(super) fn make_room(&self) {
        self.0.add_permits(REST);
    }
}

/// Both outputs, in pieces of at most [`PIECE`](super::PIECE), as they come.
#[derive(Debug)]
pub struct LiveOutput {
    // None after its end.
    stdout: Option<LiveStream>,
    stderr: Option<LiveStream>,
    /// Whose turn it is where both have something.
    turn: Stream,
}

impl LiveOutput {
    /// The next piece; none after the end of both. Nothing is lost when the wait is cancelled.
    pub async fn next(&mut self) -> Option<(Stream, Bytes)> {
        while self.stdout.is_some() || self.stderr.is_some() {
            let stdout = receive(&mut self.stdout);
            let stderr = receive(&mut self.stderr);
            let (stream, piece) = match self.turn {
                Stream::Stdout => tokio::select! {
                    biased;
                    piece = stdout => (Stream::Stdout, piece),
                    piece = stderr => (Stream::Stderr, piece),
                },
                Stream::Stderr => tokio::select! {
                    biased;
                    piece = stderr => (Stream::Stderr, piece),
                    piece = stdout => (Stream::Stdout, piece),
                },
            };
            // By turns, so that a flood in one does not hide the other.
            self.turn = match stream {
                Stream::Stdout => Stream::Stderr,
                Stream::Stderr => Stream::Stdout,
            };
            match (stream, piece) {
                (stream, Some(piece)) => return Some((stream, piece)),
                (Stream::Stdout, None) => self.stdout = None,
                (Stream::Stderr, None) => self.stderr = None,
            }
        }
        None
    }
}

/// What comes next; never anything after the end.
async fn receive(channel: &mut Option<LiveStream>) -> Option<Bytes> {
    match channel {
        Some(channel) => channel.next().await,
        None => std::future::pending().await,
    }
}

/// A way to write to a command: its pieces, and the end when it is dropped.
pub fn live_input() -> (mpsc::Sender<Bytes>, Input) {
    let (sender, receiver) = mpsc::channel(INPUT_QUEUE);
    (sender, Input::Channel(receiver))
}

impl Io {
    /// Lets somebody read along with what these sinks get.
    pub fn live(self) -> (Self, LiveOutput) {
        let (stdout, read_stdout) = live_output(OUTPUT_QUEUE);
        let (stderr, read_stderr) = live_output(OUTPUT_QUEUE);
        let io = Self {
            stdin: self.stdin,
            stdout: self.stdout.with_live(stdout),
            stderr: self.stderr.with_live(stderr),
        };
        let output = LiveOutput {
            stdout: Some(read_stdout),
            stderr: Some(read_stderr),
            turn: Stream::Stdout,
        };
        (io, output)
    }

    /// This input, and output that is only counted; in files where the command is to outlive its client.
    pub fn streamed(exec: &mut ValidExec, stdin: Input, outputs: &Outputs, exec_id: Uuid) -> Self {
        if exec.detach {
            let spooled = Self::spooled(exec, outputs, exec_id);
            return Self { stdin, ..spooled };
        }
        Self {
            stdin,
            stdout: Sink::memory(0),
            stderr: Sink::memory(0),
        }
    }
}
