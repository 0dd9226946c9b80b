//! Remembers execs. A record is put into memory at once and written with all others of the next moment in one
//! transaction, so that no request waits for the disk; those that promise durability wait for that write. Reading writes
//! first what is not written yet, so that nobody misses what was answered before.

use super::ages::Ages;
use super::outputs::{Outputs, Stream};
use super::record::Record;
use crate::metrics::METRICS;
use crate::resources::MIB;
use crate::store::{
    ExecBatch, ExecChange, ExecFilter, ExecPage, ExecRow, ExecWrite, KeyRow, Store, StoreError,
};
use crate::tenant::TenantId;
use bytes::Bytes;
use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use uuid::Uuid;

/// How long records are collected before they are written.
const COLLECT: Duration = Duration::from_millis(100);

/// Pause before records that could not be written are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Output of at most so many bytes is kept in its record's row: a file of its own would cost more.
const INLINE: u64 = 16 * 1024;

/// Most bytes of output that wait to be written, and as many again while they are; what comes beyond is not kept.
const MAX_WAITING_OUTPUT: u64 = 64 * MIB;

/// Most records that wait to be written while the disk takes none; what comes beyond is lost, and the log says so.
const MAX_WAITING: usize = 100_000;

/// Records that are written at a time when the service ends on a full disk.
const AT_LAST: usize = 200;

/// See the module; cheap to clone.
#[derive(Debug, Clone)]
pub struct Records(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    outputs: Outputs,
    waiting: Mutex<Waiting>,
    wake: Notify,
    writing: tokio::sync::Mutex<()>,
    ages: Ages,
}

/// What is not written yet.
#[derive(Debug, Default)]
struct Waiting {
    changes: HashMap<Uuid, ExecChange>,
    keys: Vec<KeyRow>,
    release: Vec<Uuid>,
    durable: bool,
    output_bytes: u64,
}

/// A kept output.
#[derive(Debug)]
pub enum Kept {
    /// All of it.
    Memory(Bytes),
    /// So many bytes from the start of a file.
    File(Arc<File>, u64),
}

impl Records {
    /// Ends the records of the server before, and starts the task that writes new ones.
    /// Nothing is kept by its age for longer than `longest`.
    pub async fn open(
        store: Store,
        outputs: Outputs,
        longest: Duration,
    ) -> Result<Self, StoreError> {
        for id in store.lose_running_execs().await? {
            METRICS.exec(super::record::UNKNOWN, 1);
            let bytes = outputs.length(id);
            if bytes > 0 {
                store.set_kept_in_files(id, bytes).await?;
            }
        }
        outputs.count().await?;
        let records = Self(Arc::new(Inner {
            store,
            outputs,
            waiting: Mutex::default(),
            wake: Notify::new(),
            writing: tokio::sync::Mutex::default(),
            ages: Ages::new(longest.max(super::KEY_LIFE)),
        }));
        tokio::spawn(records.clone().write_for_ever());
        Ok(records)
    }

    /// Where output is kept.
    pub fn outputs(&self) -> &Outputs {
        &self.0.outputs
    }

    /// The time to hold the age of something stored against, in milliseconds since 1970: the clock's, unless that has
    /// jumped ahead.
    pub fn now_for_ages(&self) -> i64 {
        self.0.ages.now()
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }

    /// Notes a record, and with it the key that stands for a new one. Its output is kept where it can be; its row says for
    /// now that all of it is. What is `durable` survives a power cut once it is written, and is always written.
    pub(super) fn put(&self, mut write: ExecWrite, key: Option<KeyRow>, durable: bool) {
        let id = write.row.id;
        let bytes = output_bytes(&write);
        let mut waiting = self.waiting();
        let known = waiting.changes.contains_key(&id);
        if waiting.changes.len() >= MAX_WAITING && !known && !durable {
            tracing::error!(exec_id = %id, "the record of an exec is lost: nothing could be written for long");
            return;
        }
        if waiting.output_bytes + bytes > MAX_WAITING_OUTPUT && bytes > 0 && !durable {
            tracing::warn!(exec_id = %id, "output comes faster than it can be written; it is not kept");
            drop_output(&mut write);
        } else {
            waiting.output_bytes += bytes;
        }
        let write = ExecChange::Put(Box::new(write));
        waiting.changes.insert(id, write);
        waiting.keys.extend(key);
        waiting.durable |= durable;
        drop(waiting);
        self.0.wake.notify_one();
    }

    /// Removes the key of an exec that nothing was run for.
    pub fn release_key(&self, id: Uuid) {
        let mut waiting = self.waiting();
        waiting.keys.retain(|key| key.subject != id);
        waiting.release.push(id);
        drop(waiting);
        self.0.wake.notify_one();
    }

    /// Removes the record of an exec that never ran.
    pub fn forget(&self, id: Uuid) {
        self.waiting().changes.insert(id, ExecChange::Forget);
        self.0.wake.notify_one();
    }

    /// Writes all that was noted before.
    pub async fn flush(&self) -> Result<(), StoreError> {
        // In a task of its own: a caller that goes away must not take others' records along.
        let records = self.clone();
        let written = tokio::spawn(async move { records.write().await });
        written.await.unwrap_or(Err(StoreError::Gone))
    }

    /// Writes at the end of the service what was noted. On a full disk the room that the store keeps for this is used, for
    /// the records first: their output is given up, and where they are more than there is room for, the newest. The log
    /// says how many.
    pub async fn flush_at_last(&self) -> Result<(), StoreError> {
        match self.flush().await {
            Err(error) if error.is_full() => {}
            other => return other,
        }
        let _turn = self.0.writing.lock().await;
        let mut left = std::mem::take(&mut *self.waiting());
        let mut changes: Vec<_> = left.changes.drain().collect();
        changes.sort_by_key(|(id, _)| *id);
        tracing::warn!(
            records = changes.len(),
            "the disk is full: the newest records are stored without output"
        );
        let mut lost = changes.len();
        let mut first = ExecBatch {
            keys: left.keys,
            release: left.release,
            durable: true,
            ..ExecBatch::default()
        };
        while !changes.is_empty() || !first.is_empty() {
            let rest = changes.split_off(changes.len().min(AT_LAST));
            let mut batch = std::mem::take(&mut first);
            batch.changes = std::mem::replace(&mut changes, rest);
            for (_, change) in &mut batch.changes {
                if let ExecChange::Put(write) = change
                    && output_bytes(write) > 0
                {
                    drop_output(write);
                }
            }
            let count = batch.changes.len();
            let stored = self.0.store.change_execs_at_last(Arc::new(batch)).await;
            stored.inspect_err(|_| tracing::error!(records = lost, "exec records are lost"))?;
            lost -= count;
        }
        Ok(())
    }

    /// A tenant's record.
    pub async fn get(&self, tenant: TenantId, id: Uuid) -> Result<Option<Record>, StoreError> {
        let flushed = self.flush().await;
        if let Err(error) = &flushed
            && let Some(row) = self.unwritten(tenant, id)
        {
            tracing::debug!(%error, "an unwritten record is read from memory");
            return Ok(Some(row.into()));
        }
        let row = self.0.store.exec(tenant.0, id).await?;
        Ok(row.map(Record::from))
    }

    /// A part of a tenant's records, newest first; see [`Store::execs`].
    pub async fn list(
        &self,
        tenant: TenantId,
        filter: ExecFilter,
        after: Option<Uuid>,
        offset: u64,
        limit: u64,
    ) -> Result<(Vec<Record>, ExecPage), StoreError> {
        if let Err(error) = self.flush().await {
            tracing::warn!(%error, "the newest records are missing from a list");
        }
        let mut page = self
            .0
            .store
            .execs(tenant.0, filter, after, offset, limit)
            .await?;
        let records = page.rows.drain(..).map(Record::from).collect();
        Ok((records, page))
    }

    /// Those of the list that follow `after`; see [`Store::execs_after`].
    pub async fn list_after(
        &self,
        tenant: TenantId,
        filter: ExecFilter,
        after: Uuid,
        limit: u64,
    ) -> Result<Vec<Record>, StoreError> {
        let rows = self.0.store.execs_after(tenant.0, filter, after, limit);
        Ok(rows.await?.into_iter().map(Record::from).collect())
    }

    /// An output as far as it is kept; None when it is not, or no more.
    pub async fn output(
        &self,
        record: &Record,
        stream: Stream,
    ) -> Result<Option<Kept>, OutputError> {
        if !record.output_kept() {
            return Ok(None);
        }
        let (id, report) = (record.id, &record.report);
        if !record.in_files {
            let stderr = stream == Stream::Stderr;
            let bytes = self.0.store.exec_output(id, stderr).await?;
            return Ok(Some(Kept::Memory(bytes.into())));
        }
        let kept = match stream {
            Stream::Stdout => report.stdout_kept,
            Stream::Stderr => report.stderr_kept,
        };
        let outputs = self.0.outputs.clone();
        let opened = tokio::task::spawn_blocking(move || outputs.file(id, stream));
        let opened = opened.await.map_err(std::io::Error::other).flatten()?;
        Ok(match opened {
            // Of a command whose end was not seen only the file tells how much there is.
            Some((file, length)) if record.ended_at.is_none() => {
                Some(Kept::File(file.into(), length))
            }
            Some((file, length)) => Some(Kept::File(file.into(), length.min(kept))),
            None => (kept == 0).then(|| Kept::Memory(Bytes::new())),
        })
    }

    async fn write_for_ever(self) {
        loop {
            self.0.wake.notified().await;
            tokio::time::sleep(COLLECT).await;
            if let Err(error) = self.flush().await {
                tracing::error!(error = crate::log::chain(&error), "writing exec records");
                tokio::time::sleep(RETRY).await;
                self.0.wake.notify_one();
            }
        }
    }

    /// Writes what waits; what can't be written waits on.
    async fn write(&self) -> Result<(), StoreError> {
        let _turn = self.0.writing.lock().await;
        let taken = std::mem::take(&mut *self.waiting());
        if taken.is_empty() {
            return Ok(());
        }
        let mut batch = ExecBatch {
            changes: taken.changes.into_iter().collect(),
            keys: taken.keys,
            release: taken.release,
            durable: taken.durable,
        };
        for (_, change) in &mut batch.changes {
            if let ExecChange::Put(write) = change {
                self.settle_output(write).await;
            }
        }
        let batch = Arc::new(batch);
        let written = self.0.store.change_execs(batch.clone()).await;
        if written.is_err() {
            self.put_back(Arc::unwrap_or_clone(batch));
        }
        written
    }

    /// Finds room for the output of a record, in its row or in files.
    async fn settle_output(&self, write: &mut ExecWrite) {
        let (id, bytes) = (write.row.id, output_bytes(write));
        if bytes == 0 {
            return;
        }
        let outputs = &self.0.outputs;
        if !outputs.reserve(bytes).await {
            tracing::warn!(exec_id = %id, "there is no room for a command's output; it is not kept");
            return drop_output(write);
        }
        if bytes <= INLINE {
            return;
        }
        let output = std::mem::take(&mut write.output);
        let to = outputs.clone();
        let written = tokio::task::spawn_blocking(move || to.write(id, &output));
        match written.await.map_err(std::io::Error::other).flatten() {
            Ok(()) => write.row.in_files = true,
            Err(error) => {
                tracing::error!(exec_id = %id, %error, "keeping a command's output");
                outputs.release(bytes);
                drop_output(write);
            }
        }
    }

    fn put_back(&self, batch: ExecBatch) {
        let mut waiting = self.waiting();
        for (id, change) in batch.changes {
            // Newer news of the same exec stands.
            let bytes = match &change {
                ExecChange::Put(write) => output_bytes(write),
                ExecChange::Forget => 0,
            };
            self.0.outputs.release(bytes);
            if let std::collections::hash_map::Entry::Vacant(place) = waiting.changes.entry(id) {
                place.insert(change);
                waiting.output_bytes += bytes;
            }
        }
        let released = std::mem::take(&mut waiting.release);
        let keys = batch.keys.into_iter();
        let kept = keys.filter(|key| !released.contains(&key.subject));
        waiting.keys.extend(kept);
        waiting.release = released;
        waiting.release.extend(batch.release);
        waiting.durable |= batch.durable;
    }

    fn unwritten(&self, tenant: TenantId, id: Uuid) -> Option<ExecRow> {
        match self.waiting().changes.get(&id)? {
            ExecChange::Put(write) if write.row.tenant == tenant.0 => Some(write.row.clone()),
            _ => None,
        }
    }

    // What holds the lock can't panic between two changes.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.keys.is_empty() && self.release.is_empty()
    }
}

/// Why a kept output can't be read.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Its row.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its file.
    #[error("reading a kept output")]
    File(#[from] std::io::Error),
}

/// Bytes of output that wait beside a record.
fn output_bytes(write: &ExecWrite) -> u64 {
    write.output.iter().map(|bytes| bytes.len() as u64).sum()
}

fn drop_output(write: &mut ExecWrite) {
    write.output = [Bytes::new(), Bytes::new()];
    write.row.kept = 0;
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
