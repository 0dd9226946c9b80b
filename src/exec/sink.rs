//! Where a command's output goes and where its input comes from.
//!
//! | what | who is it for |
//! |---|---|
//! | the first bytes, in memory | the buffered answer |
//! | the first bytes, in a file ([`Spool`]) | output that outlives the connection, and whoever follows it |
//! | beside either, a bounded channel of pieces | a client that reads along |
//!
//! A full channel makes [`drain`](super::pump::drain) wait, so the pipe fills and the command blocks: a slow reader costs
//! the server the channel and one piece. What is beyond a cap is counted and thrown away; that blocks nobody.

use super::live::Spools;
use super::outputs::{Outputs, Stream};
use super::reader::{Bound, LiveSink};
use super::request::ValidExec;
use super::spool::{Progress, Spool};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

/// What a stream gave.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Captured {
    /// The first bytes, where they were kept in memory.
    pub kept: Bytes,
    /// How many of the first bytes were kept, here or in a file.
    pub kept_bytes: u64,
    /// How many there were in all.
    pub total: u64,
}

/// The way of one output stream.
#[derive(Debug)]
pub struct Sink {
    keep: Keep,
    live: Option<LiveSink>,
    total: u64,
}

#[derive(Debug)]
enum Keep {
    Memory { kept: Vec<u8>, cap: usize },
    File(Spool),
}

impl Sink {
    /// Keeps the first `cap` bytes in memory; 0 keeps nothing.
    pub fn memory(cap: usize) -> Self {
        Self::new(Keep::Memory {
            kept: Vec::new(),
            cap,
        })
    }

    /// Keeps the first bytes in a file.
    pub fn file(spool: Spool) -> Self {
        Self::new(Keep::File(spool))
    }

    fn new(keep: Keep) -> Self {
        Self {
            keep,
            live: None,
            total: 0,
        }
    }

    /// Gives every byte to `live` as well, in pieces of at most [`PIECE`](super::pump::PIECE). When its receiver is gone
    /// the rest is only kept and counted.
    pub fn with_live(mut self, live: LiveSink) -> Self {
        self.live = Some(live);
        self
    }

    /// What makes it wait for its reader, where it has one.
    pub(super) fn bound(&self) -> Option<Bound> {
        self.live.as_ref().map(LiveSink::bound)
    }

    fn progress(&self) -> Option<watch::Receiver<Progress>> {
        match &self.keep {
            Keep::File(spool) => Some(spool.progress()),
            Keep::Memory { .. } => None,
        }
    }

    /// Whether taking bytes may wait for somebody: then they go through [`Sink::put`].
    pub(super) fn waits(&self) -> bool {
        self.live.is_some() || matches!(self.keep, Keep::File(_))
    }

    /// Takes bytes without waiting.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        if let Keep::Memory { kept, cap } = &mut self.keep {
            append(kept, bytes, *cap);
        }
    }

    /// Takes bytes and waits for the file, and for the reader until `stop` is raised.
    pub(super) async fn put(&mut self, bytes: Bytes, stop: &mut watch::Receiver<bool>) {
        self.take(&bytes);
        if let Keep::File(spool) = &mut self.keep {
            spool.put(bytes.clone()).await;
        }
        if let Some(live) = &self.live
            && !live.send(bytes, stop).await
        {
            self.live = None;
        }
    }

    /// What it got. A reader learns that there is no more.
    pub(super) fn finish(self) -> Captured {
        let total = self.total;
        match self.keep {
            Keep::Memory { kept, .. } => Captured {
                kept_bytes: kept.len() as u64,
                kept: kept.into(),
                total,
            },
            Keep::File(spool) => Captured {
                kept: Bytes::new(),
                kept_bytes: spool.kept(),
                total,
            },
        }
    }
}

fn append(kept: &mut Vec<u8>, bytes: &[u8], cap: usize) {
    let wanted = &bytes[..bytes.len().min(cap - kept.len())];
    let needed = kept.len() + wanted.len();
    if needed > kept.capacity() {
        // Doubling, but never beyond the cap: that is what admission set aside.
        let capacity = needed.max(2 * kept.capacity()).min(cap);
        kept.reserve_exact(capacity - kept.len());
    }
    kept.extend_from_slice(wanted);
}

/// What a command reads.
#[derive(Debug)]
pub enum Input {
    /// End of file at once.
    Nothing,
    /// These bytes, then end of file.
    Bytes(Vec<u8>),
    /// What comes; the end of the channel is the end of the file. The channel closes early when the command no longer
    /// reads.
    Channel(mpsc::Receiver<Bytes>),
}

/// A command's three streams.
#[derive(Debug)]
pub struct Io {
    /// What it reads.
    pub stdin: Input,
    /// Where its output goes.
    pub stdout: Sink,
    /// Where its errors go.
    pub stderr: Sink,
}

impl Io {
    /// Input from the request, output kept in memory up to the request's cap.
    pub fn buffered(exec: &mut ValidExec) -> Self {
        Self {
            stdin: exec.stdin.take().map_or(Input::Nothing, Input::Bytes),
            stdout: Sink::memory(exec.cap),
            stderr: Sink::memory(exec.cap),
        }
    }

    /// Input from the request, output kept in files up to the request's cap.
    pub fn spooled(exec: &mut ValidExec, outputs: &Outputs, exec_id: Uuid) -> Self {
        let cap = exec.cap as u64;
        let file = |stream| Sink::file(Spool::new(outputs, exec_id, stream, cap));
        Self {
            stdin: exec.stdin.take().map_or(Input::Nothing, Input::Bytes),
            stdout: file(Stream::Stdout),
            stderr: file(Stream::Stderr),
        }
    }

    pub(super) fn progress(&self) -> Spools {
        [self.stdout.progress(), self.stderr.progress()]
    }
}
