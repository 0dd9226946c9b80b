//! Reading and writing files of a runtime. Each operation is a cell of its own, whose payload is not a command but our
//! own few lines, see [`crate::cell::file`]; here are the other ends of its pipes.
//!
//! ```text
//! GET ──▶ read ──admit──▶ Session ──report──▶ size ──▶ Download ──▶ bytes, each piece when the client has taken the last
//! PUT ──▶ write ─admit──▶ Session ──report──▶ ready ──▶ frames from the Source ──▶ empty frame ──report──▶ done
//! ```
//!
//! One piece of a file is in memory at a time, however large it is. Each operation runs in a task of its own, which lives
//! until its cell is gone; only then is its place free. What comes out of a cell is taken for a tenant's bytes.
//!
//! Called by `api`. Knows runtimes, admission and the warden's client, but not HTTP.

mod error;
mod path;
mod read;
mod session;
mod write;

pub use error::FileError;
pub use path::FilePath;
pub use read::{Broken, Download};
pub use write::{Source, SourceError};

use crate::config::{ExecBounds, FileBounds};
use crate::exec::{Admission, Permit};
use crate::runtime::Runtime;
use crate::warden::client::Warden;
use crate::warden::protocol::Filesystem;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// The operations on files; shared by all requests.
#[derive(Debug)]
pub struct Files {
    warden: Warden,
    admission: Arc<Admission>,
    bounds: FileBounds,
    transfers: Mutex<JoinSet<()>>,
}

impl Files {
    /// Nothing is on its way yet. Waits are bounded as those of commands are, but places are counted apart: slow clients
    /// take no place from a command.
    pub fn new(warden: Warden, bounds: FileBounds, exec: &ExecBounds) -> Self {
        let admission = Admission::new(ExecBounds {
            max_execs: bounds.max_file_transfers,
            max_execs_per_runtime: bounds.max_file_transfers_per_runtime,
            ..exec.clone()
        });
        Self {
            warden,
            admission,
            bounds,
            transfers: Mutex::default(),
        }
    }

    /// Opens a file. Dropping the wait or the download ends it.
    pub async fn read(&self, runtime: Arc<Runtime>, path: FilePath) -> Result<Download, FileError> {
        let permit = self.admit(&runtime).await?;
        let (tell, answer) = oneshot::channel();
        let (warden, idle) = (self.warden.clone(), self.idle());
        let most = self.bounds.max_file_read_bytes;
        self.spawn(permit, async move {
            read::serve(warden, runtime, path, most, idle, tell).await;
        });
        answer.await.map_err(|_| FileError::ShuttingDown)?
    }

    /// Writes a file. Dropping the wait ends it, unless every byte has come: then it is finished.
    pub async fn write(
        &self,
        runtime: Arc<Runtime>,
        path: FilePath,
        length: Option<u64>,
        source: impl Source,
    ) -> Result<(), FileError> {
        let settings = &runtime.settings;
        if settings.filesystem != Filesystem::Persistent {
            return Err(FileError::NotKept(runtime.name.clone()));
        }
        let most = self.bounds.max_file_bytes;
        if length.is_some_and(|length| length > most) {
            return Err(SourceError::TooLarge(most).into());
        }
        if length.is_some_and(|length| length / crate::resources::MIB >= settings.disk_mib) {
            return Err(FileError::DiskFull(settings.disk_mib));
        }
        let permit = self.admit(&runtime).await?;
        let (tell, answer) = oneshot::channel();
        let (warden, idle) = (self.warden.clone(), self.idle());
        self.spawn(permit, async move {
            write::serve(warden, runtime, path, most, source, idle, tell).await;
        });
        answer.await.map_err(|_| FileError::ShuttingDown)?
    }

    /// What may be under way now.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Admits nobody any more. What is on its way goes on.
    pub fn close(&self) {
        self.admission.close();
    }

    /// Ends all that is on its way.
    pub async fn abort(&self) {
        let mut transfers = std::mem::take(&mut *self.transfers());
        transfers.shutdown().await;
    }

    async fn admit(&self, runtime: &Runtime) -> Result<Permit, FileError> {
        // The few pieces that a transfer holds are not worth counting.
        Ok(self.admission.admit(runtime.id, 0).await?)
    }

    fn spawn(&self, permit: Permit, transfer: impl Future<Output = ()> + Send + 'static) {
        let mut transfers = self.transfers();
        // Those that have ended are let go of here; nobody asks for them.
        while transfers.try_join_next().is_some() {}
        transfers.spawn(async move {
            transfer.await;
            drop(permit);
        });
    }

    fn transfers(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.transfers
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn idle(&self) -> Duration {
        Duration::from_secs(self.bounds.file_idle_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, RawConfig};
    use crate::exec::AdmissionError;
    use crate::runtime::{Status, test_runtime};
    use crate::sys::packet;
    use crate::warden::client::WardenError;
    use tokio::sync::mpsc;

    #[tokio::test(start_paused = true)]
    async fn a_place_is_free_when_its_cell_is_gone() {
        let (keep, replacements) = mpsc::unbounded_channel();
        // A warden that never answers.
        let (ours, theirs) = packet::pair().unwrap();
        let warden = Warden::connect(ours, replacements).unwrap();
        let config = Config::resolve(RawConfig::default()).unwrap();
        let bounds = FileBounds {
            max_file_transfers_per_runtime: 1,
            ..config.files
        };
        let files = Files::new(warden, bounds, &config.exec);
        let runtime = test_runtime(Status::Running);
        let path = FilePath::parse(b"/file", "/").unwrap();
        let read = async || files.read(runtime.clone(), path.clone()).await.unwrap_err();
        assert!(matches!(read().await, FileError::Silent(_)));
        // The kill, too, was given up long ago.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let refused = read().await;
        assert!(
            matches!(refused, FileError::Admission(AdmissionError::RuntimeBusy)),
            "{refused:?}"
        );
        // With the warden every cell is gone, and no other one comes.
        drop((theirs, keep));
        let error = read().await;
        assert!(
            matches!(error, FileError::Start(WardenError::Lost)),
            "{error:?}"
        );
    }
}
