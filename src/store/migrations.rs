//! The schema, as numbered steps that only go forward. A released step is never edited; a change is a new step.

use super::StoreError;
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

/// Step N brings the schema from version N to N + 1; SQLite's `user_version` holds the version.
const STEPS: &[&str] = &[
    "
    CREATE TABLE tenants (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ'))
    ) STRICT;

    CREATE TABLE tokens (
        hash BLOB PRIMARY KEY CHECK (length(hash) = 32),
        tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        kind TEXT NOT NULL CHECK (kind IN ('admin')),
        created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ'))
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE runtimes (
        id TEXT PRIMARY KEY,
        tenant_id TEXT NOT NULL REFERENCES tenants (id),
        name TEXT NOT NULL,
        status TEXT NOT NULL,
        settings TEXT NOT NULL CHECK (json_valid(settings)),
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        UNIQUE (tenant_id, name)
    ) STRICT;
",
    "
    -- Ids are UUIDv7: their order is that of the starts, and the start's time is read from them.
    CREATE TABLE execs (
        id BLOB PRIMARY KEY CHECK (length(id) = 16),
        tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        -- Not a reference: records outlive their runtimes.
        runtime_id TEXT NOT NULL,
        runtime_name TEXT NOT NULL,
        command TEXT NOT NULL,
        detached INTEGER NOT NULL CHECK (detached IN (0, 1)),
        outcome TEXT NOT NULL,
        -- Milliseconds since 1970.
        ended_at INTEGER,
        report TEXT NOT NULL CHECK (json_valid(report)),
        -- Bytes of output that are kept, in files or in the last two columns.
        kept INTEGER NOT NULL CHECK (kept >= 0),
        in_files INTEGER NOT NULL CHECK (in_files IN (0, 1)),
        stdout BLOB,
        stderr BLOB
    ) STRICT;
    CREATE INDEX execs_of_tenant ON execs (tenant_id, id);
    CREATE INDEX execs_running ON execs (id) WHERE outcome = 'running';
    CREATE INDEX execs_kept ON execs (id, kept) WHERE kept > 0;

    CREATE TABLE idempotency_keys (
        tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        -- The operation, and the runtime where it has one.
        scope TEXT NOT NULL,
        key TEXT NOT NULL,
        request BLOB NOT NULL CHECK (length(request) = 32),
        -- The exec or runtime that the request made.
        subject BLOB NOT NULL CHECK (length(subject) = 16),
        -- The answer's body, where the subject's own row does not say it.
        answer TEXT,
        -- Milliseconds since 1970.
        created_at INTEGER NOT NULL,
        PRIMARY KEY (tenant_id, scope, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX idempotency_keys_by_subject ON idempotency_keys (subject);
    CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
",
];

/// Applies the steps that are missing, each in a transaction of its own.
pub(super) fn apply(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|source| StoreError::Open {
            path: path.to_owned(),
            source,
        })?;
    let known = STEPS.len() as u32;
    if found > known {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    for (version, step) in (1..).zip(STEPS).skip(found as usize) {
        migrate(connection, version, step)
            .map_err(|source| StoreError::Migrate { version, source })?;
    }
    Ok(())
}

fn migrate(connection: &mut Connection, version: u32, step: &str) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(step)?;
    transaction.pragma_update(None, "user_version", version)?;
    transaction.commit()
}

/// The first steps alone, as an older version would have done.
#[cfg(test)]
pub(super) fn apply_first(connection: &mut Connection, steps: usize) -> rusqlite::Result<()> {
    (1..)
        .zip(&STEPS[..steps])
        .try_for_each(|(version, step)| migrate(connection, version, step))
}
