//! The directory of kept output, and the bound on all of it together: `<state>/output/<exec id>.stdout` and `.stderr`.
//! Room is made by forgetting the oldest output of ended commands; what finds no room is not kept.

use crate::store::{Evicted, Store, StoreError};
use bytes::Bytes;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;
use uuid::Uuid;

/// What kept output leaves free on its file system, so that a command can't take the database's room.
const RESERVE: u64 = 32 * crate::resources::MIB;

/// One of a command's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The word on the wire and in file names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// See the module; cheap to clone.
#[derive(Debug, Clone)]
pub struct Outputs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    store: Store,
    most: u64,
    used: AtomicU64,
    evicting: Mutex<()>,
}

impl Outputs {
    /// Makes the directory where it is missing. All kept output together is at most `most` bytes.
    pub fn open(directory: PathBuf, store: Store, most: u64) -> Self {
        if let Err(error) = fs::create_dir(&directory)
            && error.kind() != ErrorKind::AlreadyExists
        {
            // Commands run without it; each that has output says so in the log.
            tracing::error!(%error, directory = %directory.display(), "making the directory of kept output");
        }
        Self(Arc::new(Inner {
            directory,
            store,
            most,
            used: AtomicU64::new(0),
            evicting: Mutex::new(()),
        }))
    }

    /// Counts what a server before has kept.
    pub(super) async fn count(&self) -> Result<(), StoreError> {
        let kept = self.0.store.kept_output().await?;
        self.0.used.store(kept, Ordering::Relaxed);
        Ok(())
    }

    /// Bytes that are kept, in files and in rows.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Where an output is, or would be.
    pub fn path(&self, id: Uuid, stream: Stream) -> PathBuf {
        self.0.directory.join(format!("{id}.{}", stream.as_str()))
    }

    /// Opens a kept output and tells its length; None when there is no file. Blocks.
    pub fn file(&self, id: Uuid, stream: Stream) -> io::Result<Option<(File, u64)>> {
        match File::open(self.path(id, stream)) {
            Ok(file) => {
                let length = file.metadata()?.len();
                Ok(Some((file, length)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Bytes in an exec's files. Blocks.
    pub(super) fn length(&self, id: Uuid) -> u64 {
        let length = |stream| fs::metadata(self.path(id, stream)).map_or(0, |file| file.len());
        Stream::BOTH.into_iter().map(length).sum()
    }

    /// Writes both outputs of an exec. On an error nothing of them is left. Blocks.
    pub(super) fn write(&self, id: Uuid, output: &[Bytes; 2]) -> io::Result<()> {
        let write = |(stream, bytes): (Stream, &Bytes)| match bytes.is_empty() {
            true => Ok(()),
            false => File::create(self.path(id, stream))?.write_all(bytes),
        };
        let written = Stream::BOTH.into_iter().zip(output).try_for_each(write);
        if written.is_err() {
            self.remove(id);
        }
        written
    }

    /// Removes an exec's files. Blocks.
    pub(super) fn remove(&self, id: Uuid) {
        for stream in Stream::BOTH {
            remove(&self.path(id, stream));
        }
    }

    /// Sets bytes aside, and makes room for them where that is needed and possible.
    pub(super) async fn reserve(&self, bytes: u64) -> bool {
        if bytes > self.0.most || !self.disk_has_room(bytes) {
            return false;
        }
        if self.take(bytes) {
            return true;
        }
        let _turn = self.0.evicting.lock().await;
        while !self.take(bytes) {
            let lacking = (self.0.used.load(Ordering::Relaxed) + bytes).saturating_sub(self.0.most);
            // Some more than is asked for, so that not every piece of output makes room anew.
            match self.evict(lacking + self.0.most / 32).await {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) => {
                    tracing::error!(%error, "making room for output");
                    return false;
                }
            }
        }
        true
    }

    /// Removes what is beyond the bound: it may have been greater for the server before.
    pub(super) async fn shrink(&self) -> Result<(), StoreError> {
        let _turn = self.0.evicting.lock().await;
        loop {
            let beyond = self
                .0
                .used
                .load(Ordering::Relaxed)
                .saturating_sub(self.0.most);
            if beyond == 0 || !self.evict(beyond).await? {
                return Ok(());
            }
        }
    }

    /// Gives bytes back.
    pub(super) fn release(&self, bytes: u64) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes notice that output is no longer kept, and removes its files.
    pub(super) async fn forget(&self, gone: Vec<Evicted>) {
        self.release(gone.iter().map(|evicted| evicted.bytes).sum());
        let outputs = self.clone();
        let remove = move || {
            let files = gone.iter().filter(|evicted| evicted.in_files);
            files.for_each(|evicted| outputs.remove(evicted.id));
        };
        // It fails only when the service ends; files without a record are removed at the next start.
        let _ = tokio::task::spawn_blocking(remove).await;
    }

    /// Removes the files of execs before `before` that no record tells of: left by a crash.
    pub(super) async fn sweep(&self, before: Uuid) -> Result<(), StoreError> {
        let outputs = self.clone();
        let listed = tokio::task::spawn_blocking(move || outputs.list()).await;
        let mut ids = listed.unwrap_or_default();
        ids.retain(|id| *id < before);
        let orphans = self.0.store.without_files(ids).await?;
        if orphans.is_empty() {
            return Ok(());
        }
        tracing::info!(
            count = orphans.len(),
            "removing output that no record tells of"
        );
        let outputs = self.clone();
        let remove = move || orphans.into_iter().for_each(|id| outputs.remove(id));
        let _ = tokio::task::spawn_blocking(remove).await;
        Ok(())
    }

    fn list(&self) -> Vec<Uuid> {
        let id = |entry: io::Result<fs::DirEntry>| {
            let name = entry.ok()?.file_name();
            Uuid::parse_str(name.to_str()?.split_once('.')?.0).ok()
        };
        let mut ids: Vec<Uuid> = match fs::read_dir(&self.0.directory) {
            Ok(entries) => entries.filter_map(id).collect(),
            Err(error) => {
                tracing::error!(%error, "listing the kept output");
                return Vec::new();
            }
        };
        ids.sort();
        ids.dedup();
        ids
    }

    fn take(&self, bytes: u64) -> bool {
        let add = |used: u64| (used + bytes <= self.0.most).then_some(used + bytes);
        let used = &self.0.used;
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .is_ok()
    }

    async fn evict(&self, bytes: u64) -> Result<bool, StoreError> {
        let gone = self.0.store.evict_outputs(bytes).await?;
        let any = !gone.is_empty();
        self.forget(gone).await;
        Ok(any)
    }

    /// Whether the file system has room beyond the reserve; where statvfs(3) fails, writing finds out.
    fn disk_has_room(&self, bytes: u64) -> bool {
        nix::sys::statvfs::statvfs(&self.0.directory).map_or(true, |stat| {
            stat.blocks_available().saturating_mul(stat.fragment_size()) >= bytes + RESERVE
        })
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::error!(%error, path = %path.display(), "removing kept output");
    }
}
