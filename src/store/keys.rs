//! Idempotency keys: which request was carried out under which name.

use super::{Store, StoreError};
use rusqlite::{OptionalExtension, Transaction, params};
use uuid::Uuid;

/// A request that is carried out once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// Whose it is.
    pub tenant: Uuid,
    /// The operation, and the runtime where it has one.
    pub scope: String,
    /// The client's name for the request.
    pub key: String,
    /// SHA-256 of the request.
    pub request: [u8; 32],
    /// The exec or runtime that the request makes.
    pub subject: Uuid,
    /// The answer's body, where the subject's own row does not say it; none while there is no answer yet.
    pub answer: Option<String>,
    /// When it came, in milliseconds since 1970.
    pub created_at: i64,
}

impl Store {
    /// The request that came under a name after `since` (milliseconds since 1970).
    pub async fn key(
        &self,
        tenant: Uuid,
        scope: String,
        key: String,
        since: i64,
    ) -> Result<Option<KeyRow>, StoreError> {
        self.read("reading an idempotency key", move |connection| {
            let sql = "SELECT request, subject, answer, created_at FROM idempotency_keys
                       WHERE tenant_id = ?1 AND scope = ?2 AND key = ?3 AND created_at > ?4";
            connection
                .prepare_cached(sql)?
                .query_row(params![tenant.to_string(), scope, key, since], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })
                .optional()
                .map(|found| {
                    found.map(|(request, subject, answer, created_at)| KeyRow {
                        tenant,
                        scope,
                        key,
                        request,
                        subject,
                        answer,
                        created_at,
                    })
                })
        })
        .await
    }

    /// Notes a request, instead of an expired one of the same name.
    pub async fn insert_key(&self, key: KeyRow) -> Result<(), StoreError> {
        self.add("storing an idempotency key", 0, move |connection| {
            let transaction = connection.transaction()?;
            insert(&transaction, &key)?;
            transaction.commit()
        })
        .await
    }

    /// Notes the answer of the request that made `subject`.
    pub async fn answer_key(&self, subject: Uuid, answer: String) -> Result<(), StoreError> {
        self.call("storing an answer", move |connection| {
            let sql = "UPDATE idempotency_keys SET answer = ?2 WHERE subject = ?1";
            connection.execute(sql, params![subject, answer]).map(drop)
        })
        .await
    }

    /// Forgets the request that was to make `subject`: it made nothing.
    pub async fn release_key(&self, subject: Uuid) -> Result<(), StoreError> {
        self.call("removing an idempotency key", move |connection| {
            let transaction = connection.transaction()?;
            release(&transaction, subject)?;
            transaction.commit()
        })
        .await
    }

    /// Forgets requests that came before a time in milliseconds since 1970.
    pub async fn remove_keys_before(&self, time: i64) -> Result<(), StoreError> {
        self.call("removing old idempotency keys", move |connection| {
            let sql = "DELETE FROM idempotency_keys WHERE created_at <= ?1";
            connection.execute(sql, [time]).map(drop)
        })
        .await
    }
}

pub(super) fn insert(transaction: &Transaction<'_>, key: &KeyRow) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO idempotency_keys
                   (tenant_id, scope, key, request, subject, answer, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let KeyRow {
        tenant,
        scope,
        key,
        request,
        subject,
        answer,
        created_at,
    } = key;
    transaction.prepare_cached(sql)?.execute(params![
        tenant.to_string(),
        scope,
        key,
        request,
        subject,
        answer,
        created_at
    ])?;
    Ok(())
}

pub(super) fn release(transaction: &Transaction<'_>, subject: Uuid) -> rusqlite::Result<()> {
    let sql = "DELETE FROM idempotency_keys WHERE subject = ?1";
    transaction
        .prepare_cached(sql)?
        .execute([subject])
        .map(drop)
}
