//! The execs that run now, for those who did not start them: to cancel one, or to follow its output.

use super::outputs::Stream;
use super::spool::Progress;
use crate::tenant::TenantId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;
use uuid::Uuid;

/// Progress of stdout and stderr, where they go to files.
pub(super) type Spools = [Option<watch::Receiver<Progress>>; 2];

/// See the module.
#[derive(Debug, Default, Clone)]
pub struct Live(Arc<Mutex<HashMap<Uuid, Entry>>>);

#[derive(Debug)]
struct Entry {
    tenant: TenantId,
    spools: Spools,
    streamed: bool,
    stop: watch::Sender<bool>,
}

/// An exec that runs, as somebody else sees it.
#[derive(Debug)]
pub struct LiveExec {
    /// What is in the file so far, where the asked-for output goes to one.
    pub progress: Option<watch::Receiver<Progress>>,
    /// Its output goes to its client and is kept nowhere.
    pub streamed: bool,
    stop: watch::Sender<bool>,
}

impl Live {
    /// Lists an exec until the guard is dropped.
    pub(super) fn list(
        &self,
        id: Uuid,
        tenant: TenantId,
        spools: Spools,
        streamed: bool,
    ) -> Listed {
        let stop = watch::Sender::new(false);
        let stopped = stop.subscribe();
        let entry = Entry {
            tenant,
            spools,
            streamed,
            stop,
        };
        self.entries().insert(id, entry);
        Listed {
            live: self.clone(),
            id,
            stopped,
        }
    }

    /// The tenant's exec, if it runs now.
    pub fn get(&self, tenant: TenantId, id: Uuid, stream: Stream) -> Option<LiveExec> {
        let entries = self.entries();
        let entry = entries.get(&id).filter(|entry| entry.tenant == tenant)?;
        Some(LiveExec {
            progress: entry.spools[stream as usize].clone(),
            streamed: entry.streamed,
            stop: entry.stop.clone(),
        })
    }

    /// How far both outputs of an exec have come, where they go to files.
    pub(super) fn progress(&self, id: Uuid) -> [Option<Progress>; 2] {
        let seen = |spool: &Option<watch::Receiver<Progress>>| {
            spool.as_ref().map(|progress| *progress.borrow())
        };
        self.entries()
            .get(&id)
            .map_or([None; 2], |entry| entry.spools.each_ref().map(seen))
    }

    // Single calls on the map can't leave it half changed.
    fn entries(&self) -> MutexGuard<'_, HashMap<Uuid, Entry>> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl LiveExec {
    /// Kills it; its end is still to be waited for.
    pub fn cancel(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until it has ended and its record says so.
    pub async fn ended(&self) {
        self.stop.closed().await;
    }
}

/// Keeps an exec listed.
#[derive(Debug)]
pub(super) struct Listed {
    live: Live,
    id: Uuid,
    stopped: watch::Receiver<bool>,
}

impl Listed {
    /// Turns true when somebody cancels the exec.
    pub(super) fn stopped(&self) -> watch::Receiver<bool> {
        self.stopped.clone()
    }

    pub(super) fn progress(&self) -> [Option<Progress>; 2] {
        self.live.progress(self.id)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.live.entries().remove(&self.id);
    }
}
