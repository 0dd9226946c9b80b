//! Durable state in one SQLite file: tenants, token hashes, runtimes, checkpoints, exec records, idempotency keys. The only
//! place with SQL.
//!
//! One thread owns the connection that writes and does one job after the other; another one answers questions that may
//! look at many rows, so that they keep no write waiting. Callers wait for their answer without blocking the async
//! runtime. What every request needs is kept in memory by `tenant` and `runtime` and read from here once, at start.

mod checkpoints;
mod exec_queries;
mod execs;
mod keys;
mod migrations;
mod reserve;
mod rows;

pub use checkpoints::CheckpointRow;
pub use exec_queries::{ExecFilter, ExecPage, first_id_at};
pub use execs::{Evicted, ExecBatch, ExecChange, ExecRow, ExecWrite};
pub use keys::KeyRow;
pub use rows::{RuntimeRow, Snapshot, TenantRow, TokenRow};

use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Why state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be opened.
    #[error("opening the database {path}", path = path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file was written by a newer version of this program.
    #[error(
        "the database {path} has schema version {found}, but this version knows only up to {known}: \
         run the newer version again, or restore the data directory from before the upgrade",
        path = path.display()
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The newest known here.
        known: u32,
    },
    /// A migration failed; the file is unchanged.
    #[error("bringing the database to schema version {version}")]
    Migrate {
        /// The version that was being reached.
        version: u32,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// A name that must be unique exists already.
    #[error("the name is taken")]
    Taken,
    /// Anything else that SQLite refused.
    #[error("{operation}")]
    Sql {
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// The thread could not be started.
    #[error("starting the database thread")]
    Thread(#[source] std::io::Error),
    /// The thread is gone.
    #[error("the database thread is gone")]
    Gone,
}

impl StoreError {
    /// Whether the database's disk, or another process that uses the file, is in the way. A disk that fails in the midst of a
    /// write may show as a file that makes no sense (seen on 6.12, ext4), until it is opened again.
    pub fn is_unwritable(&self) -> bool {
        use rusqlite::ErrorCode::{
            DatabaseBusy, DatabaseCorrupt, DatabaseLocked, ReadOnly, SystemIoFailure,
        };
        let reasons = [
            DatabaseBusy,
            DatabaseCorrupt,
            DatabaseLocked,
            ReadOnly,
            SystemIoFailure,
        ];
        matches!(self, Self::Sql { source, .. }
            if source.sqlite_error_code().is_some_and(|code| reasons.contains(&code)))
    }

    /// Whether the disk is full: the caller may try again when there is room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Sql { source, .. }
            if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull))
    }
}

/// SQLite's way to use a database alone: what the others would share is in memory, and takes no room on the disk.
const ALONE: &str = "unix-excl";

/// What a thread is sent.
enum Job {
    /// To be done with its connection.
    Do(Box<dyn FnOnce(&mut Connection) + Send>),
    /// Nothing more is to be done; told when that is so.
    End(oneshot::Sender<()>),
}

/// A handle to the database; cheap to clone. The threads end with the last handle.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    questions: mpsc::Sender<Job>,
}

impl Store {
    /// Opens or makes the file at `path` and brings its schema up to date. Blocks; called once, at start.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let open = |source| StoreError::Open {
            path: path.to_owned(),
            source,
        };
        let connect = |vfs: Option<&str>| {
            let flags = OpenFlags::default();
            let connection = match vfs {
                None => Connection::open_with_flags(path, flags),
                Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs),
            }?;
            configure(&connection).map(|()| connection)
        };
        let (mut writer, vfs) = match connect(None) {
            Err(error) if reserve::lacks_index(&error) => {
                tracing::warn!(
                    "the disk is full: no other program can read the database until the next start"
                );
                (connect(Some(ALONE)).map_err(open)?, Some(ALONE))
            }
            connected => (connected.map_err(open)?, None),
        };
        migrations::apply(&mut writer, path)?;
        reserve::open(&mut writer).map_err(open)?;
        let reader = connect(vfs).map_err(open)?;
        reader
            .pragma_update(None, "query_only", true)
            .map_err(open)?;
        Ok(Self {
            jobs: serve("store", writer)?,
            questions: serve("store-reader", reader)?,
        })
    }

    /// Brings everything into the database's file. Nothing can be written any more.
    pub async fn close(&self) {
        let (tell, ended) = oneshot::channel();
        if self.jobs.send(Job::End(tell)).is_ok() {
            let _ = ended.await;
        }
    }

    /// As [`Store::call`], for what begins something and stores about so many bytes: refused when nothing but the
    /// [`reserve`] is left.
    async fn add<T, F>(&self, operation: &'static str, bytes: u64, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.call(operation, move |connection| {
            reserve::keep(connection, bytes)?;
            job(connection)
        })
        .await
    }

    /// Runs `job` on the writing thread. It is carried out even if the caller stops waiting.
    async fn call<T, F>(&self, operation: &'static str, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        ask(&self.jobs, operation, job).await
    }

    /// From here on the file can't become larger, as on a full disk.
    #[cfg(test)]
    pub(crate) async fn fill_disk(&self) {
        self.call("filling the disk", |connection| {
            let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
            connection.pragma_update(None, "max_page_count", pages)
        })
        .await
        .unwrap();
    }

    /// Runs `question` on the reading thread, which sees everything that was written before.
    async fn read<T, F>(&self, operation: &'static str, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        ask(&self.questions, operation, question).await
    }
}

/// A thread that owns the connection and does what it is sent, until nobody can send any more.
fn serve(name: &str, mut connection: Connection) -> Result<mpsc::Sender<Job>, StoreError> {
    let (jobs, queue) = mpsc::channel::<Job>();
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            for job in queue {
                match job {
                    Job::Do(work) => work(&mut connection),
                    Job::End(tell) => {
                        reserve::close(&connection);
                        let _ = tell.send(());
                        break;
                    }
                }
            }
            // The last that is closed removes the log, and with it the room that it has on a full disk.
            std::mem::forget(connection);
        })
        .map_err(StoreError::Thread)?;
    Ok(jobs)
}

async fn ask<T, F>(
    thread: &mpsc::Sender<Job>,
    operation: &'static str,
    job: F,
) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
{
    let (answer, wait) = oneshot::channel();
    let job = Job::Do(Box::new(move |connection| {
        // The caller may have gone meanwhile.
        let _ = answer.send(job(connection));
    }));
    thread.send(job).map_err(|_| StoreError::Gone)?;
    wait.await
        .map_err(|_| StoreError::Gone)?
        .map_err(|source| named(operation, source))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // What was answered must survive a power cut; writes are rare enough to afford it.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)
}

fn named(operation: &'static str, source: rusqlite::Error) -> StoreError {
    match source.sqlite_error() {
        Some(e) if e.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE => StoreError::Taken,
        _ => StoreError::Sql { operation, source },
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
