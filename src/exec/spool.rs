//! Output kept in a file while the command writes it, and followed by others meanwhile.

use bytes::Bytes;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use tokio::sync::watch;

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
    /// None once nothing more is kept.
    file: Option<File>,
    cap: u64,
    progress: watch::Sender<Progress>,
}

impl Spool {
    /// Keeps the first `cap` bytes in a new file at `path`. A file that can't be made is logged, and nothing is kept: the
    /// command is not to fail for it. Blocks.
    pub fn create(path: &Path, cap: u64) -> Self {
        let file = File::create_new(path)
            .inspect_err(|error| tracing::error!(%error, "making a file for a command's output"))
            .ok();
        Self {
            file,
            cap,
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
        let Some(mut file) = self.file.take() else {
            return 0;
        };
        let count = bytes.len() as u64;
        let written = tokio::task::spawn_blocking(move || {
            file.write_all(&bytes)?;
            Ok::<_, std::io::Error>(file)
        });
        match written.await {
            Ok(Ok(file)) => {
                self.file = Some(file);
                count
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "keeping a command's output; the rest of it is only counted");
                0
            }
            // The runtime is shutting down.
            Err(_) => 0,
        }
    }
}
