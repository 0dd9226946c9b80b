//! Making, finding and removing checkpoints. A checkpoint belongs to its tenant, not to the runtime it was made of.

use super::checkpoint::{Checkpoint, CheckpointState};
use super::error::{Invalid, RuntimeError};
use super::lifecycle::{is_gone, warden};
use super::model::Runtime;
use super::page::{Page, PageRequest};
use super::service::{CREATE_WAIT, Inner, Runtimes, TURN_WAIT, now, shown};
use super::status::Status;
use crate::log::chain;
use crate::tenant::TenantId;
use crate::warden::client::WardenError;
use crate::warden::protocol::Filesystem;
use std::sync::Arc;
use uuid::Uuid;

/// Longest name in bytes: a runtime's, and what clients put behind it.
const MAX_NAME: usize = 128;

/// What a client asks for, its types checked and nothing else.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CheckpointRequest {
    /// `name`.
    pub name: Option<String>,
    /// `kind`.
    pub kind: Option<String>,
}

impl CheckpointRequest {
    fn check(&self) -> Result<(), Invalid> {
        if self.kind.as_deref().is_some_and(|kind| kind != "full") {
            return Err(Invalid::one_of("kind", ["full"]));
        }
        let unfit = |name: &str| {
            name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control)
        };
        if self.name.as_deref().is_some_and(unfit) {
            let problem = format!("must be 1 to {MAX_NAME} bytes without control characters");
            return Err(Invalid::new("name", problem));
        }
        Ok(())
    }
}

impl Runtimes {
    /// Copies a runtime's disk. What runs in it stands still meanwhile. If that takes longer than [`CREATE_WAIT`], the
    /// checkpoint comes back `creating`, and may become `failed` then; before, a failure leaves nothing.
    pub async fn checkpoint(
        &self,
        tenant: TenantId,
        key: &str,
        request: CheckpointRequest,
    ) -> Result<Arc<Checkpoint>, RuntimeError> {
        request.check()?;
        let (runtime_turn, runtime) = self.turn(tenant, key).await?;
        let status = runtime.status();
        if matches!(status, Status::Creating | Status::Deleting | Status::Error) {
            return Err(RuntimeError::Impossible {
                name: runtime.name.clone(),
                what: "checkpointed",
                status: status.as_str(),
            });
        }
        let filesystem = runtime.settings.filesystem;
        if filesystem != Filesystem::Persistent {
            return Err(RuntimeError::NothingToKeep {
                name: runtime.name.clone(),
                filesystem: filesystem.as_str(),
            });
        }
        let name = match request.name {
            Some(name) => name,
            None => {
                let number = getrandom::u32().map_err(RuntimeError::Random)?;
                format!("{}-{number:08x}", runtime.name)
            }
        };
        let settings = runtime.settings.clone();
        let made = Checkpoint::new(tenant, runtime.id, name, settings, now());
        let checkpoint = Arc::new(made);
        // Nobody else knows of it yet.
        let turn = checkpoint.try_turn().ok_or(RuntimeError::Interrupted)?;
        self.inner().checkpoints.insert(checkpoint.clone());

        let (inner, making) = (self.inner().clone(), checkpoint.clone());
        let task = tokio::spawn(async move {
            let _turns = (runtime_turn, turn);
            inner.copy(&runtime, &making).await
        });
        match tokio::time::timeout(CREATE_WAIT, task).await {
            Err(_) => tracing::info!(checkpoint = %checkpoint.id, "copying a disk takes long"),
            Ok(done) => {
                let done = done.map_err(|_| RuntimeError::Interrupted).flatten();
                if done.is_err() {
                    // The caller hears of it now, so there is nothing left to tell.
                    self.inner().forget(&checkpoint).await;
                }
                done?;
            }
        }
        Ok(checkpoint)
    }

    /// The tenant's checkpoints, oldest first.
    pub fn checkpoints(&self, tenant: TenantId, page: &PageRequest) -> Page<Arc<Checkpoint>> {
        Page::cut(self.inner().checkpoints.of(tenant), page, |found| found.id)
    }

    /// The tenant's checkpoint of that id.
    pub fn get_checkpoint(
        &self,
        tenant: TenantId,
        id: &str,
    ) -> Result<Arc<Checkpoint>, RuntimeError> {
        Uuid::parse_str(id)
            .ok()
            .and_then(|id| self.inner().checkpoints.find(tenant, id))
            .ok_or_else(|| RuntimeError::CheckpointNotFound(shown(id)))
    }

    /// Removes a checkpoint. Waits for its making, and for a runtime that is being made of it.
    pub async fn delete_checkpoint(&self, tenant: TenantId, id: &str) -> Result<(), RuntimeError> {
        let checkpoint = self.get_checkpoint(tenant, id)?;
        let turn = tokio::time::timeout(TURN_WAIT, checkpoint.turn())
            .await
            .map_err(|_| RuntimeError::CheckpointBusy(checkpoint.id))?;
        // Somebody else may have deleted it meanwhile.
        self.get_checkpoint(tenant, id)?;
        let inner = self.inner().clone();
        let task = tokio::spawn(async move {
            let _turn = turn;
            inner.remove_checkpoint(&checkpoint).await
        });
        task.await.map_err(|_| RuntimeError::Interrupted)?
    }

    /// The tenant's checkpoint that a create request names.
    pub(super) fn restorable(
        &self,
        tenant: TenantId,
        id: &str,
    ) -> Result<Arc<Checkpoint>, RuntimeError> {
        if Uuid::parse_str(id).is_err() {
            return Err(Invalid::new("checkpoint_id", "must be the UUID of a checkpoint").into());
        }
        let checkpoint = self.get_checkpoint(tenant, id)?;
        checkpoint.check_ready().map(|()| checkpoint)
    }
}

impl Inner {
    /// Row, copy, state.
    async fn copy(&self, runtime: &Runtime, checkpoint: &Checkpoint) -> Result<(), RuntimeError> {
        let copied = self.copy_steps(runtime, checkpoint).await;
        if let Err(error) = &copied {
            let (id, runtime) = (checkpoint.id, runtime.id);
            tracing::error!(checkpoint = %id, %runtime, error = chain(error), "a checkpoint failed");
            checkpoint.set(CheckpointState::Failed, None);
            let failed = CheckpointState::Failed.as_str();
            if let Err(error) = self.store.set_checkpoint(id, failed, None).await {
                tracing::error!(checkpoint = %id, %error, "storing that a checkpoint failed");
            }
        }
        copied
    }

    async fn copy_steps(
        &self,
        runtime: &Runtime,
        checkpoint: &Checkpoint,
    ) -> Result<(), RuntimeError> {
        let row = checkpoint.to_row()?;
        self.store
            .insert_checkpoint(row)
            .await
            .map_err(RuntimeError::Store)?;
        let bytes = {
            let _still = runtime.copying();
            self.warden
                .create_checkpoint(checkpoint.id, runtime.id)
                .await
                .map_err(|source| warden("copying a runtime's disk", source))?
        };
        let ready = CheckpointState::Ready;
        self.store
            .set_checkpoint(checkpoint.id, ready.as_str(), Some(bytes))
            .await
            .map_err(RuntimeError::Store)?;
        checkpoint.set(ready, Some(bytes));
        Ok(())
    }

    /// Removes what a failed checkpoint left.
    async fn forget(&self, checkpoint: &Checkpoint) {
        if let Err(error) = self.remove_checkpoint(checkpoint).await {
            // A row that is left shows it as failed after the next start.
            let error = chain(&error);
            tracing::error!(checkpoint = %checkpoint.id, error, "removing a failed checkpoint");
            self.checkpoints.remove(checkpoint);
        }
    }

    async fn remove_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), RuntimeError> {
        // A crash leaves what can be deleted again; what can't be stored leaves a checkpoint as it was.
        let failed = CheckpointState::Failed;
        self.store
            .set_checkpoint(checkpoint.id, failed.as_str(), None)
            .await
            .map_err(RuntimeError::Store)?;
        // Nothing is made of it any more.
        checkpoint.set(failed, None);
        let mut deleted = self.warden.delete_checkpoint(checkpoint.id).await;
        if matches!(deleted, Err(WardenError::Lost)) {
            // A warden that dies has done nothing wrong; the next one knows what is left.
            deleted = self.warden.delete_checkpoint(checkpoint.id).await;
        }
        match deleted {
            Ok(()) => {}
            Err(error) if is_gone(&error) => {}
            Err(source) => return Err(warden("deleting a checkpoint", source)),
        }
        self.store
            .delete_checkpoint(checkpoint.id)
            .await
            .map_err(RuntimeError::Store)?;
        self.checkpoints.remove(checkpoint);
        Ok(())
    }
}
