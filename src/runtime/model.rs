//! A runtime in memory: what its creator settled, and its status, which others can wait for.

use super::error::RuntimeError;
use super::settings::Settings;
use super::status::Status;
use crate::resources::RuntimeResources;
use crate::store::RuntimeRow;
use crate::tenant::TenantId;
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard, RwLock, RwLockReadGuard, watch};
use uuid::Uuid;

/// What of a runtime changes while others watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What it is doing.
    pub status: Status,
    /// When anything of it last changed, RFC 3339.
    pub updated_at: String,
    /// Its disk is being copied, and its processes stand still.
    pub copying: bool,
}

impl State {
    /// Whether its processes stand still.
    fn still(&self) -> bool {
        self.copying || self.status == Status::Paused
    }

    /// Whether what runs in it may live on.
    fn alive(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }
}

/// A runtime as it is settled at one moment. A change of name or settings makes another value of the same runtime; its
/// state is shared by all of them.
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
    shared: Arc<Shared>,
}

/// What all values of one runtime share.
#[derive(Debug)]
struct Shared {
    state: watch::Sender<State>,
    /// Follows the state.
    still: watch::Sender<bool>,
    /// Held by the one operation that changes the runtime.
    turn: Arc<Mutex<()>>,
    /// The limits of its group. Read by whoever starts a command, written by whoever changes what may be started.
    gate: RwLock<RuntimeResources>,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
        // Looked up in there, so that of two changes at once the later one is told.
        self.still.send_if_modified(|still| {
            let now = self.state.borrow().still();
            std::mem::replace(still, now) != now
        });
    }
}

/// The right to change a runtime; one at a time has it.
pub(super) type Turn = OwnedMutexGuard<()>;

/// Holds a runtime's status still while a command, or an operation on a file, is handed to the warden: whoever changes the
/// status afterwards finds it there.
#[derive(Debug)]
pub struct Starting<'a>(RwLockReadGuard<'a, RuntimeResources>);

impl Starting<'_> {
    /// The limits of the runtime's group, as they are now.
    pub fn resources(&self) -> RuntimeResources {
        *self.0
    }
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
        let shared = Arc::new(Shared {
            still: watch::Sender::new(state.still()),
            state: watch::Sender::new(state),
            turn: Arc::default(),
            gate: RwLock::new(settings.resources()),
        });
        Self {
            id,
            tenant,
            name,
            created_at,
            settings,
            shared,
        }
    }

    /// The same runtime under another name and with other settings.
    pub(super) fn changed(&self, name: String, settings: Settings) -> Self {
        Self {
            id: self.id,
            tenant: self.tenant,
            name,
            created_at: self.created_at.clone(),
            settings,
            shared: self.shared.clone(),
        }
    }

    /// The runtime of a stored row; one whose status is no word that is known is an error.
    pub(super) fn from_row(row: RuntimeRow) -> Result<Self, serde_json::Error> {
        let settings = serde_json::from_str(&row.settings)?;
        let status = Status::parse(&row.status).unwrap_or(Status::Error);
        let state = State {
            status,
            updated_at: row.updated_at,
            copying: false,
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
    pub(super) fn to_row(&self) -> Result<RuntimeRow, RuntimeError> {
        let corrupt = |source| RuntimeError::Corrupt {
            id: self.id,
            source,
        };
        let state = self.state();
        Ok(RuntimeRow {
            id: self.id,
            tenant: self.tenant.0,
            name: self.name.clone(),
            status: state.status.as_str().into(),
            settings: serde_json::to_string(&self.settings).map_err(corrupt)?,
            created_at: self.created_at.clone(),
            updated_at: state.updated_at,
        })
    }

    /// What it is doing now, and since when.
    pub fn state(&self) -> State {
        self.shared.state.borrow().clone()
    }

    /// What it is doing now.
    pub fn status(&self) -> Status {
        self.shared.state.borrow().status
    }

    /// Waits for the right to change it.
    pub(super) async fn turn(&self) -> Turn {
        self.shared.turn.clone().lock_owned().await
    }

    /// Takes the right to change it, if nobody has it.
    pub(super) fn try_turn(&self) -> Option<Turn> {
        self.shared.turn.clone().try_lock_owned().ok()
    }

    /// Changes the status when no command is being started. For the holder of its [`Turn`].
    pub(super) async fn set(&self, status: Status, updated_at: String) {
        let _gate = self.shared.gate.write().await;
        self.shared.change(|state| {
            state.status = status;
            state.updated_at = updated_at;
        });
    }

    /// Changes the limits of the group for every command that is started from now on. For the holder of its [`Turn`].
    pub(super) async fn set_resources(&self, resources: RuntimeResources) {
        *self.shared.gate.write().await = resources;
    }

    /// Notes that something of it was changed. For the holder of its [`Turn`].
    pub(super) fn touch(&self, updated_at: String) {
        self.shared.change(|state| state.updated_at = updated_at);
    }

    /// Its disk is copied for as long as the returned value lives.
    pub(crate) fn copying(&self) -> Copying {
        self.shared.change(|state| state.copying = true);
        Copying(self.shared.clone())
    }

    /// Whether its processes stand still, to be watched: their time does too.
    pub fn paused(&self) -> watch::Receiver<bool> {
        self.shared.still.subscribe()
    }

    /// The right to start a command, as long as it is kept.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`].
    pub async fn starting(&self) -> Result<Starting<'_>, RuntimeError> {
        self.starting_in(Status::COMMANDS).await
    }

    /// As [`Runtime::starting`], for an operation on a file.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`].
    pub async fn starting_on_file(&self) -> Result<Starting<'_>, RuntimeError> {
        self.starting_in(Status::FILES).await
    }

    async fn starting_in(&self, allowed: &[Status]) -> Result<Starting<'_>, RuntimeError> {
        let gate = self.shared.gate.read().await;
        self.check(self.status(), allowed).map(|()| Starting(gate))
    }

    /// Whether its status is one of those in which something can be started.
    pub(super) fn check(&self, status: Status, allowed: &[Status]) -> Result<(), RuntimeError> {
        match allowed.contains(&status) {
            true => Ok(()),
            false => Err(RuntimeError::NotRunning {
                name: self.name.clone(),
                status: status.as_str(),
            }),
        }
    }

    /// Waits until it is no longer being created, and tells what it is then.
    pub async fn created(&self) -> Status {
        self.until(|state| state.status != Status::Creating)
            .await
            .status
    }

    /// Waits until what runs in it may not live on: it is being stopped or deleted. A pause is no such end.
    pub async fn stopped_running(&self) -> Status {
        self.until(|state| !state.alive()).await.status
    }

    /// Waits until it is paused.
    pub async fn until_paused(&self) {
        self.until(|state| state.status == Status::Paused).await;
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) -> State {
        let mut watch = self.shared.state.subscribe();
        // The sender lives in `self`, so the wait can't end for want of it.
        match watch.wait_for(|state| reached(state)).await {
            Ok(state) => state.clone(),
            Err(_) => self.state(),
        }
    }
}

/// See [`Runtime::copying`].
#[derive(Debug)]
pub(crate) struct Copying(Arc<Shared>);

impl Drop for Copying {
    fn drop(&mut self) {
        self.0.change(|state| state.copying = false);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::request::Base;
    use super::*;
    use std::time::Duration;

    pub(crate) fn runtime(status: Status) -> Arc<Runtime> {
        let host = super::super::HostSizes {
            memory_mib: 8192,
            max_vcpus: 64,
            disk: std::env::temp_dir(),
        };
        let settings = super::super::CreateRequest::default()
            .validate(&super::super::test_profiles(), &host, Base::Nothing)
            .unwrap()
            .settings;
        let state = State {
            status,
            updated_at: String::new(),
            copying: false,
        };
        let (id, tenant) = (Uuid::now_v7(), TenantId(Uuid::now_v7()));
        Arc::new(Runtime::new(
            id,
            tenant,
            "a".into(),
            settings,
            String::new(),
            state,
        ))
    }

    #[tokio::test]
    async fn it_stands_still_while_it_is_paused_or_copied() {
        let runtime = runtime(Status::Running);
        let still = runtime.paused();
        assert!(!*still.borrow());
        let copying = runtime.copying();
        assert!(*still.borrow());
        runtime.set(Status::Paused, String::new()).await;
        drop(copying);
        assert!(*still.borrow(), "the copy's end ended the pause");
        runtime.set(Status::Running, String::new()).await;
        assert!(!*still.borrow());
    }

    #[tokio::test]
    async fn a_pause_ends_nothing_and_a_stop_does() {
        let runtime = runtime(Status::Running);
        let ended = |runtime: Arc<Runtime>| async move {
            let wait = runtime.stopped_running();
            tokio::time::timeout(Duration::from_millis(20), wait)
                .await
                .is_ok()
        };
        assert!(!ended(runtime.clone()).await);
        runtime.set(Status::Paused, String::new()).await;
        assert!(!ended(runtime.clone()).await);
        runtime.set(Status::Shutdown, String::new()).await;
        assert!(ended(runtime.clone()).await);
    }

    #[tokio::test]
    async fn the_status_waits_for_a_command_that_is_being_started() {
        let runtime = runtime(Status::Running);
        let starting = runtime.starting().await.unwrap();
        let stop = runtime.set(Status::Shutdown, String::new());
        let stop = tokio::time::timeout(Duration::from_millis(20), stop).await;
        assert!(
            stop.is_err(),
            "the status changed while a command was started"
        );
        drop(starting);
        runtime.set(Status::Shutdown, String::new()).await;
        let refused = runtime.starting().await.unwrap_err().to_string();
        assert_eq!(refused, "runtime 'a' is not running (status: shutdown)");
        assert!(
            runtime.starting_on_file().await.is_ok(),
            "its disk is there"
        );
        runtime.set(Status::Paused, String::new()).await;
        let refused = runtime.starting_on_file().await.unwrap_err().to_string();
        assert_eq!(refused, "runtime 'a' is not running (status: paused)");
    }
}
