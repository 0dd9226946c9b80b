//! What is stored, row by row, and the statements that store it.

use super::checkpoints::{self, CheckpointRow};
use super::{Store, StoreError};
use rusqlite::{Connection, Row, params};
use uuid::Uuid;

/// A tenant: owner of runtimes and tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    /// Its id.
    pub id: Uuid,
    /// Its unique name.
    pub name: String,
}

/// A token; the token itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// Whose it is.
    pub tenant: Uuid,
}

/// A runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeRow {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: Uuid,
    /// Its name, unique in the tenant.
    pub name: String,
    /// Its status, one of the API's words.
    pub status: String,
    /// All that the create request settled, as JSON.
    pub settings: String,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// When it last changed, RFC 3339.
    pub updated_at: String,
}

/// All that is kept in memory while the service runs.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Every tenant.
    pub tenants: Vec<TenantRow>,
    /// Every token.
    pub tokens: Vec<TokenRow>,
    /// Every runtime.
    pub runtimes: Vec<RuntimeRow>,
    /// Every checkpoint.
    pub checkpoints: Vec<CheckpointRow>,
}

impl Store {
    /// Reads everything.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.call("reading the state", |connection| {
            Ok(Snapshot {
                tenants: all(connection, "SELECT id, name FROM tenants", |row| {
                    Ok(TenantRow { id: uuid(row, 0)?, name: row.get(1)? })
                })?,
                tokens: all(connection, "SELECT hash, tenant_id FROM tokens", |row| {
                    Ok(TokenRow { hash: row.get(0)?, tenant: uuid(row, 1)? })
                })?,
                runtimes: all(
                    connection,
                    "SELECT id, tenant_id, name, status, settings, created_at, updated_at FROM runtimes",
                    |row| {
                        Ok(RuntimeRow {
                            id: uuid(row, 0)?,
                            tenant: uuid(row, 1)?,
                            name: row.get(2)?,
                            status: row.get(3)?,
                            settings: row.get(4)?,
                            created_at: row.get(5)?,
                            updated_at: row.get(6)?,
                        })
                    },
                )?,
                checkpoints: checkpoints::read_all(connection)?,
            })
        })
        .await
    }

    /// Adds a tenant. [`StoreError::Taken`] when the name exists.
    pub async fn insert_tenant(&self, tenant: TenantRow) -> Result<(), StoreError> {
        self.call("adding a tenant", move |connection| {
            let sql = "INSERT INTO tenants (id, name) VALUES (?1, ?2)";
            connection
                .execute(sql, params![tenant.id.to_string(), tenant.name])
                .map(drop)
        })
        .await
    }

    /// Makes `hash` the tenant's one admin token; the one before stops working.
    pub async fn replace_admin_token(
        &self,
        tenant: Uuid,
        hash: [u8; 32],
    ) -> Result<(), StoreError> {
        self.call("storing the admin token", move |connection| {
            let transaction = connection.transaction()?;
            let tenant = tenant.to_string();
            transaction.execute(
                "DELETE FROM tokens WHERE kind = 'admin' AND tenant_id = ?1",
                [&tenant],
            )?;
            transaction.execute(
                "INSERT INTO tokens (hash, tenant_id, kind) VALUES (?1, ?2, 'admin')",
                params![hash, tenant],
            )?;
            transaction.commit()
        })
        .await
    }

    /// Adds a runtime. [`StoreError::Taken`] when the tenant has one of that name.
    pub async fn insert_runtime(&self, runtime: RuntimeRow) -> Result<(), StoreError> {
        let bytes = runtime.settings.len() as u64;
        self.add("adding a runtime", bytes, move |connection| {
            let sql = "INSERT INTO runtimes (id, tenant_id, name, status, settings, created_at, updated_at)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let RuntimeRow { id, tenant, name, status, settings, created_at, updated_at } = runtime;
            let (id, tenant) = (id.to_string(), tenant.to_string());
            connection
                .execute(sql, params![id, tenant, name, status, settings, created_at, updated_at])
                .map(drop)
        })
        .await
    }

    /// Sets a runtime's status and the time of its last change (RFC 3339).
    pub async fn set_status(
        &self,
        id: Uuid,
        status: &'static str,
        now: &str,
    ) -> Result<(), StoreError> {
        let now = now.to_owned();
        self.call("changing a runtime's status", move |connection| {
            let sql = "UPDATE runtimes SET status = ?2, updated_at = ?3 WHERE id = ?1";
            connection
                .execute(sql, params![id.to_string(), status, now])
                .map(drop)
        })
        .await
    }

    /// Sets what of a runtime may be changed: name, settings and the time of its last change. [`StoreError::Taken`] when
    /// the tenant has another one of that name.
    pub async fn update_runtime(&self, runtime: RuntimeRow) -> Result<(), StoreError> {
        let bytes = runtime.settings.len() as u64;
        self.add("changing a runtime", bytes, move |connection| {
            let sql = "UPDATE runtimes SET name = ?2, settings = ?3, updated_at = ?4 WHERE id = ?1";
            let RuntimeRow {
                id,
                name,
                settings,
                updated_at,
                ..
            } = runtime;
            connection
                .execute(sql, params![id.to_string(), name, settings, updated_at])
                .map(drop)
        })
        .await
    }

    /// Removes a runtime; one that is gone already is no error.
    pub async fn delete_runtime(&self, id: Uuid) -> Result<(), StoreError> {
        self.call("removing a runtime", move |connection| {
            connection
                .execute("DELETE FROM runtimes WHERE id = ?1", [id.to_string()])
                .map(drop)
        })
        .await
    }
}

pub(super) fn all<T>(
    connection: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare(sql)?.query_map([], read)?.collect()
}

pub(super) fn uuid(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    let text: String = row.get(column)?;
    Uuid::parse_str(&text).map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e))
    })
}
