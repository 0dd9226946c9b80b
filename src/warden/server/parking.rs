//! Cells that are opened before they are asked for: most of what an exec costs is done ahead of it. A parked cell is one like
//! all others, as far as it gets without an order: its payload has given up every right and waits. It is used once, or ended.
//!
//! Only for runtimes that were used a moment ago, a few for each and a bounded number in all, and none while the machine has
//! enough to do with commands: then one opened ahead would only take its time from them. An exec that finds none, or none that
//! fits it, opens its own.

use crate::cell::report::{FromCell, MAX_REPORT, Stdio};
use crate::resources::{CellResources, MAX_PARKED};
use crate::sys::packet;
use crate::warden::protocol::CellRequest;
use crate::warden::server::Warden;
use crate::warden::server::catalogue::State;
use crate::warden::server::opening::{Opened, Shape, kill};
use std::collections::{HashMap, HashSet, VecDeque};
use std::error::Error;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long one waits for its exec.
const PATIENCE: Duration = Duration::from_secs(30);
/// One is opened when nothing was heard for so long: it takes the warden most of a millisecond, for which whoever begins or has
/// ended would have to wait, and it is in vain for a runtime that is used once. A busy server has no such moments.
const QUIET: Duration = Duration::from_millis(5);
/// Where a runtime's execs follow each other within this, one is opened at once.
const HURRY: Duration = Duration::from_millis(20);
/// Until one that is ended has probably gone.
const DYING: Duration = Duration::from_millis(10);

/// A cell that waits.
#[derive(Debug)]
struct Parked {
    runtime: Uuid,
    hostname: String,
    resources: CellResources,
    uid_base: u32,
    opened: Opened,
    since: Instant,
}

/// What the next exec of a runtime will probably be like: as the last one.
#[derive(Debug)]
struct Wanted {
    hostname: String,
    resources: CellResources,
    /// How many are to wait. One more for each exec that found none, one less for each that nobody came for.
    count: usize,
    /// When the last exec came.
    last: Instant,
    /// That was within [`HURRY`] of the one before.
    hurry: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Parking {
    cells: HashMap<u32, Parked>,
    wanted: HashMap<Uuid, Wanted>,
    /// Runtimes that may have fewer than that, those in a hurry first.
    short: VecDeque<Uuid>,
    paused_until: Option<Instant>,
    /// In all runtimes together. Each holds two processes, a network namespace and four descriptors.
    most: usize,
}

/// One that an exec gets.
pub(super) struct Taken {
    /// Its slot, which becomes that of the exec.
    pub slot: u32,
    pub opened: Opened,
}

impl Parking {
    /// One for so many cells.
    pub fn new(most: u32) -> Self {
        Self {
            most: usize::try_from(most).unwrap_or(usize::MAX),
            ..Self::default()
        }
    }

    /// When to look for those that nobody came for, if there are any.
    pub fn next_look(&self) -> Option<Duration> {
        (!self.cells.is_empty()).then_some(PATIENCE / 8)
    }

    /// Whether a slot is that of a parked cell.
    pub fn has(&self, slot: u32) -> bool {
        self.cells.contains_key(&slot)
    }

    /// Ends one; its end is heard of as of any other's.
    pub fn kill(&self, slot: u32) {
        if let Some(parked) = self.cells.get(&slot) {
            kill(&parked.opened);
        }
    }

    /// Those that were killed before and may live on.
    pub fn kill_again(&self, slots: &HashSet<u32>) {
        let parked = slots.iter().filter_map(|slot| self.cells.get(slot));
        let killed = parked.filter(|parked| parked.opened.killed.get());
        killed.for_each(|parked| kill(&parked.opened));
    }

    /// Ends all.
    pub fn kill_all(&self) {
        self.cells.values().for_each(|parked| kill(&parked.opened));
    }

    /// Wants none of a runtime, until its next exec.
    pub fn forget(&mut self, id: Uuid) {
        self.wanted.remove(&id);
        self.short.retain(|short| *short != id);
    }

    fn of(&self, id: Uuid) -> impl Iterator<Item = (u32, &Parked)> {
        let cells = self.cells.iter();
        cells.filter_map(move |(slot, parked)| {
            let lives = parked.runtime == id && !parked.opened.killed.get();
            lives.then_some((*slot, parked))
        })
    }
}

impl Warden {
    /// Gives the order to a cell that was parked for a request like this, if there is one: of several to the oldest, which is
    /// ready first. One that can't take it any more has just died.
    pub(super) fn take_parked(&mut self, request: &CellRequest, stdio: &Stdio) -> Option<Taken> {
        let parking = &mut self.cells.parking;
        if request.terminal.is_some() {
            return None;
        }
        loop {
            let fits = |parked: &Parked| {
                parked.hostname == request.hostname && parked.resources == request.cell_resources
            };
            let found = parking
                .of(request.runtime)
                .filter(|(_, parked)| fits(parked));
            let (slot, parked) = found
                .min_by_key(|(_, parked)| (parked.opened.mapped.get().is_none(), parked.since))?;
            let order = parked.opened.order.as_ref();
            if order.is_some_and(|order| stdio.send(order.as_fd()).is_ok()) {
                let Parked { mut opened, .. } = parking.cells.remove(&slot)?;
                opened.order = None;
                return Some(Taken { slot, opened });
            }
            kill(&parked.opened);
        }
    }

    /// Remembers what the next exec of a runtime may be like, and whether this one had to open its own cell.
    pub(super) fn want_parked(&mut self, request: &CellRequest, missed: bool) {
        if request.terminal.is_some() || self.cells.parking.most == 0 {
            return;
        }
        let now = Instant::now();
        let parking = &mut self.cells.parking;
        let known = parking.wanted.contains_key(&request.runtime);
        let wanted = parking.wanted.entry(request.runtime);
        let wanted = wanted.or_insert_with(|| Wanted {
            hostname: String::new(),
            resources: request.cell_resources,
            count: 0,
            last: now,
            hurry: false,
        });
        wanted.hurry = known && now.duration_since(wanted.last) < HURRY;
        wanted.last = now;
        wanted.hostname.clone_from(&request.hostname);
        wanted.resources = request.cell_resources;
        wanted.count = (wanted.count + usize::from(missed)).clamp(1, MAX_PARKED);
        let short = &mut parking.short;
        if wanted.hurry {
            short.retain(|short| *short != request.runtime);
            short.push_front(request.runtime);
        } else if !short.contains(&request.runtime) {
            short.push_back(request.runtime);
        }
    }

    /// After how long without an event [`Warden::park`] has something to do, if it has.
    pub(super) fn may_park(&self) -> Option<Duration> {
        let parking = &self.cells.parking;
        let first = parking.wanted.get(parking.short.front()?);
        let hurry = first.is_some_and(|wanted| wanted.hurry);
        let wait = match parking.paused_until {
            Some(until) => until.saturating_duration_since(Instant::now()).max(QUIET),
            None if hurry => Duration::ZERO,
            None => QUIET,
        };
        (self.cells.running() < self.busy_from()).then_some(wait)
    }

    /// Opens one of those that are wanted, when the loop has nothing else to do.
    pub(super) fn park(&mut self, now: Instant) {
        self.cells
            .parking
            .paused_until
            .take_if(|until| *until <= now);
        if self.may_park().is_none() || self.cells.parking.paused_until.is_some() {
            return;
        }
        let parking = &mut self.cells.parking;
        let Some(id) = parking.short.front().copied() else {
            return;
        };
        let wanted = parking.wanted.get(&id).map_or(0, |wanted| wanted.count);
        if parking.of(id).count() >= wanted {
            parking.short.pop_front();
        } else if self.make_room(now) {
            match self.park_one(id, now) {
                Ok(true) => {}
                Ok(false) => self.cells.parking.forget(id),
                // The runtime's own limits may be the reason. An exec that needs a cell tells what is wrong.
                Err(error) => {
                    tracing::debug!(%id, error, "no cell is parked");
                    self.cells.parking.forget(id);
                }
            }
        }
    }

    /// So many commands keep the machine busy.
    fn busy_from(&self) -> usize {
        usize::try_from(self.host.1)
            .unwrap_or(usize::MAX)
            .saturating_mul(2)
    }

    /// False where the runtime is not for that now.
    fn park_one(&mut self, id: Uuid, now: Instant) -> Result<bool, Box<dyn Error>> {
        let wanted = self.cells.parking.wanted.get(&id);
        let (Some(runtime), Some(wanted)) = (self.catalogue.get(id), wanted) else {
            return Ok(false);
        };
        let mounted =
            matches!(&runtime.state, State::Mounted(mounted) if mounted.resources.is_some());
        if !mounted || !runtime.may_open() {
            return Ok(false);
        }
        let uid_base = runtime.record.uid_base;
        let shape = Shape {
            resources: None,
            cell_resources: wanted.resources,
            hostname: wanted.hostname.clone(),
            pts: None,
        };
        let slot = self.cells.new_slot();
        let opened = self.open(slot, id, &shape)?;
        let parked = Parked {
            runtime: id,
            hostname: shape.hostname,
            resources: shape.cell_resources,
            uid_base,
            opened,
            since: now,
        };
        self.cells.parking.cells.insert(slot, parked);
        if let Some(runtime) = self.catalogue.get(id) {
            runtime.cells.insert(slot);
        }
        Ok(true)
    }

    /// Whether there is room for one more. Where there is none, the one that has waited longest ends, and there will be.
    fn make_room(&mut self, now: Instant) -> bool {
        let parking = &mut self.cells.parking;
        if parking.cells.len() < parking.most {
            return true;
        }
        parking.paused_until = Some(now + DYING);
        let mut ending = parking
            .cells
            .values()
            .filter(|parked| parked.opened.killed.get());
        if ending.next().is_none() {
            // Those of a runtime that stands still can't end now.
            let moves = |parked: &&Parked| {
                let runtime = self.catalogue.get(parked.runtime);
                runtime.is_none_or(|runtime| runtime.may_open())
            };
            let cells = parking.cells.values().filter(moves);
            let oldest = cells.min_by_key(|parked| parked.since);
            oldest.into_iter().for_each(|parked| kill(&parked.opened));
        }
        false
    }

    /// Hears of a parked cell that it is as far as it gets by itself, or why it is not.
    pub(super) fn parked_spoke(&mut self, slot: u32) {
        let mut buffer = [0; MAX_REPORT];
        let Some(parked) = self.cells.parking.cells.get_mut(&slot) else {
            return;
        };
        let received = packet::receive(parked.opened.control.as_fd(), &mut buffer);
        let failed = match received {
            Ok(Some(packet)) => match serde_json::from_slice(&buffer[..packet.length]) {
                Ok(FromCell::UserNamespaceMade) => {
                    let mapped = parked.opened.map(parked.uid_base);
                    mapped.err().map(|error| error.to_string())
                }
                Ok(FromCell::Failed(step, _)) => Some(step),
                Ok(FromCell::Refused(_) | FromCell::End(..) | FromCell::Namespaces) | Err(_) => {
                    Some("it said something else".to_owned())
                }
            },
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::ENOMEM) => None,
            Ok(None) | Err(_) => {
                // Its end; the pidfd tells the rest.
                let _ = self.epoll.delete(&parked.opened.control);
                None
            }
        };
        if let Some(step) = failed {
            let (id, killed) = (parked.runtime, parked.opened.killed.get());
            kill(&parked.opened);
            if !killed {
                tracing::debug!(%id, step, "a cell could not be parked");
                self.cells.parking.forget(id);
            }
        }
    }

    /// Every process of a parked cell is gone.
    pub(super) fn parked_is_gone(&mut self, slot: u32) {
        let Some(parked) = self.cells.parking.cells.remove(&slot) else {
            return;
        };
        if !parked.opened.killed.get() {
            // It would be so with the next one: something else has taken the runtime's memory.
            self.cells.parking.forget(parked.runtime);
        }
        self.bury(parked.opened);
        if let Some(runtime) = self.catalogue.get(parked.runtime) {
            runtime.cells.remove(&slot);
        }
        self.cells.graves.dig();
        self.finish_closing(parked.runtime);
    }

    /// Ends those that nobody came for.
    pub(super) fn evict_parked(&mut self, now: Instant) {
        let parking = &mut self.cells.parking;
        for parked in parking.cells.values() {
            let old = now.duration_since(parked.since) >= PATIENCE;
            // Those of a runtime that stands still do so too, and end with it or when it goes on.
            let runtime = self.catalogue.get(parked.runtime);
            let moves = runtime.is_none_or(|runtime| runtime.may_open());
            if old && moves && !parked.opened.killed.get() {
                kill(&parked.opened);
                if let Some(wanted) = parking.wanted.get_mut(&parked.runtime) {
                    wanted.count = wanted.count.saturating_sub(1);
                }
            }
        }
        parking.wanted.retain(|_, wanted| wanted.count > 0);
    }
}
