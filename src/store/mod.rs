//! Durable state in one SQLite file: tenants, token hashes, runtimes, checkpoints. The only place with SQL.
//!
//! One thread owns the connection and does one job after the other; callers wait for their answer without blocking the
//! async runtime. What every request needs is kept in memory by `tenant` and `runtime` and read from here once, at
//! start.

mod checkpoints;
mod migrations;
mod rows;

pub use checkpoints::CheckpointRow;
pub use rows::{RuntimeRow, Snapshot, TenantRow, TokenRow};

use rusqlite::Connection;
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
    /// Whether the disk is full: the caller may try again when there is room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Sql { source, .. }
            if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull))
    }
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle to the database; cheap to clone. The thread ends with the last handle.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
}

impl Store {
    /// Opens or makes the file at `path` and brings its schema up to date. Blocks; called once, at start.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let open = |source| StoreError::Open {
            path: path.to_owned(),
            source,
        };
        let mut connection = Connection::open(path).map_err(open)?;
        configure(&connection).map_err(open)?;
        migrations::apply(&mut connection, path)?;

        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || queue.into_iter().for_each(|job| job(&mut connection)))
            .map_err(StoreError::Thread)?;
        Ok(Self { jobs })
    }

    /// Runs `job` on the database thread. It is carried out even if the caller stops waiting.
    async fn call<T, F>(&self, operation: &'static str, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, wait) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // The caller may have gone meanwhile.
            let _ = answer.send(job(connection));
        });
        self.jobs.send(job).map_err(|_| StoreError::Gone)?;
        wait.await
            .map_err(|_| StoreError::Gone)?
            .map_err(|source| named(operation, source))
    }
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
mod tests {
    use super::*;
    use uuid::Uuid;

    fn runtime(tenant: Uuid, name: &str) -> RuntimeRow {
        RuntimeRow {
            id: Uuid::now_v7(),
            tenant,
            name: name.into(),
            status: "creating".into(),
            settings: "{}".into(),
            created_at: "2026-01-01T00:00:00Z".into(),
            updated_at: "2026-01-01T00:00:00Z".into(),
        }
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let tenant = TenantRow {
            id: Uuid::now_v7(),
            name: "default".into(),
        };
        let row = runtime(tenant.id, "a");
        {
            let store = Store::open(&path).unwrap();
            store.insert_tenant(tenant.clone()).await.unwrap();
            store.replace_admin_token(tenant.id, [7; 32]).await.unwrap();
            store.insert_runtime(row.clone()).await.unwrap();
            store
                .set_status(row.id, "running", "2026-01-02T00:00:00Z")
                .await
                .unwrap();
        }
        let snapshot = Store::open(&path).unwrap().snapshot().await.unwrap();
        assert_eq!(snapshot.tenants, std::slice::from_ref(&tenant));
        assert_eq!(
            snapshot.tokens,
            [TokenRow {
                hash: [7; 32],
                tenant: tenant.id
            }]
        );
        let expected = RuntimeRow {
            status: "running".into(),
            updated_at: "2026-01-02T00:00:00Z".into(),
            ..row
        };
        assert_eq!(snapshot.runtimes, [expected]);
    }

    #[tokio::test]
    async fn names_are_unique_per_tenant_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("t.db")).unwrap();
        let tenants = [Uuid::now_v7(), Uuid::now_v7()];
        for (id, name) in tenants.into_iter().zip(["a", "b"]) {
            store
                .insert_tenant(TenantRow {
                    id,
                    name: name.into(),
                })
                .await
                .unwrap();
        }
        store
            .insert_runtime(runtime(tenants[0], "x"))
            .await
            .unwrap();
        store
            .insert_runtime(runtime(tenants[1], "x"))
            .await
            .unwrap();
        let again = store.insert_runtime(runtime(tenants[0], "x")).await;
        assert!(matches!(again, Err(StoreError::Taken)), "{again:?}");
    }

    #[tokio::test]
    async fn a_runtime_of_no_tenant_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("t.db")).unwrap();
        let orphan = store.insert_runtime(runtime(Uuid::now_v7(), "x")).await;
        assert!(matches!(orphan, Err(StoreError::Sql { .. })), "{orphan:?}");
    }

    #[tokio::test]
    async fn a_new_admin_token_replaces_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("t.db")).unwrap();
        let tenant = Uuid::now_v7();
        store
            .insert_tenant(TenantRow {
                id: tenant,
                name: "default".into(),
            })
            .await
            .unwrap();
        store.replace_admin_token(tenant, [1; 32]).await.unwrap();
        store.replace_admin_token(tenant, [2; 32]).await.unwrap();
        let tokens = store.snapshot().await.unwrap().tokens;
        assert_eq!(
            tokens,
            [TokenRow {
                hash: [2; 32],
                tenant
            }]
        );
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .pragma_update(None, "user_version", 9_999)
            .unwrap();
        let message = Store::open(&path).unwrap_err().to_string();
        assert!(message.contains("schema version 9999"), "{message}");
    }
}
