//! Changing a runtime that exists: its name, its limits, and what commands find in it.

use super::error::RuntimeError;
use super::lifecycle::warden;
use super::model::Runtime;
use super::request::{Base, CreateRequest, Valid};
use super::service::{Inner, Runtimes, now};
use super::status::Status;
use crate::store::StoreError;
use crate::tenant::TenantId;
use crate::warden::client::WardenError;
use std::sync::Arc;

impl Runtimes {
    /// Changes what the request names, all of it or nothing. New limits hold at once, for commands that run too.
    pub async fn patch(
        &self,
        tenant: TenantId,
        key: &str,
        request: CreateRequest,
    ) -> Result<Arc<Runtime>, RuntimeError> {
        let (turn, runtime) = self.turn(tenant, key).await?;
        let status = runtime.status();
        if matches!(status, Status::Creating | Status::Deleting) {
            return Err(RuntimeError::Impossible {
                name: runtime.name.clone(),
                what: "changed",
                status: status.as_str(),
            });
        }
        let inner = self.inner().clone();
        let base = Base::Runtime(&runtime.settings);
        let valid = request.validate(&inner.profiles, &inner.host, base)?;
        let task = tokio::spawn(async move {
            let _turn = turn;
            inner.patch(runtime, valid).await
        });
        task.await.map_err(|_| RuntimeError::Interrupted)?
    }
}

impl Inner {
    async fn patch(
        &self,
        before: Arc<Runtime>,
        valid: Valid,
    ) -> Result<Arc<Runtime>, RuntimeError> {
        let name = valid.name.unwrap_or_else(|| before.name.clone());
        if (&name, &valid.settings) == (&before.name, &before.settings) {
            return Ok(before);
        }
        let renamed = name != before.name;
        if renamed {
            self.catalogue.reserve(&before, &name)?;
        }
        let after = Arc::new(before.changed(name, valid.settings));
        let patched = self.patch_steps(&before, &after).await;
        match &patched {
            Ok(()) => self.catalogue.replace(&before, after.clone()),
            Err(_) if renamed => self.catalogue.release(&before, &after.name),
            Err(_) => {}
        }
        patched.map(|()| after)
    }

    async fn patch_steps(&self, before: &Runtime, after: &Runtime) -> Result<(), RuntimeError> {
        let (old, new) = (before.settings.resources(), after.settings.resources());
        if old != new {
            // First for commands that come, or one that is just being started would bring the old limits back.
            before.set_resources(new).await;
            match self.warden.set_resources(before.id, new).await {
                // The next warden hears of the limits with the next command.
                Ok(()) | Err(WardenError::Lost) => {}
                Err(source) => {
                    before.set_resources(old).await;
                    return Err(warden("changing a runtime's limits", source));
                }
            }
        }
        let now = now();
        let mut row = after.to_row()?;
        row.updated_at.clone_from(&now);
        let stored = self.store.update_runtime(row).await;
        if let Err(error) = stored {
            if old != new {
                before.set_resources(old).await;
                if let Err(error) = self.warden.set_resources(before.id, old).await {
                    tracing::error!(runtime = %before.id, %error, "undoing a change of limits");
                }
            }
            return Err(match error {
                StoreError::Taken => RuntimeError::Exists(after.name.clone()),
                error => RuntimeError::Store(error),
            });
        }
        after.touch(now);
        Ok(())
    }
}
