//! A checkpoint in memory: a copy of a runtime's disk, and the settings that the runtime had then.

use super::error::RuntimeError;
use super::settings::Settings;
use crate::store::CheckpointRow;
use crate::tenant::TenantId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use uuid::Uuid;

/// The API's words for how far a checkpoint is; there are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each word is documented by the API
pub enum CheckpointState {
    Creating,
    Ready,
    Failed,
}

impl CheckpointState {
    /// The word on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }
}

/// A checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// The runtime it was made of, which may be gone.
    pub runtime: Uuid,
    /// What its creator calls it; need not be unique.
    pub name: String,
    /// What the runtime was settled to be.
    pub settings: Settings,
    /// When it was asked for, RFC 3339.
    pub created_at: String,
    progress: Mutex<Progress>,
    /// Written by whoever makes or removes the copy, read by whoever copies it.
    turn: Arc<RwLock<()>>,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    state: CheckpointState,
    disk_bytes: Option<u64>,
}

impl Checkpoint {
    pub(super) fn new(
        tenant: TenantId,
        runtime: Uuid,
        name: String,
        settings: Settings,
        created_at: String,
    ) -> Self {
        Self {
            id: Uuid::now_v7(),
            tenant,
            runtime,
            name,
            settings,
            created_at,
            progress: Mutex::new(Progress {
                state: CheckpointState::Creating,
                disk_bytes: None,
            }),
            turn: Arc::default(),
        }
    }

    /// The checkpoint of a stored row. One that was never finished has failed.
    pub(super) fn from_row(row: CheckpointRow) -> Result<Self, RuntimeError> {
        let id = row.id;
        let state = match row.state.as_str() {
            "ready" => CheckpointState::Ready,
            _ => CheckpointState::Failed,
        };
        let settings = serde_json::from_str(&row.settings)
            .map_err(|source| RuntimeError::Corrupt { id, source })?;
        Ok(Self {
            id,
            tenant: TenantId(row.tenant),
            runtime: row.runtime,
            name: row.name,
            settings,
            created_at: row.created_at,
            progress: Mutex::new(Progress {
                state,
                disk_bytes: row.disk_bytes,
            }),
            turn: Arc::default(),
        })
    }

    /// The row that stores it.
    pub(super) fn to_row(&self) -> Result<CheckpointRow, RuntimeError> {
        let id = self.id;
        let corrupt = |source| RuntimeError::Corrupt { id, source };
        Ok(CheckpointRow {
            id,
            tenant: self.tenant.0,
            runtime: self.runtime,
            name: self.name.clone(),
            state: self.state().as_str().into(),
            settings: serde_json::to_string(&self.settings).map_err(corrupt)?,
            disk_bytes: self.disk_bytes(),
            created_at: self.created_at.clone(),
        })
    }

    /// How far it is.
    pub fn state(&self) -> CheckpointState {
        self.progress().state
    }

    /// What the copy takes on the host's disk as long as it shares nothing with others, in bytes; none until it is ready.
    pub fn disk_bytes(&self) -> Option<u64> {
        self.progress().disk_bytes
    }

    pub(super) fn set(&self, state: CheckpointState, disk_bytes: Option<u64>) {
        *self.progress() = Progress { state, disk_bytes };
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // A whole value is written at a time.
        self.progress
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits for the right to make or remove the copy.
    pub(super) async fn turn(&self) -> OwnedRwLockWriteGuard<()> {
        self.turn.clone().write_owned().await
    }

    /// The right to make the copy, for whoever has just made the checkpoint.
    pub(super) fn try_turn(&self) -> Option<OwnedRwLockWriteGuard<()>> {
        self.turn.clone().try_write_owned().ok()
    }

    /// Keeps the copy from being removed.
    pub(super) async fn restoring(&self) -> Result<OwnedRwLockReadGuard<()>, RuntimeError> {
        let reading = self.turn.clone().read_owned().await;
        self.check_ready().map(|()| reading)
    }

    /// # Errors
    /// [`RuntimeError::NotReady`].
    pub(super) fn check_ready(&self) -> Result<(), RuntimeError> {
        match self.state() {
            CheckpointState::Ready => Ok(()),
            state => Err(RuntimeError::NotReady {
                id: self.id,
                state: state.as_str(),
            }),
        }
    }
}

/// Every checkpoint in memory, found by tenant and id.
#[derive(Debug, Default)]
pub(super) struct Checkpoints(Mutex<BTreeMap<(TenantId, Uuid), Arc<Checkpoint>>>);

impl Checkpoints {
    pub(super) fn new(all: Vec<Checkpoint>) -> Self {
        let all = all.into_iter().map(Arc::new);
        let keyed = all.map(|checkpoint| ((checkpoint.tenant, checkpoint.id), checkpoint));
        Self(Mutex::new(keyed.collect()))
    }

    pub(super) fn insert(&self, checkpoint: Arc<Checkpoint>) {
        let key = (checkpoint.tenant, checkpoint.id);
        self.all().insert(key, checkpoint);
    }

    pub(super) fn remove(&self, checkpoint: &Checkpoint) {
        self.all().remove(&(checkpoint.tenant, checkpoint.id));
    }

    /// The tenant's checkpoint of that id.
    pub(super) fn find(&self, tenant: TenantId, id: Uuid) -> Option<Arc<Checkpoint>> {
        self.all().get(&(tenant, id)).cloned()
    }

    /// All of the tenant's checkpoints, oldest first.
    pub(super) fn of(&self, tenant: TenantId) -> Vec<Arc<Checkpoint>> {
        let range = (tenant, Uuid::nil())..=(tenant, Uuid::max());
        let all = self.all();
        all.range(range).map(|(_, found)| found.clone()).collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<(TenantId, Uuid), Arc<Checkpoint>>> {
        // Single calls that can't panic half-way.
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Base, CreateRequest, HostSizes, test_profiles};
    use super::*;

    fn checkpoint(tenant: TenantId) -> Arc<Checkpoint> {
        let host = HostSizes {
            memory_mib: 8192,
            max_vcpus: 64,
            disk: std::env::temp_dir(),
        };
        let valid = CreateRequest::default()
            .validate(&test_profiles(), &host, Base::Nothing)
            .unwrap();
        let runtime = Uuid::now_v7();
        let made = Checkpoint::new(tenant, runtime, "c".into(), valid.settings, String::new());
        Arc::new(made)
    }

    #[test]
    fn a_checkpoint_is_found_in_its_tenant_only() {
        let (mine, other) = (TenantId(Uuid::now_v7()), TenantId(Uuid::now_v7()));
        let checkpoints = Checkpoints::default();
        let made = checkpoint(mine);
        checkpoints.insert(made.clone());
        assert!(checkpoints.find(mine, made.id).is_some());
        assert!(checkpoints.find(other, made.id).is_none());
        assert!(checkpoints.of(other).is_empty());
        checkpoints.remove(&made);
        assert!(checkpoints.of(mine).is_empty());
    }

    #[tokio::test]
    async fn only_a_finished_one_is_restored_and_none_that_is_removed() {
        let made = checkpoint(TenantId(Uuid::now_v7()));
        let refused = made.check_ready().unwrap_err().to_string();
        assert!(refused.contains("(state: creating)"), "{refused}");
        made.set(CheckpointState::Ready, Some(1));
        let restoring = made.restoring().await.unwrap();
        assert!(made.try_turn().is_none(), "removed while it is copied");
        drop(restoring);
        let turn = made.try_turn().unwrap();
        made.set(CheckpointState::Failed, None);
        drop(turn);
        assert!(made.restoring().await.is_err());
    }

    #[test]
    fn what_was_never_finished_has_failed_after_a_restart() {
        let made = checkpoint(TenantId(Uuid::now_v7()));
        let row = made.to_row().unwrap();
        assert_eq!(row.state, "creating");
        let again = Checkpoint::from_row(row).unwrap();
        assert_eq!(again.state(), CheckpointState::Failed);
        made.set(CheckpointState::Ready, Some(7));
        let again = Checkpoint::from_row(made.to_row().unwrap()).unwrap();
        assert_eq!(
            (again.state(), again.disk_bytes()),
            (CheckpointState::Ready, Some(7))
        );
        assert_eq!((again.id, again.settings), (made.id, made.settings.clone()));
    }
}
