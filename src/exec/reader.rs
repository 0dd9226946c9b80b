//! A command's streams in the hands of somebody who reads along and perhaps writes: bounded channels in both directions.

use super::outputs::{Outputs, Stream};
use super::request::ValidExec;
use super::sink::{Input, Io, Sink};
use bytes::Bytes;
use tokio::sync::mpsc;
use uuid::Uuid;

/// Pieces that wait for the reader, per stream; one more is in the pump's hands.
const OUTPUT_QUEUE: usize = 1;

/// Pieces that wait for the command. More than one, so that a command which pauses for a moment does not stop its client
/// from being heard, see `api::stream`.
const INPUT_QUEUE: usize = 4;

/// Both outputs, in pieces of at most [`PIECE`](super::PIECE), as they come.
#[derive(Debug)]
pub struct LiveOutput {
    // None after its end.
    stdout: Option<mpsc::Receiver<Bytes>>,
    stderr: Option<mpsc::Receiver<Bytes>>,
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
async fn receive(channel: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match channel {
        Some(channel) => channel.recv().await,
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
        let (stdout, read_stdout) = mpsc::channel(OUTPUT_QUEUE);
        let (stderr, read_stderr) = mpsc::channel(OUTPUT_QUEUE);
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
