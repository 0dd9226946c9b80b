//! Tenants and their tokens. A token is looked up by its SHA-256 only, in memory: the time that takes says nothing about
//! how much of a guess was right, and a stolen database holds no token.

use crate::store::{Store, StoreError, TenantRow, TokenRow};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::RwLock;
use uuid::Uuid;

/// Name of the tenant that exists from the first start.
pub const DEFAULT_TENANT: &str = "default";

/// Fewest characters of a token.
pub const MIN_TOKEN: usize = 32;

/// A tenant's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(pub Uuid);

/// Why tenants could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// The token would be too easy to guess, or could not be sent in a header.
    #[error("an admin token must be {MIN_TOKEN} or more visible ASCII characters")]
    WeakToken,
    /// The state could not be written.
    #[error("storing the tenant")]
    Store(#[from] StoreError),
}

/// Every tenant and token, in memory.
#[derive(Debug)]
pub struct Tenants {
    store: Store,
    default: TenantId,
    tokens: RwLock<HashMap<[u8; 32], TenantId>>,
}

impl Tenants {
    /// Takes over what the store holds, and adds the default tenant where it is missing.
    pub async fn open(
        store: Store,
        tenants: &[TenantRow],
        tokens: &[TokenRow],
    ) -> Result<Self, TenantError> {
        let default = match tenants.iter().find(|tenant| tenant.name == DEFAULT_TENANT) {
            Some(tenant) => tenant.id,
            None => {
                let id = Uuid::now_v7();
                store
                    .insert_tenant(TenantRow {
                        id,
                        name: DEFAULT_TENANT.into(),
                    })
                    .await?;
                id
            }
        };
        let tokens = tokens
            .iter()
            .map(|token| (token.hash, TenantId(token.tenant)))
            .collect();
        Ok(Self {
            store,
            default: TenantId(default),
            tokens: RwLock::new(tokens),
        })
    }

    /// The tenant that exists from the first start.
    pub fn default_tenant(&self) -> TenantId {
        self.default
    }

    /// Whether any token would be accepted.
    pub fn has_tokens(&self) -> bool {
        !read(&self.tokens).is_empty()
    }

    /// Makes `token` the default tenant's one admin token; only its hash is kept.
    pub async fn ensure_admin(&self, token: &str) -> Result<(), TenantError> {
        if !acceptable(token) {
            return Err(TenantError::WeakToken);
        }
        let hash = hash(token);
        if self.by_hash(&hash) == Some(self.default) {
            return Ok(());
        }
        self.store.replace_admin_token(self.default.0, hash).await?;
        let mut tokens = self
            .tokens
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        tokens.retain(|_, tenant| *tenant != self.default);
        tokens.insert(hash, self.default);
        Ok(())
    }

    /// Whose token this is.
    pub fn authenticate(&self, token: &str) -> Option<TenantId> {
        self.by_hash(&hash(token))
    }

    fn by_hash(&self, hash: &[u8; 32]) -> Option<TenantId> {
        read(&self.tokens).get(hash).copied()
    }
}

/// Whether a token may be an admin token: [`MIN_TOKEN`] or more visible ASCII characters.
pub fn acceptable(token: &str) -> bool {
    token.len() >= MIN_TOKEN && token.bytes().all(|byte| byte.is_ascii_graphic())
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

// Nothing that holds the lock can panic half-way, so a poisoned map is a whole one.
fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(path: &std::path::Path) -> Tenants {
        let store = Store::open(path).unwrap();
        let snapshot = store.snapshot().await.unwrap();
        Tenants::open(store, &snapshot.tenants, &snapshot.tokens)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_token_works_after_a_restart_until_it_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let (old, new) = ("a".repeat(32), "b".repeat(40));
        let tenant = {
            let tenants = open(&path).await;
            assert!(!tenants.has_tokens());
            tenants.ensure_admin(&old).await.unwrap();
            tenants.default_tenant()
        };
        let tenants = open(&path).await;
        assert_eq!(tenants.authenticate(&old), Some(tenant));
        tenants.ensure_admin(&new).await.unwrap();
        assert_eq!(tenants.authenticate(&old), None);
        assert_eq!(tenants.authenticate(&new), Some(tenant));
        assert_eq!(open(&path).await.authenticate(&old), None);
    }

    #[tokio::test]
    async fn weak_tokens_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tenants = open(&dir.path().join("t.db")).await;
        for token in [
            "",
            &"a".repeat(31),
            &format!("{} b", "a".repeat(40)),
            &"ä".repeat(40),
        ] {
            assert!(
                matches!(
                    tenants.ensure_admin(token).await,
                    Err(TenantError::WeakToken)
                ),
                "{token}"
            );
        }
    }
}
