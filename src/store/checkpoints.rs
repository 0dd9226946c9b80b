//! Checkpoints, row by row.

use super::rows::{all, uuid};
use super::{Store, StoreError};
use rusqlite::{Connection, params};
use uuid::Uuid;

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRow {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: Uuid,
    /// The runtime that it was made of.
    pub runtime: Uuid,
    /// Its name.
    pub name: String,
    /// How far it is, one of the API's words.
    pub state: String,
    /// The runtime's settings at that time, as JSON.
    pub settings: String,
    /// What it takes on disk, in bytes, once it is ready.
    pub disk_bytes: Option<u64>,
    /// When it was asked for, RFC 3339.
    pub created_at: String,
}

/// Every checkpoint.
pub(super) fn read_all(connection: &Connection) -> rusqlite::Result<Vec<CheckpointRow>> {
    let sql = "SELECT id, tenant_id, runtime_id, name, state, settings, disk_bytes, created_at FROM checkpoints";
    all(connection, sql, |row| {
        Ok(CheckpointRow {
            id: uuid(row, 0)?,
            tenant: uuid(row, 1)?,
            runtime: uuid(row, 2)?,
            name: row.get(3)?,
            state: row.get(4)?,
            settings: row.get(5)?,
            disk_bytes: row.get(6)?,
            created_at: row.get(7)?,
        })
    })
}

impl Store {
    /// Adds a checkpoint.
    pub async fn insert_checkpoint(&self, checkpoint: CheckpointRow) -> Result<(), StoreError> {
        let bytes = checkpoint.settings.len() as u64;
        self.add("adding a checkpoint", bytes, move |connection| {
            let sql = "INSERT INTO checkpoints
                       (id, tenant_id, runtime_id, name, state, settings, disk_bytes, created_at)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
            let row = checkpoint;
            let (id, tenant) = (row.id.to_string(), row.tenant.to_string());
            let runtime = row.runtime.to_string();
            let CheckpointRow {
                name,
                state,
                settings,
                disk_bytes,
                created_at,
                ..
            } = row;
            connection
                .execute(
                    sql,
                    params![
                        id, tenant, runtime, name, state, settings, disk_bytes, created_at
                    ],
                )
                .map(drop)
        })
        .await
    }

    /// Sets how far a checkpoint is, and what it takes on disk.
    pub async fn set_checkpoint(
        &self,
        id: Uuid,
        state: &'static str,
        disk_bytes: Option<u64>,
    ) -> Result<(), StoreError> {
        self.call("changing a checkpoint's state", move |connection| {
            let sql = "UPDATE checkpoints SET state = ?2, disk_bytes = ?3 WHERE id = ?1";
            connection
                .execute(sql, params![id.to_string(), state, disk_bytes])
                .map(drop)
        })
        .await
    }

    /// Removes a checkpoint; one that is gone already is no error.
    pub async fn delete_checkpoint(&self, id: Uuid) -> Result<(), StoreError> {
        self.call("removing a checkpoint", move |connection| {
            connection
                .execute("DELETE FROM checkpoints WHERE id = ?1", [id.to_string()])
                .map(drop)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::TenantRow;
    use super::*;

    #[tokio::test]
    async fn a_checkpoint_is_there_after_reopening_and_gone_after_deleting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let tenant = Uuid::now_v7();
        let row = CheckpointRow {
            id: Uuid::now_v7(),
            tenant,
            runtime: Uuid::now_v7(),
            name: "a".into(),
            state: "creating".into(),
            settings: "{}".into(),
            disk_bytes: None,
            created_at: "2026-01-01T00:00:00Z".into(),
        };
        {
            let store = Store::open(&path).unwrap();
            let name = "default".into();
            store
                .insert_tenant(TenantRow { id: tenant, name })
                .await
                .unwrap();
            store.insert_checkpoint(row.clone()).await.unwrap();
            store
                .set_checkpoint(row.id, "ready", Some(1 << 40))
                .await
                .unwrap();
        }
        let store = Store::open(&path).unwrap();
        let expected = CheckpointRow {
            state: "ready".into(),
            disk_bytes: Some(1 << 40),
            ..row.clone()
        };
        assert_eq!(store.snapshot().await.unwrap().checkpoints, [expected]);
        store.delete_checkpoint(row.id).await.unwrap();
        assert!(store.snapshot().await.unwrap().checkpoints.is_empty());
    }
}
