//! Creating, finding, listing and deleting runtimes.
//!
//! Creating and deleting run in tasks of their own: a client that goes away leaves nothing half-done.

use super::catalogue::Catalogue;
use super::defaults::{Profile, Profiles};
use super::error::{Invalid, RuntimeError, chain};
use super::model::{Runtime, Settings, State, Status};
use super::page::{Page, PageRequest};
use super::request::{CreateRequest, ValidCreate};
use super::sizes::HostSizes;
use super::{name, reconcile};
use crate::store::{RuntimeRow, Store, StoreError};
use crate::tenant::TenantId;
use crate::warden::client::{Warden, WardenError};
use crate::warden::protocol::{Failure, Filesystem, RuntimeSpec};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long a create request waits before it answers `creating`, and how long an exec waits for a runtime that is being
/// created.
pub const CREATE_WAIT: Duration = Duration::from_secs(10);

/// All runtimes of all tenants; cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtimes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    warden: Warden,
    catalogue: Catalogue,
    profiles: Profiles,
    host: HostSizes,
}

impl Runtimes {
    /// Makes store and disk agree and takes over what is left.
    pub async fn open(
        store: Store,
        warden: Warden,
        profiles: Profiles,
        host: HostSizes,
        rows: Vec<RuntimeRow>,
    ) -> Result<Self, RuntimeError> {
        let catalogue = Catalogue::default();
        for runtime in reconcile::reconcile(&store, &warden, rows, &now()).await? {
            catalogue.insert(Arc::new(runtime))?;
        }
        Ok(Self(Arc::new(Inner {
            store,
            warden,
            catalogue,
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
            profiles,
            host,
        }))
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
        let valid = request.validate(&self.0.profiles, &self.0.host)?;
        let settings = &valid.settings;
        if settings.filesystem == Filesystem::Persistent && !self.0.host.has_room(settings.disk_mib)
        {
            return Err(RuntimeError::NoRoom(settings.disk_mib));
        }
        let runtime = self.0.reserve(id, tenant, valid)?;
        let (inner, created) = (self.0.clone(), runtime.clone());
        let task = tokio::spawn(async move { inner.build(&created).await });
        match tokio::time::timeout(CREATE_WAIT, task).await {
            Ok(done) => done.map_err(|_| RuntimeError::Interrupted)??,
            Err(_) => tracing::info!(runtime = %runtime.id, "creating takes long"),
        }
        Ok(runtime)
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
        let runtime = self.get(tenant, key)?;
        let mut status = runtime.status();
        if status == Status::Creating {
            status = tokio::time::timeout(CREATE_WAIT, runtime.created())
                .await
                .unwrap_or(Status::Creating);
        }
        match status {
            Status::Running => Ok(runtime),
            _ => Err(RuntimeError::NotRunning {
                name: runtime.name.clone(),
                status: status.as_str(),
            }),
        }
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

    /// Kills what runs in the runtime and removes it with its disk.
    pub async fn delete(&self, tenant: TenantId, key: &str) -> Result<(), RuntimeError> {
        let runtime = self.get(tenant, key)?;
        let deletable: Vec<Status> = Status::ALL
            .into_iter()
            .filter(|s| !matches!(s, Status::Creating | Status::Deleting))
            .collect();
        match runtime.exchange(&deletable, Status::Deleting, now()) {
            Ok(()) => {}
            Err(Status::Creating) => return Err(RuntimeError::StillCreating(runtime.name.clone())),
            // Somebody else is deleting it: for this caller it is gone.
            Err(_) => return Err(RuntimeError::NotFound(shown(key))),
        }
        let inner = self.0.clone();
        tokio::spawn(async move { inner.destroy(&runtime).await })
            .await
            .map_err(|_| RuntimeError::Interrupted)?
    }

    /// What a runtime's profile says.
    pub fn profile(&self, settings: &Settings) -> Option<&Profile> {
        self.0.profiles.get(&settings.profile)
    }
}

impl Inner {
    /// Takes the name, so that no two creations race for it.
    fn reserve(
        &self,
        id: Uuid,
        tenant: TenantId,
        valid: ValidCreate,
    ) -> Result<Arc<Runtime>, RuntimeError> {
        let mut tries = 0;
        loop {
            let (name, chosen) = match &valid.name {
                Some(name) => (name.clone(), true),
                None => (name::random()?, false),
            };
            let state = State {
                status: Status::Creating,
                updated_at: now(),
            };
            let settings = valid.settings.clone();
            let runtime = Arc::new(Runtime::new(id, tenant, name, settings, now(), state));
            tries += 1;
            match self.catalogue.insert(runtime.clone()) {
                Err(RuntimeError::Exists(_)) if !chosen && tries < 100 => continue,
                inserted => return inserted.map(|()| runtime),
            }
        }
    }

    /// Row, disk, status; on failure nothing of them is left.
    async fn build(&self, runtime: &Arc<Runtime>) -> Result<(), RuntimeError> {
        let built = self.build_steps(runtime).await;
        if let Err(error) = &built {
            tracing::warn!(runtime = %runtime.id, error = chain(error), "creating a runtime failed");
            // A disk that can't be removed now has no row and goes at the next start.
            if let Err(error) = self.warden.delete_runtime(runtime.id).await {
                tracing::debug!(runtime = %runtime.id, %error, "removing what creating left");
            }
            if let Err(error) = self.store.delete_runtime(runtime.id).await {
                tracing::error!(runtime = %runtime.id, %error, "removing the row of a failed creation");
            }
            runtime.set(Status::Error, now());
            self.catalogue.remove(runtime);
        }
        built
    }

    async fn build_steps(&self, runtime: &Runtime) -> Result<(), RuntimeError> {
        let row = runtime.to_row().map_err(|source| RuntimeError::Corrupt {
            id: runtime.id,
            source,
        })?;
        self.store
            .insert_runtime(row)
            .await
            .map_err(|error| match error {
                StoreError::Taken => RuntimeError::Exists(runtime.name.clone()),
                error => RuntimeError::Store(error),
            })?;
        let settings = &runtime.settings;
        let spec = RuntimeSpec {
            id: runtime.id,
            image: settings.image.clone(),
            profile: settings.profile.clone(),
            filesystem: settings.filesystem,
            disk_mib: settings.disk_mib,
        };
        if let Err(error) = self.warden.create_runtime(spec).await {
            return Err(self.explain(error).await);
        }
        let now = now();
        self.store
            .set_status(runtime.id, "running", &now)
            .await
            .map_err(RuntimeError::Store)?;
        runtime.set(Status::Running, now);
        Ok(())
    }

    /// Why the warden refused to create, in terms of the request where the request is to blame.
    async fn explain(&self, error: WardenError) -> RuntimeError {
        match error {
            WardenError::Refused(Failure::UnknownImage) => match self.warden.list_images().await {
                Ok(names) => Invalid::one_of("image", names).into(),
                Err(_) => Invalid::new("image", "is not the name of an image").into(),
            },
            WardenError::Refused(Failure::UnknownProfile) => {
                Invalid::one_of("profile", self.profiles.names()).into()
            }
            WardenError::Refused(Failure::BadImage(why)) => {
                Invalid::new("image", format!("can't be used: {why}")).into()
            }
            source => RuntimeError::Warden {
                operation: "creating",
                source,
            },
        }
    }

    async fn destroy(&self, runtime: &Arc<Runtime>) -> Result<(), RuntimeError> {
        let deleted = self.destroy_steps(runtime).await;
        match &deleted {
            Ok(()) => self.catalogue.remove(runtime),
            Err(error) => {
                tracing::error!(runtime = %runtime.id, error = chain(error), "deleting a runtime failed");
                let now = now();
                runtime.set(Status::Error, now.clone());
                if let Err(error) = self.store.set_status(runtime.id, "error", &now).await {
                    tracing::error!(runtime = %runtime.id, %error, "storing that deleting failed");
                }
            }
        }
        deleted
    }

    async fn destroy_steps(&self, runtime: &Runtime) -> Result<(), RuntimeError> {
        self.store
            .set_status(runtime.id, "deleting", &now())
            .await
            .map_err(RuntimeError::Store)?;
        match self.warden.delete_runtime(runtime.id).await {
            Ok(()) | Err(WardenError::Refused(Failure::UnknownRuntime)) => {}
            Err(source) => {
                return Err(RuntimeError::Warden {
                    operation: "deleting",
                    source,
                });
            }
        }
        self.store
            .delete_runtime(runtime.id)
            .await
            .map_err(RuntimeError::Store)
    }
}

/// The time as RFC 3339, in milliseconds.
fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

/// What a client called a runtime, fit for a message.
fn shown(key: &str) -> String {
    key.chars().take(64).flat_map(char::escape_debug).collect()
}
