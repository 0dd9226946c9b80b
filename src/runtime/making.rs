//! How a runtime comes into being: a name, a row, the warden's part, what its image says, a status. Each step undoes what
//! was before when it fails. Called by [`super::service`].

use super::checkpoint::Checkpoint;
use super::error::{Invalid, RuntimeError};
use super::lifecycle::warden;
use super::model::{Runtime, State, Turn};
use super::name;
use super::request::Valid;
use super::service::{Inner, now};
use super::status::Status;
use crate::log::chain;
use crate::store::StoreError;
use crate::tenant::TenantId;
use crate::warden::client::WardenError;
use crate::warden::images::RuntimeImage;
use crate::warden::protocol::{Failure, RuntimeSpec};
use std::sync::Arc;
use uuid::Uuid;

impl Inner {
    /// Takes the name, so that no two creations race for it, and the new runtime's turn.
    pub(super) fn reserve(
        &self,
        id: Uuid,
        tenant: TenantId,
        valid: Valid,
    ) -> Result<(Turn, Arc<Runtime>), RuntimeError> {
        let mut tries = 0;
        loop {
            let (name, chosen) = match &valid.name {
                Some(name) => (name.clone(), true),
                None => (name::random()?, false),
            };
            let state = State {
                status: Status::Creating,
                updated_at: now(),
                copying: false,
            };
            let settings = valid.settings.clone();
            let runtime = Arc::new(Runtime::new(id, tenant, name, settings, now(), state));
            // Nobody else knows of it yet.
            let turn = runtime.try_turn().ok_or(RuntimeError::Interrupted)?;
            tries += 1;
            match self.catalogue.insert(runtime.clone()) {
                Err(RuntimeError::Exists(_)) if !chosen && tries < 100 => continue,
                inserted => return inserted.map(|()| (turn, runtime)),
            }
        }
    }

    /// Row, disk, status; on failure nothing of them is left.
    pub(super) async fn build(
        &self,
        runtime: &Runtime,
        source: Option<&Checkpoint>,
    ) -> Result<(), RuntimeError> {
        let built = self.build_steps(runtime, source).await;
        if let Err(error) = &built {
            tracing::warn!(runtime = %runtime.id, error = chain(error), "creating a runtime failed");
            // A disk that can't be removed now has no row and goes at the next start.
            if let Err(error) = self.warden.delete_runtime(runtime.id).await {
                tracing::debug!(runtime = %runtime.id, %error, "removing what creating left");
            }
            if let Err(error) = self.store.delete_runtime(runtime.id).await {
                tracing::error!(runtime = %runtime.id, %error, "removing the row of a failed creation");
            }
            self.catalogue.remove(runtime);
            runtime.set(Status::Error, now()).await;
        }
        built
    }

    async fn build_steps(
        &self,
        runtime: &Runtime,
        source: Option<&Checkpoint>,
    ) -> Result<(), RuntimeError> {
        self.store
            .insert_runtime(runtime.to_row()?)
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
        // What is being copied is not removed.
        let _in_use = match source {
            Some(checkpoint) => Some(checkpoint.restoring().await?),
            None => None,
        };
        let created = self
            .warden
            .create_runtime(spec, source.map(|checkpoint| checkpoint.id));
        match created.await {
            Err(error) => return Err(self.explain(error).await),
            Ok(image) => self.note_image(runtime, image).await?,
        }
        self.store_status(runtime, Status::Running).await
    }

    /// Keeps what the warden told of a new runtime's image with its settings.
    async fn note_image(
        &self,
        before: &Runtime,
        image: Option<RuntimeImage>,
    ) -> Result<(), RuntimeError> {
        let mut settings = before.settings.clone();
        if let Some(RuntimeImage { id, config }) = image {
            (settings.image_id, settings.image_config) = (Some(id), config);
        }
        if settings != before.settings {
            let after = Arc::new(before.changed(before.name.clone(), settings));
            let stored = self.store.update_runtime(after.to_row()?).await;
            stored.map_err(RuntimeError::Store)?;
            self.catalogue.replace(before, after);
        }
        Ok(())
    }

    /// Why the warden refused to create, in terms of the request where the request is to blame.
    async fn explain(&self, error: WardenError) -> RuntimeError {
        match error {
            WardenError::Refused(Failure::UnknownImage) => match self.warden.list_images().await {
                Ok(images) => {
                    let names = images.into_iter().map(|image| image.name);
                    Invalid::one_of("image", names).into()
                }
                Err(_) => Invalid::new("image", "is not the name of an image").into(),
            },
            WardenError::Refused(Failure::UnknownProfile) => {
                Invalid::one_of("profile", self.profiles.names()).into()
            }
            WardenError::Refused(Failure::BadImage(why)) => {
                Invalid::new("image", format!("can't be used: {why}")).into()
            }
            source => warden("creating a runtime", source),
        }
    }
}
