//! The life of cells in the warden: accepted (pipes made), opened, mapped and running (the api has its ends), gone,
//! buried. A cell is gone when its init is: the kernel ends an init only after every other process of its pid namespace.

use crate::cell::error::{CellError, Step};
use crate::cell::report::{FromCell, MAX_REPORT, SignalSet, Stdio};
use crate::sys::{self, packet};
use crate::warden::protocol::{Beginning, CellEnd, CellRequest, Failure, Reply};
use crate::warden::server::Warden;
use crate::warden::server::graves::Graves;
use crate::warden::server::opening::{Opened, kill};
use crate::warden::server::parking::Parking;
use crate::warden::server::signals::pass_signals;
use nix::errno::Errno;
use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// An accepted exec, from its pipes to its end.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) request: CellRequest,
    /// First host uid of the runtime's range.
    pub(super) uid_base: u32,
    /// Until they are handed to the cell.
    pub(super) stdio: Option<Stdio>,
    /// What becomes the cell's `/dev/pts`, where it has a terminal; until it is opened.
    pub(super) pts: Option<OwnedFd>,
    /// Signals that the cell was not sent yet.
    pub(super) signals: SignalSet,
    /// The api's ends of the pipes, until it is told that the command runs.
    pub(super) ends: Option<Vec<OwnedFd>>,
    /// Why it was never opened.
    pub(super) failure: Option<Failure>,
    /// None while the runtime is being mounted, or stands still.
    pub(super) opened: Option<Opened>,
    /// The first report of its end; once it is gone, what else is known of that.
    pub(super) end: Option<CellEnd>,
    /// What came with it, see [`Cells::recent`].
    pub(super) namespaces: Vec<OwnedFd>,
    /// When an OOM notification came; the count may follow a moment later.
    pub(super) oom_suspected: Option<Instant>,
    pub(super) cpu_exceeded: bool,
    /// The api knows its end.
    pub(super) told: bool,
    /// When the request came, when the order was given and when the command began, in [`sys::monotonic_us`].
    pub(super) accepted: u64,
    pub(super) ordered: u64,
    pub(super) began: u64,
    /// Where the time went, when it is over.
    pub(super) beginning: Beginning,
}

impl Cell {
    /// It is in a cell that was parked, which has taken its order.
    pub(super) fn has_order(&mut self, opened: Opened) {
        self.stdio = None;
        self.ordered = sys::monotonic_us();
        self.opened = Some(opened);
    }

    /// Whether its init was told to start the command.
    pub(super) fn was_started(&self) -> bool {
        self.opened
            .as_ref()
            .is_some_and(|opened| opened.mapped.get().is_some())
    }
}

/// All cells.
#[derive(Debug, Default)]
pub struct Cells {
    pub(super) slots: HashMap<u32, Cell>,
    pub(super) by_seq: HashMap<u64, u32>,
    next: u32,
    pub(super) graves: Graves,
    pub(super) parking: Parking,
    /// Namespaces of the cell that ended last, and when. Their ids are inode numbers, which the kernel gives out again
    /// at once: held for [`RECENT`], the next cell's differ, and whoever compares two execs sees that nothing is shared.
    /// Not held after a cell that used much memory: what it left in its tmpfs and shared memory is charged to its runtime
    /// until they are let go. Beside them the runtime, whose disk they may hold.
    pub(super) recent: Option<(Instant, Uuid, Vec<OwnedFd>)>,
    /// When [`Warden::look_at_sockets`] is next due, if it was done before.
    pub(super) sockets_after: Option<Instant>,
}

/// How long after an OOM notification a kill is counted at the latest.
const OOM_WAIT: Duration = Duration::from_secs(1);
const RECENT: Duration = Duration::from_secs(2);
/// How often it is looked for what nobody has used for long.
const SWEEP: Duration = Duration::from_secs(1);

impl Cells {
    /// None yet.
    pub fn new(parking: Parking) -> Self {
        Self {
            parking,
            ..Self::default()
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many have been opened for their command.
    pub fn running(&self) -> usize {
        self.slots
            .values()
            .filter(|cell| cell.opened.is_some())
            .count()
    }

    /// A number that no cell has had for a long time.
    pub fn new_slot(&mut self) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    /// Takes an exec in.
    pub(super) fn add(
        &mut self,
        slot: u32,
        request: CellRequest,
        uid_base: u32,
        stdio: Stdio,
        pts: Option<OwnedFd>,
    ) {
        self.by_seq.insert(request.seq, slot);
        let cell = Cell {
            request,
            uid_base,
            stdio: Some(stdio),
            pts,
            signals: SignalSet::default(),
            ends: None,
            failure: None,
            opened: None,
            end: None,
            namespaces: Vec::new(),
            oom_suspected: None,
            cpu_exceeded: false,
            told: false,
            accepted: sys::monotonic_us(),
            ordered: 0,
            began: 0,
            beginning: Beginning::default(),
        };
        self.slots.insert(slot, cell);
    }

    /// The exec in a slot.
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Cell> {
        self.slots.get_mut(&slot)
    }

    /// The slot of an exec.
    pub fn by_seq(&self, seq: u64) -> Option<u32> {
        self.by_seq.get(&seq).copied()
    }

    /// Whether the loop must look at something at intervals.
    pub fn need_watching(&self) -> bool {
        let watched = |cell: &Cell| {
            let limited = cell.request.cell_resources.cpu_secs.is_some();
            limited
                || cell.oom_suspected.is_some()
                || (cell.was_started() && !cell.signals.is_empty())
        };
        !self.graves.is_empty() || self.slots.values().any(watched)
    }

    /// When to let go what is held of the last cell.
    pub fn next_letting_go(&self) -> Option<Duration> {
        let (since, ..) = self.recent.as_ref()?;
        // Not a part of a millisecond before, of which the loop's wait knows nothing.
        Some(RECENT.saturating_sub(since.elapsed()) + Duration::from_millis(1))
    }

    /// Kills every process of every cell.
    pub fn kill_all(&self) {
        self.slots
            .values()
            .filter_map(|cell| cell.opened.as_ref())
            .for_each(kill);
        self.parking.kill_all();
    }

    /// Kills those of some cells once more that were killed before: with version 1, one that is frozen before all of it has
    /// died lives on.
    pub fn kill_again(&self, slots: &HashSet<u32>) {
        let cells = slots.iter().filter_map(|slot| self.slots.get(slot));
        let opened = cells.filter_map(|cell| cell.opened.as_ref());
        opened.filter(|opened| opened.killed.get()).for_each(kill);
        self.parking.kill_again(slots);
    }

    /// Takes what is held of a runtime's last cell.
    pub fn take_recent(&mut self, id: Uuid) -> Vec<OwnedFd> {
        let recent = self.recent.take_if(|(_, of, _)| *of == id);
        recent.map_or_else(Vec::new, |(_, _, held)| held)
    }
}

impl Warden {
    /// Hears what a cell has to say.
    pub(super) fn cell_spoke(&mut self, slot: u32) {
        if self.cells.parking.has(slot) {
            return self.parked_spoke(slot);
        }
        let mut buffer = [0; MAX_REPORT];
        let Some(cell) = self.cells.slots.get_mut(&slot) else {
            return;
        };
        let Some(opened) = &cell.opened else { return };
        let (mut mapped, mut ended) = (false, false);
        loop {
            let packet = match packet::receive(opened.control.as_fd(), &mut buffer) {
                Err(Errno::EAGAIN | Errno::ENOMEM) => break,
                Ok(Some(packet)) => packet,
                Ok(None) | Err(_) => {
                    // Its end; the pidfd tells the rest.
                    let _ = self.epoll.delete(&opened.control);
                    break;
                }
            };
            match serde_json::from_slice(&buffer[..packet.length]) {
                Ok(FromCell::UserNamespaceMade) => match opened.map(cell.uid_base) {
                    Ok(()) => mapped = true,
                    Err(error) => could_not_start(opened, &mut cell.end, &error),
                },
                Ok(FromCell::Refused(end)) => {
                    cell.end.get_or_insert(end.seen(opened.killed.get()));
                }
                Ok(FromCell::End(end, began)) => {
                    cell.began = began;
                    cell.end.get_or_insert(end.seen(opened.killed.get()));
                    ended = true;
                    // Whoever waits for it comes before what else it has to say.
                    break;
                }
                Ok(FromCell::Namespaces) => {
                    cell.namespaces = packet.fds;
                    // It waits for this.
                    let _ = sys::pidfd_kill(opened.pidfd.as_fd());
                }
                Ok(FromCell::Failed(step, end)) => {
                    let (seq, killed) = (cell.request.seq, opened.killed.get());
                    match end {
                        CellEnd::NoRoom => tracing::warn!(seq, killed, step, "a cell had no room"),
                        _ => tracing::error!(seq, killed, step, "a cell could not be built"),
                    }
                    cell.end.get_or_insert(end.seen(killed));
                }
                Err(error) => tracing::error!(%error, "a cell's report is malformed"),
            }
        }
        if mapped {
            self.tell_started(slot);
        }
        if ended {
            self.tell_early_end(slot);
        }
    }

    /// Gives a cell its order: its payload takes it as soon as it is there.
    pub(super) fn hand_over(&mut self, slot: u32) {
        let Some(cell) = self.cells.slots.get_mut(&slot) else {
            return;
        };
        let (Some(opened), Some(stdio)) = (&mut cell.opened, cell.stdio.take()) else {
            return;
        };
        let Some(order) = opened.order.take() else {
            return;
        };
        cell.ordered = sys::monotonic_us();
        match stdio.send(order.as_fd()).step("give the cell its order") {
            Ok(()) => self.tell_started(slot),
            Err(error) => could_not_start(opened, &mut cell.end, &error),
        }
    }

    /// Hands the api its ends, when there is nothing left that the command would wait for.
    pub(super) fn tell_started(&mut self, slot: u32) {
        if let Some(cell) = self.cells.slots.get_mut(&slot)
            && cell.was_started()
            && let Some(ends) = cell.ends.take()
        {
            let seq = cell.request.seq;
            self.reply(&Reply::Started { seq }, ends);
        }
    }

    /// Kills an exec's cell; an ended or unknown one is nothing to do for.
    pub(super) fn kill(&mut self, seq: u64) {
        if let Some(slot) = self.cells.by_seq(seq) {
            self.kill_slot(slot);
        }
    }

    pub(super) fn kill_slot(&mut self, slot: u32) {
        self.cells.parking.kill(slot);
        let Some(cell) = self.cells.slots.get(&slot) else {
            return;
        };
        if let Some(opened) = &cell.opened {
            return kill(opened);
        }
        if let Some(runtime) = self.catalogue.get(cell.request.runtime) {
            runtime.waiting.retain(|waiting| *waiting != slot);
        }
        self.end_unopened(slot, None);
    }

    /// A notification of the memory controller: kills the cell at the first kill that is counted. With v2 the kernel has
    /// done that already (memory.oom.group); killing again does no harm.
    pub(super) fn cell_ran_out_of_memory(&mut self, slot: u32) {
        let Some(cell) = self.cells.slots.get_mut(&slot) else {
            return;
        };
        let Some(opened) = &cell.opened else { return };
        cell.oom_suspected = Some(Instant::now());
        if opened.group.oom_kills().is_ok_and(|count| count > 0) {
            cell.oom_suspected = None;
            kill(opened);
        }
    }

    /// Looks at what sends no event.
    pub(super) fn tick(&mut self, now: Instant) {
        for cell in self.cells.slots.values_mut() {
            pass_signals(cell);
            let Some(opened) = &cell.opened else { continue };
            if let Some(since) = cell.oom_suspected {
                let killed = opened.group.oom_kills().is_ok_and(|count| count > 0);
                if killed {
                    kill(opened);
                }
                if killed || now.duration_since(since) >= OOM_WAIT {
                    cell.oom_suspected = None;
                }
            }
            let Some(limit) = cell.request.cell_resources.cpu_secs else {
                continue;
            };
            let used = opened.group.cpu_us().unwrap_or(0);
            if !cell.cpu_exceeded && used >= limit.saturating_mul(1_000_000) {
                cell.cpu_exceeded = true;
                kill(opened);
            }
        }
        self.look_at_sockets(now);
        self.cells.graves.dig();
        self.cells
            .recent
            .take_if(|(since, ..)| now.duration_since(*since) >= RECENT);
        for id in self.catalogue.freezing() {
            self.check_still(id, now);
        }
        // Looks at all of them, which takes longer than a command's events else do.
        if now.duration_since(self.swept) >= SWEEP {
            self.swept = now;
            self.evict_parked(now);
            self.evict_idle(now);
        }
    }
}

/// A cell may just have been killed; if not, this is the reason that it is now.
fn could_not_start(opened: &Opened, end: &mut Option<CellEnd>, error: &CellError) {
    let killed = opened.killed.get();
    tracing::warn!(
        killed,
        error = error as &dyn Error,
        "a cell could not be started"
    );
    // Who is dead already has said why, or was killed by the host.
    if error.source != Errno::EPIPE {
        end.get_or_insert(error.end().seen(killed));
        kill(opened);
    }
}
