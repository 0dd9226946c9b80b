//! Creating, finding, listing and deleting runtimes. What a creation does is in `making`.
//!
//! Whatever changes a runtime holds its turn and runs in a task of its own: a client that goes away leaves nothing
//! half-done. `lifecycle`, `patch` and `checkpoints` add to what is here.

use super::catalogue::Catalogue;
use super::checkpoint::Checkpoints;
use super::defaults::{Identity, Profiles};
use super::error::RuntimeError;
use super::lifecycle::{is_gone, warden};
use super::model::{Runtime, Turn};
use super::page::{Page, PageRequest};
use super::reconcile;
use super::request::{Base, CreateRequest};
use super::settings::Settings;
use super::sizes::HostSizes;
use super::status::Status;
use crate::image::listed::Listed;
use crate::log::chain;
use crate::store::{CheckpointRow, RuntimeRow, Store};
use crate::tenant::TenantId;
use crate::warden::client::{Warden, WardenError};
use crate::warden::protocol::Filesystem;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long a create request waits before it answers `creating`, and how long an exec waits for a runtime that is being
/// created.
pub const CREATE_WAIT: Duration = Duration::from_secs(10);

/// How long an operation waits for another one on the same runtime. Below the read timeout of clients.
pub(super) const TURN_WAIT: Duration = Duration::from_secs(20);

/// All runtimes of all tenants, and their checkpoints; cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtimes(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) warden: Warden,
    pub(super) catalogue: Catalogue,
    pub(super) checkpoints: Checkpoints,
    pub(super) profiles: Profiles,
    pub(super) host: HostSizes,
}

impl Runtimes {
    /// Makes store and disk agree and takes over what is left.
    pub async fn open(
        store: Store,
        warden: Warden,
        profiles: Profiles,
        host: HostSizes,
        runtimes: Vec<RuntimeRow>,
        checkpoints: Vec<CheckpointRow>,
    ) -> Result<Self, RuntimeError> {
        let catalogue = Catalogue::default();
        for runtime in reconcile::runtimes(&store, &warden, runtimes, &now()).await? {
            catalogue.insert(Arc::new(runtime))?;
        }
        let checkpoints = reconcile::checkpoints(&store, &warden, checkpoints).await?;
        let promised: u64 = catalogue.disks_mib();
        if host.is_less_than(promised) {
            tracing::warn!(
                promised_mib = promised,
                "the disks of all runtimes together may take more than the data directory's file system has: one that is \
                 full is full for all of them"
            );
        }
        Ok(Self(Arc::new(Inner {
            store,
            warden,
            catalogue,
            checkpoints: Checkpoints::new(checkpoints),
            profiles,
            host,
        })))
    }

    /// No runtimes, and no questions to a warden.
    #[cfg(test)]
    pub(crate) fn without_disk(
        store: Store,
        warden: Warden,
        profiles: Profiles,
        host: HostSizes,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            warden,
            catalogue: Catalogue::default(),
            checkpoints: Checkpoints::default(),
            profiles,
            host,
        }))
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }

    /// Makes a runtime that can run commands. If that takes longer than [`CREATE_WAIT`], it comes back `creating`.
    pub async fn create(
        &self,
        tenant: TenantId,
        request: CreateRequest,
    ) -> Result<Arc<Runtime>, RuntimeError> {
        self.create_as(Uuid::now_v7(), tenant, request).await
    }

    /// As [`Runtimes::create`], with an id that the caller has noted.
    pub async fn create_as(
        &self,
        id: Uuid,
        tenant: TenantId,
        request: CreateRequest,
    ) -> Result<Arc<Runtime>, RuntimeError> {
        let source = match &request.checkpoint_id {
            Some(id) => Some(self.restorable(tenant, id)?),
            None => None,
        };
        let base = source.as_deref().map_or(Base::Nothing, |checkpoint| {
            Base::Checkpoint(&checkpoint.settings)
        });
        let valid = request.validate(&self.0.profiles, &self.0.host, base)?;
        let settings = &valid.settings;
        if settings.filesystem == Filesystem::Persistent && !self.0.host.has_room(settings.disk_mib)
        {
            return Err(RuntimeError::NoRoom(settings.disk_mib));
        }
        let (turn, runtime) = self.0.reserve(id, tenant, valid)?;
        let (inner, created) = (self.0.clone(), runtime.clone());
        let task = tokio::spawn(async move {
            let _turn = turn;
            inner.build(&created, source.as_deref()).await
        });
        match tokio::time::timeout(CREATE_WAIT, task).await {
            Ok(done) => done.map_err(|_| RuntimeError::Interrupted)??,
            Err(_) => tracing::info!(runtime = %runtime.id, "creating takes long"),
        }
        Ok(self.0.catalogue.current(&runtime).unwrap_or(runtime))
    }

    /// The tenant's runtime of that id or name.
    pub fn get(&self, tenant: TenantId, key: &str) -> Result<Arc<Runtime>, RuntimeError> {
        self.0
            .catalogue
            .find(tenant, key)
            .ok_or_else(|| RuntimeError::NotFound(shown(key)))
    }

    /// As [`Runtimes::get`], but only one that commands may run in. Waits up to [`CREATE_WAIT`] while it is being created.
    pub async fn get_running(
        &self,
        tenant: TenantId,
        key: &str,
    ) -> Result<Arc<Runtime>, RuntimeError> {
        self.get_in(tenant, key, Status::COMMANDS).await
    }

    /// As [`Runtimes::get_running`], but also one that is shut down: its files are on its disk all the same.
    pub async fn get_with_files(
        &self,
        tenant: TenantId,
        key: &str,
    ) -> Result<Arc<Runtime>, RuntimeError> {
        self.get_in(tenant, key, Status::FILES).await
    }

    async fn get_in(
        &self,
        tenant: TenantId,
        key: &str,
        allowed: &[Status],
    ) -> Result<Arc<Runtime>, RuntimeError> {
        let mut runtime = self.get(tenant, key)?;
        let mut status = runtime.status();
        if status == Status::Creating {
            status = tokio::time::timeout(CREATE_WAIT, runtime.created())
                .await
                .unwrap_or(Status::Creating);
            // Its image has said meanwhile what commands in it begin with.
            runtime = self.0.catalogue.current(&runtime).unwrap_or(runtime);
        }
        runtime.check(status, allowed).map(|()| runtime)
    }

    /// The tenant's runtimes, oldest first; with `statuses`, only those in one of them.
    pub fn list(
        &self,
        tenant: TenantId,
        statuses: Option<&[Status]>,
        page: &PageRequest,
    ) -> Page<Arc<Runtime>> {
        let mut all = self.0.catalogue.of(tenant);
        if let Some(statuses) = statuses {
            all.retain(|runtime| statuses.contains(&runtime.status()));
        }
        Page::cut(all, page, |runtime| runtime.id)
    }

    /// How many runtimes of all tenants are in which status.
    pub fn by_status(&self) -> [(Status, usize); 8] {
        let all = self.0.catalogue.statuses();
        Status::ALL.map(|status| (status, all.iter().filter(|it| **it == status).count()))
    }

    /// Kills what runs in the runtime and removes it with its disk; its checkpoints stay.
    pub async fn delete(&self, tenant: TenantId, key: &str) -> Result<(), RuntimeError> {
        let (turn, runtime) = self.turn(tenant, key).await?;
        let inner = self.0.clone();
        let task = tokio::spawn(async move {
            let _turn = turn;
            inner.destroy(&runtime).await
        });
        task.await.map_err(|_| RuntimeError::Interrupted)?
    }

    /// Waits for the right to change the tenant's runtime of that id or name, and tells what it is then.
    pub(super) async fn turn(
        &self,
        tenant: TenantId,
        key: &str,
    ) -> Result<(Turn, Arc<Runtime>), RuntimeError> {
        let runtime = self.get(tenant, key)?;
        let turn = match tokio::time::timeout(TURN_WAIT, runtime.turn()).await {
            Ok(turn) => turn,
            Err(_) if runtime.status() == Status::Creating => {
                return Err(RuntimeError::StillCreating(runtime.name.clone()));
            }
            Err(_) => return Err(RuntimeError::Busy(runtime.name.clone())),
        };
        // It may have been changed or deleted meanwhile.
        let current = self.0.catalogue.current(&runtime);
        let current = current.ok_or_else(|| RuntimeError::NotFound(shown(key)))?;
        Ok((turn, current))
    }

    /// Whether there is a warden to start commands now.
    pub async fn can_start(&self) -> bool {
        /// As long as whoever asks may wait; a busy warden answers in milliseconds.
        const LIMIT: Duration = Duration::from_secs(2);
        self.0.warden.answers(LIMIT).await
    }

    /// Whether the disk has room for the smallest runtime. Where it has not, little can be begun, but everything ended.
    pub fn has_room(&self) -> bool {
        self.0.host.has_any_room()
    }

    /// Size and free bytes of the file system that holds the runtimes' disks; none where it can't be told.
    pub fn disk_bytes(&self) -> Option<(u64, u64)> {
        self.0.host.disk_bytes()
    }

    /// The images that a runtime may be made of, in the order of their names.
    pub async fn images(&self) -> Result<Vec<Listed>, RuntimeError> {
        let listed = self.0.warden.list_images().await;
        listed.map_err(|source| warden("listing the images", source))
    }

    /// Who commands in a runtime are: whom its image names, or else its profile.
    ///
    /// # Errors
    /// [`RuntimeError::ProfileGone`].
    pub fn identity<'a>(&'a self, settings: &'a Settings) -> Result<Identity<'a>, RuntimeError> {
        if let Some(user) = &settings.image_config.user {
            let (user, home) = (&user.name, &user.home);
            return Ok(Identity { user, home });
        }
        let profile = self.0.profiles.get(&settings.profile);
        let profile = profile.ok_or(RuntimeError::ProfileGone)?;
        let (user, home) = (&profile.user, &profile.home);
        Ok(Identity { user, home })
    }
}

impl Inner {
    async fn destroy(&self, runtime: &Runtime) -> Result<(), RuntimeError> {
        let deleted = self.destroy_steps(runtime).await;
        match &deleted {
            Ok(()) => self.catalogue.remove(runtime),
            Err(error) => {
                tracing::error!(runtime = %runtime.id, error = chain(error), "deleting a runtime failed");
                if let Err(error) = self.store_status(runtime, Status::Error).await {
                    tracing::error!(runtime = %runtime.id, error = chain(&error), "storing that deleting failed");
                    runtime.set(Status::Error, now()).await;
                }
            }
        }
        deleted
    }

    async fn destroy_steps(&self, runtime: &Runtime) -> Result<(), RuntimeError> {
        self.store_status(runtime, Status::Deleting).await?;
        let mut deleted = self.warden.delete_runtime(runtime.id).await;
        if deleted.as_ref().is_err_and(WardenError::is_death) {
            // Who dies has done nothing wrong; the next one knows what is left.
            deleted = self.warden.delete_runtime(runtime.id).await;
        }
        match deleted {
            Ok(()) => {}
            Err(error) if is_gone(&error) => {}
            Err(source) => return Err(warden("deleting a runtime", source)),
        }
        self.store
            .delete_runtime(runtime.id)
            .await
            .map_err(RuntimeError::Store)
    }
}

/// The time as RFC 3339, in milliseconds.
pub(super) fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

/// What a client called a runtime, fit for a message.
pub(super) fn shown(key: &str) -> String {
    key.chars().take(64).flat_map(char::escape_debug).collect()
}
