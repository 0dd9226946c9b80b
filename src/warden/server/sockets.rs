//! Ends cells whose sockets hold more memory than their runtime may have: on cgroup v2 the kernel lets them. No event tells of
//! that on all kernels, so it is looked at now and then.

use crate::warden::server::Warden;
use crate::warden::server::catalogue::State;
use crate::warden::server::opening::kill;
use std::time::{Duration, Instant};

/// How often.
const LOOK: Duration = Duration::from_secs(1);

impl Warden {
    /// When to look, if ever.
    pub(super) fn next_look_at_sockets(&self) -> Option<Duration> {
        let needed = self.cgroups.charges_sockets_late() && self.cells.running() > 0;
        needed.then_some(LOOK)
    }

    /// Looks, if it is time: of a runtime that is beyond its limit the cell whose sockets hold most ends, as out of memory. Where
    /// that was not enough, the next one does a moment later.
    pub(super) fn look_at_sockets(&mut self, now: Instant) {
        let early = self.cells.sockets_after.is_some_and(|due| now < due);
        if self.next_look_at_sockets().is_none() || early {
            return;
        }
        self.cells.sockets_after = Some(now + LOOK);
        for (id, runtime) in self.catalogue.all() {
            let State::Mounted(mounted) = &runtime.state else {
                continue;
            };
            if runtime.cells.is_empty() || !mounted.group.sockets_beyond_limit() {
                continue;
            }
            let cells = runtime.cells.iter();
            let opened = cells.filter_map(|slot| self.cells.slots.get(slot)?.opened.as_ref());
            let living = opened.filter(|opened| !opened.killed.get());
            if let Some(most) = living.max_by_key(|opened| opened.group.socket_bytes()) {
                tracing::info!(%id, group = ?most.group.directories().first(), "sockets hold more than the memory limit");
                most.out_of_memory.set(true);
                kill(most);
            }
        }
    }
}
