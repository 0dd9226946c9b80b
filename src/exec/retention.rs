//! How long execs are remembered, and how many.

use super::records::Records;
use crate::config::RecordBounds;
use crate::store::StoreError;
use std::time::Duration;
use uuid::Uuid;

/// How long an idempotency key stands for its request.
pub const KEY_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Longest time between two looks.
const EVERY: Duration = Duration::from_secs(60);

impl Records {
    /// Removes what is too old or too much, now and from time to time. Output that no record tells of, left by a crash, is
    /// removed once.
    pub fn keep_within(&self, bounds: RecordBounds) {
        let records = self.clone();
        // What this server writes has greater ids.
        let start = Uuid::now_v7();
        tokio::spawn(async move {
            log(records.outputs().sweep(start).await);
            let every = Duration::from_secs(bounds.retention_secs / 10);
            let every = every.clamp(Duration::from_millis(200), EVERY);
            loop {
                log(records.remove_old(&bounds).await);
                tokio::time::sleep(every).await;
            }
        });
    }

    async fn remove_old(&self, bounds: &RecordBounds) -> Result<(), StoreError> {
        let now = self.now_for_ages();
        let before = |age: Duration| now - i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        self.store().remove_keys_before(before(KEY_LIFE)).await?;
        self.outputs().shrink().await?;
        let retention = before(Duration::from_secs(bounds.retention_secs));
        loop {
            let gone = self
                .store()
                .remove_old_execs(retention, bounds.max_records)
                .await?;
            if gone.is_empty() {
                return Ok(());
            }
            self.outputs().forget(gone).await;
        }
    }
}

fn log(done: Result<(), StoreError>) {
    if let Err(error) = done {
        let error = crate::log::chain(&error);
        tracing::error!(error, "removing old exec records");
    }
}
