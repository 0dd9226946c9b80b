//! A runtime in memory: what its creator settled, and its status, which others can wait for.

use super::policy::{Egress, IdlePolicy, TokenSaving};
use crate::resources::{MIB, RuntimeResources};
use crate::store::RuntimeRow;
use crate::tenant::TenantId;
use crate::warden::protocol::Filesystem;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio::sync::watch;
use uuid::Uuid;

/// The API's words for what a runtime is doing; there are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each word is documented by the API
pub enum Status {
    Creating,
    Running,
    Paused,
    Suspended,
    Shutdown,
    Deleting,
    Error,
    Crashed,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Creating,
        Self::Running,
        Self::Paused,
        Self::Suspended,
        Self::Shutdown,
        Self::Deleting,
        Self::Error,
        Self::Crashed,
    ];

    /// The word on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Suspended => "suspended",
            Self::Shutdown => "shutdown",
            Self::Deleting => "deleting",
            Self::Error => "error",
            Self::Crashed => "crashed",
        }
    }

    /// The status of that word; `active` and `stopped` are other words for running and shutdown.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "active" => Some(Self::Running),
            "stopped" => Some(Self::Shutdown),
            _ => Self::ALL.into_iter().find(|status| status.as_str() == word),
        }
    }
}

/// All that the create request settled, defaults filled in. Stored as JSON, so a new field needs a serde default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Memory asked for, in MiB.
    pub request_memory_mib: u64,
    /// Memory that is enforced, in MiB.
    pub limit_memory_mib: u64,
    /// The least memory that an old client named, in MiB; shown, and nothing else.
    pub min_memory_mib: u64,
    /// CPUs.
    pub vcpus: u32,
    /// Processes and threads.
    pub pids: u64,
    /// Size of the writable layer in MiB.
    pub disk_mib: u64,
    /// Name of the image.
    pub image: String,
    /// Name of the sandbox profile.
    pub profile: String,
    /// Where writes go.
    pub filesystem: Filesystem,
    /// The runtime's own environment variables.
    pub environment_variables: BTreeMap<String, String>,
    /// Shown, and nothing else: runtimes have no network.
    pub egress: Egress,
    /// Shown, and nothing else: runtimes are not suspended.
    pub idle_policy: IdlePolicy,
    /// Shown, and nothing else: nothing is captured.
    pub llm_tool_io_capture_enabled: bool,
    /// Shown, and nothing else: nothing is compressed.
    pub llm_token_saving_policy: TokenSaving,
}

impl Settings {
    /// The limits of everything that runs in the runtime at the same time.
    pub fn resources(&self) -> RuntimeResources {
        RuntimeResources {
            memory_bytes: self.limit_memory_mib * MIB,
            pids: self.pids,
            cpu_millis: u64::from(self.vcpus) * 1000,
        }
    }
}

/// What of a runtime changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What it is doing.
    pub status: Status,
    /// When that last changed, RFC 3339.
    pub updated_at: String,
}

/// A runtime.
#[derive(Debug)]
pub struct Runtime {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name, unique in the tenant.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// What its creator settled.
    pub settings: Settings,
    state: watch::Sender<State>,
    paused: watch::Sender<bool>,
}

impl Runtime {
    pub(super) fn new(
        id: Uuid,
        tenant: TenantId,
        name: String,
        settings: Settings,
        created_at: String,
        state: State,
    ) -> Self {
        Self {
            id,
            tenant,
            name,
            created_at,
            settings,
            paused: watch::Sender::new(state.status == Status::Paused),
            state: watch::Sender::new(state),
        }
    }

    /// The runtime of a stored row; none when its status is no word that is known.
    pub(super) fn from_row(row: RuntimeRow) -> Result<Self, serde_json::Error> {
        let settings = serde_json::from_str(&row.settings)?;
        let status = Status::parse(&row.status).unwrap_or(Status::Error);
        let state = State {
            status,
            updated_at: row.updated_at,
        };
        Ok(Self::new(
            row.id,
            TenantId(row.tenant),
            row.name,
            settings,
            row.created_at,
            state,
        ))
    }

    /// The row that stores it.
    pub(super) fn to_row(&self) -> Result<RuntimeRow, serde_json::Error> {
        let state = self.state();
        Ok(RuntimeRow {
            id: self.id,
            tenant: self.tenant.0,
            name: self.name.clone(),
            status: state.status.as_str().into(),
            settings: serde_json::to_string(&self.settings)?,
            created_at: self.created_at.clone(),
            updated_at: state.updated_at,
        })
    }

    /// What it is doing now, and since when.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// What it is doing now.
    pub fn status(&self) -> Status {
        self.state.borrow().status
    }

    pub(super) fn set(&self, status: Status, updated_at: String) {
        self.state.send_replace(State { status, updated_at });
        self.tell_paused();
    }

    fn tell_paused(&self) {
        self.paused.send_if_modified(|paused| {
            // Looked up in here, so that of two changes at once the later one is told.
            let now = self.status() == Status::Paused;
            std::mem::replace(paused, now) != now
        });
    }

    /// Moves to `to` if the status is `from`; tells the status that was found otherwise.
    pub(super) fn exchange(
        &self,
        from: &[Status],
        to: Status,
        updated_at: String,
    ) -> Result<(), Status> {
        let mut found = Ok(());
        self.state.send_if_modified(|state| {
            let fits = from.contains(&state.status);
            match fits {
                true => {
                    *state = State {
                        status: to,
                        updated_at,
                    }
                }
                false => found = Err(state.status),
            }
            fits
        });
        if found.is_ok() {
            self.tell_paused();
        }
        found
    }

    /// Whether its commands stand still, to be watched: their time does too.
    pub fn paused(&self) -> watch::Receiver<bool> {
        self.paused.subscribe()
    }

    /// Waits until it is no longer being created, and tells what it is then.
    pub async fn created(&self) -> Status {
        self.until(|status| status != Status::Creating).await
    }

    /// Waits until commands may no longer run in it.
    pub async fn stopped_running(&self) -> Status {
        self.until(|status| status != Status::Running).await
    }

    async fn until(&self, reached: impl Fn(Status) -> bool) -> Status {
        let mut watch = self.state.subscribe();
        // The sender lives in `self`, so the wait can't end for want of it.
        match watch.wait_for(|state| reached(state.status)).await {
            Ok(state) => state.status,
            Err(_) => self.status(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_survives_its_word() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("active"), Some(Status::Running));
        assert_eq!(Status::parse("stopped"), Some(Status::Shutdown));
        assert_eq!(Status::parse("Running"), None);
    }
}
