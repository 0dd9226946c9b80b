//! Output kept in a file while the command writes it, and followed by others meanwhile.

use super::outputs::{Outputs, Stream};
use bytes::Bytes;
use std::fs::File;
use std::io::{self, Write};
use tokio::sync::watch;
use uuid::Uuid;

/// How far a spool has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes in the file, which a follower may read.
    pub kept: u64,
    /// Bytes that the command wrote.
    pub total: u64,
}

/// The writing side. When it is dropped, followers learn that there is no more.
#[derive(Debug)]
pub struct Spool {
    outputs: Outputs,
    exec_id: Uuid,
    stream: Stream,
    cap: u64,
    file: State,
    progress: watch::Sender<Progress>,
}

#[derive(Debug)]
enum State {
    /// A command without output makes no file.
    NotYet,
    Open(File),
    /// Nothing more is kept.
    Closed,
}

impl Spool {
    /// Keeps the first `cap` bytes of an exec's output. What can't be kept is only counted: no command fails for it.
    pub fn new(outputs: &Outputs, exec_id: Uuid, stream: Stream, cap: u64) -> Self {
        Self {
            outputs: outputs.clone(),
            exec_id,
            stream,
            cap,
            file: State::NotYet,
            progress: watch::Sender::default(),
        }
    }

    /// Its progress, to be followed; the end of the channel is the end of the output.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Bytes in the file.
    pub(super) fn kept(&self) -> u64 {
        self.progress.borrow().kept
    }

    /// Writes what is below the cap, and counts the rest.
    pub(super) async fn put(&mut self, bytes: Bytes) {
        let total = bytes.len() as u64;
        let room = self.cap - self.kept();
        let wanted = bytes.slice(..total.min(room) as usize);
        let kept = if wanted.is_empty() {
            0
        } else {
            self.write(wanted).await
        };
        self.progress.send_modify(|progress| {
            progress.kept += kept;
            progress.total += total;
        });
    }

    /// How many of the bytes are in the file now: all, or none and never any again.
    async fn write(&mut self, bytes: Bytes) -> u64 {
        let state = std::mem::replace(&mut self.file, State::Closed);
        if matches!(state, State::Closed) {
            return 0;
        }
        let count = bytes.len() as u64;
        let exec_id = self.exec_id;
        if !self.outputs.reserve(count).await {
            tracing::warn!(%exec_id, "no room for a command's output; the rest of it is only counted");
            return 0;
        }
        let path = self.outputs.path(exec_id, self.stream);
        let write = move || {
            let mut file = match state {
                State::Open(file) => file,
                _ => File::create_new(path)?,
            };
            file.write_all(&bytes)?;
            io::Result::Ok(file)
        };
        let written = tokio::task::spawn_blocking(write).await;
        match written.map_err(io::Error::other).flatten() {
            Ok(file) => {
                self.file = State::Open(file);
                return count;
            }
            Err(error) => {
                tracing::error!(%exec_id, %error, "keeping a command's output; the rest of it is only counted");
            }
        }
        self.outputs.release(count);
        0
    }
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
