//! Writing exec records: many in one transaction, and what retention takes away again.

use super::keys::{self, KeyRow};
use super::{Store, StoreError};
use bytes::Bytes;
use rusqlite::{Connection, Transaction, params};
use std::sync::Arc;
use uuid::Uuid;

/// An exec's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRow {
    /// Its id, a UUIDv7 made at its start.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: Uuid,
    /// The runtime that it ran in, which may be gone.
    pub runtime: Uuid,
    /// The runtime's name at that time.
    pub runtime_name: String,
    /// What was run.
    pub command: String,
    /// Nobody waited for its end.
    pub detached: bool,
    /// `running`, or how it ended, one of the API's words.
    pub outcome: String,
    /// When it ended, in milliseconds since 1970.
    pub ended_at: Option<i64>,
    /// What is known of its end, as JSON.
    pub report: String,
    /// Bytes of its output that are kept.
    pub kept: u64,
    /// They are in files, not in the row.
    pub in_files: bool,
}

/// A record with the output that its row keeps.
#[derive(Debug, Clone)]
pub struct ExecWrite {
    /// The record.
    pub row: ExecRow,
    /// stdout and stderr; empty where they are in files or not kept.
    pub output: [Bytes; 2],
}

/// A change to the records.
#[derive(Debug, Clone)]
pub enum ExecChange {
    /// Adds a record, or replaces what may change of it.
    Put(Box<ExecWrite>),
    /// Removes it: nothing was run.
    Forget,
}

/// Changes that are made together.
#[derive(Debug, Default, Clone)]
pub struct ExecBatch {
    /// What becomes of which record.
    pub changes: Vec<(Uuid, ExecChange)>,
    /// Keys that stand for new execs.
    pub keys: Vec<KeyRow>,
    /// Execs whose keys are removed.
    pub release: Vec<Uuid>,
    /// They must survive a power cut. Otherwise that may undo the newest; the end of the process does not.
    pub durable: bool,
}

impl ExecBatch {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.keys.is_empty() && self.release.is_empty()
    }

    /// About how many bytes it adds to the database.
    fn bytes(&self) -> u64 {
        /// Ids, numbers, indexes.
        const ROW: u64 = 512;
        let of = |change: &ExecChange| match change {
            ExecChange::Put(write) => {
                let output: usize = write.output.iter().map(Bytes::len).sum();
                ROW + (output + write.row.command.len() + write.row.report.len()) as u64
            }
            ExecChange::Forget => 0,
        };
        let rows: u64 = self.changes.iter().map(|(_, change)| of(change)).sum();
        rows + ROW * self.keys.len() as u64
    }
}

/// Output that is kept no more; its files are to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evicted {
    /// Whose output it was.
    pub id: Uuid,
    /// How many bytes.
    pub bytes: u64,
    /// Whether there are files.
    pub in_files: bool,
}

/// Rows that retention removes at once, so that writers need not wait long.
const BATCH: u32 = 500;

impl Store {
    /// Makes all changes of a batch in one transaction.
    pub async fn change_execs(&self, batch: Arc<ExecBatch>) -> Result<(), StoreError> {
        match batch.bytes() {
            0 => self.change_execs_at_last(batch).await,
            bytes => {
                let job = move |connection: &mut Connection| store(connection, &batch);
                self.add("storing exec records", bytes, job).await
            }
        }
    }

    /// As [`Store::change_execs`], but also where nothing but the reserve is left: what only removes, and the last of all.
    pub async fn change_execs_at_last(&self, batch: Arc<ExecBatch>) -> Result<(), StoreError> {
        self.call("storing exec records", move |connection| {
            store(connection, &batch)
        })
        .await
    }

    /// Ends the records of a server that is gone: what ran then has an unknown outcome. Their ids.
    pub async fn lose_running_execs(&self) -> Result<Vec<Uuid>, StoreError> {
        self.call("ending the records of the server before", |connection| {
            let sql = "UPDATE execs SET outcome = 'unknown' WHERE outcome = 'running' RETURNING id";
            super::rows::all(connection, sql, |row| row.get(0))
        })
        .await
    }

    /// Notes that so many bytes of an exec's output are in files.
    pub async fn set_kept_in_files(&self, id: Uuid, bytes: u64) -> Result<(), StoreError> {
        self.call("storing what is kept of an output", move |connection| {
            let sql = "UPDATE execs SET kept = ?2, in_files = 1 WHERE id = ?1";
            connection.execute(sql, params![id, bytes]).map(drop)
        })
        .await
    }

    /// Forgets the output of the oldest ended execs until `bytes` are free or no more is kept.
    pub async fn evict_outputs(&self, bytes: u64) -> Result<Vec<Evicted>, StoreError> {
        self.call("removing old output", move |connection| {
            let transaction = connection.transaction()?;
            let oldest = evicted(
                &transaction,
                "SELECT id, kept, in_files FROM execs WHERE kept > 0 AND outcome <> 'running'
                 ORDER BY id LIMIT ?1",
                params![BATCH],
            )?;
            let mut freed = 0;
            let enough = |evicted: &Evicted| {
                let wanted = freed < bytes;
                freed += evicted.bytes;
                wanted
            };
            let chosen: Vec<Evicted> = oldest.into_iter().take_while(enough).collect();
            for evicted in &chosen {
                let sql = "UPDATE execs SET kept = 0, in_files = 0, stdout = NULL, stderr = NULL WHERE id = ?1";
                transaction.prepare_cached(sql)?.execute([evicted.id])?;
            }
            transaction.commit()?;
            Ok(chosen)
        })
        .await
    }

    /// Removes some records of execs that ended before `ended_before` (milliseconds since 1970) and, oldest first, some
    /// beyond the newest `most`. Those that an idempotency key stands for stay. Empty when there was none left.
    pub async fn remove_old_execs(
        &self,
        ended_before: i64,
        most: u64,
    ) -> Result<Vec<Evicted>, StoreError> {
        self.call("removing old exec records", move |connection| {
            let transaction = connection.transaction()?;
            // An exec that ended before that time has started before it: its id is smaller.
            let mut old = evicted(
                &transaction,
                "SELECT id, kept, in_files FROM execs
                 WHERE id < ?1 AND outcome <> 'running' AND coalesce(ended_at, 0) < ?2
                 AND NOT EXISTS (SELECT 1 FROM idempotency_keys WHERE subject = id)
                 ORDER BY id LIMIT ?3",
                params![super::first_id_at(ended_before), ended_before, BATCH],
            )?;
            let count: u64 =
                transaction.query_row("SELECT count(*) FROM execs", [], |row| row.get(0))?;
            let beyond = count.saturating_sub(most).min(u64::from(BATCH));
            if old.is_empty() && beyond > 0 {
                old = evicted(
                    &transaction,
                    "SELECT id, kept, in_files FROM execs WHERE outcome <> 'running'
                     AND NOT EXISTS (SELECT 1 FROM idempotency_keys WHERE subject = id)
                     ORDER BY id LIMIT ?1",
                    params![beyond],
                )?;
            }
            for Evicted { id, .. } in &old {
                let sql = "DELETE FROM execs WHERE id = ?1";
                transaction.prepare_cached(sql)?.execute([id])?;
            }
            transaction.commit()?;
            Ok(old)
        })
        .await
    }
}

fn store(connection: &mut Connection, batch: &ExecBatch) -> rusqlite::Result<()> {
    if !batch.durable {
        connection.pragma_update(None, "synchronous", "NORMAL")?;
    }
    let done = change(connection, batch);
    connection.pragma_update(None, "synchronous", "FULL")?;
    done
}

fn change(connection: &mut Connection, batch: &ExecBatch) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for (id, change) in &batch.changes {
        match change {
            ExecChange::Put(write) => put(&transaction, write)?,
            ExecChange::Forget => {
                let sql = "DELETE FROM execs WHERE id = ?1";
                transaction.prepare_cached(sql)?.execute([id])?;
            }
        }
    }
    for key in &batch.keys {
        keys::insert(&transaction, key)?;
    }
    for subject in &batch.release {
        keys::release(&transaction, *subject)?;
    }
    transaction.commit()
}

fn put(transaction: &Transaction<'_>, write: &ExecWrite) -> rusqlite::Result<()> {
    let sql = "INSERT INTO execs (id, tenant_id, runtime_id, runtime_name, command, detached, outcome, ended_at,
                                  report, kept, in_files, stdout, stderr)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
               ON CONFLICT (id) DO UPDATE SET
                   outcome = ?7, ended_at = ?8, report = ?9, kept = ?10, in_files = ?11, stdout = ?12, stderr = ?13";
    let ExecRow {
        id,
        tenant,
        runtime,
        runtime_name,
        command,
        detached,
        outcome,
        ended_at,
        report,
        kept,
        in_files,
    } = &write.row;
    let [stdout, stderr] = &write.output;
    let blob = |bytes: &Bytes| (!bytes.is_empty()).then(|| bytes.to_vec());
    transaction.prepare_cached(sql)?.execute(params![
        id,
        tenant.to_string(),
        runtime.to_string(),
        runtime_name,
        command,
        detached,
        outcome,
        ended_at,
        report,
        kept,
        in_files,
        blob(stdout),
        blob(stderr),
    ])?;
    Ok(())
}

fn evicted(
    transaction: &Transaction<'_>,
    sql: &str,
    params: &[&dyn rusqlite::ToSql],
) -> rusqlite::Result<Vec<Evicted>> {
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Evicted {
            id: row.get(0)?,
            bytes: row.get(1)?,
            in_files: row.get(2)?,
        })
    };
    transaction
        .prepare_cached(sql)?
        .query_map(params, read)?
        .collect()
}
