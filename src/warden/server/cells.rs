//! The life of cells in the warden: accepted (pipes made), opened, mapped and running (the api has its ends), gone,
//! buried. A cell is gone when its init is: the kernel ends an init only after every other process of its pid namespace.

use crate::cell::report::{FromCell, GO, MAX_REPORT, SignalSet, Stdio};
use crate::cell::userns;
use crate::cgroup::CgroupError;
use crate::resources::{MIB, Usage};
use crate::sys::packet;
use crate::warden::protocol::{CellEnd, CellRequest, Failure, Reply};
use crate::warden::server::Warden;
use crate::warden::server::catalogue::State;
use crate::warden::server::graves::{Grave, Graves};
use crate::warden::server::jobs::Lane;
use crate::warden::server::opening::{Opened, kill};
use crate::warden::server::purposes::{Purpose, release};
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
    stdio: Option<Stdio>,
    /// What becomes the cell's `/dev/pts`, where it has a terminal; until it is opened.
    pub(super) pts: Option<OwnedFd>,
    /// Signals that the cell was not sent yet.
    pub(super) signals: SignalSet,
    /// The api's ends of the pipes, until it is told that the command runs.
    pub(super) ends: Option<Vec<OwnedFd>>,
    /// Why it was never opened.
    failure: Option<Failure>,
    /// None while the runtime is being mounted, or stands still.
    pub(super) opened: Option<Opened>,
    /// The first report of its end; once it is gone, what else is known of that.
    end: Option<CellEnd>,
    /// What came with it, see [`Cells::recent`].
    namespaces: Vec<OwnedFd>,
    /// When an OOM notification came; the count may follow a moment later.
    oom_suspected: Option<Instant>,
    cpu_exceeded: bool,
}

impl Cell {
    /// Whether its init was told to start the command.
    pub(super) fn was_started(&self) -> bool {
        self.stdio.is_none()
    }
}

/// A cell whose last process is gone.
#[derive(Debug)]
pub struct Gone {
    slot: u32,
    cell: Cell,
    oom_killed: bool,
    usage: Usage,
}

/// All cells.
#[derive(Debug, Default)]
pub struct Cells {
    slots: HashMap<u32, Cell>,
    by_seq: HashMap<u64, u32>,
    next: u32,
    pub(super) graves: Graves,
    /// Namespaces of the cell that ended last, and when. Their ids are inode numbers, which the kernel gives out again
    /// at once: held for [`RECENT`], the next cell's differ, and whoever compares two execs sees that nothing is shared.
    /// Not held after a cell that used much memory: what it left in its tmpfs and shared memory is charged to its runtime
    /// until they are let go. Beside them the runtime, whose disk they may hold.
    recent: Option<(Instant, Uuid, Vec<OwnedFd>)>,
}

/// How long after an OOM notification a kill is counted at the latest.
const OOM_WAIT: Duration = Duration::from_secs(1);
const RECENT: Duration = Duration::from_secs(2);
/// The most memory that a cell may have used for its namespaces to be held, in bytes and as a part of its runtime's.
const RECENT_BYTES: u64 = 16 * MIB;
const RECENT_PART: u64 = 16;

impl Cells {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Takes an exec in and returns its slot.
    pub(super) fn add(
        &mut self,
        request: CellRequest,
        uid_base: u32,
        stdio: Stdio,
        pts: Option<OwnedFd>,
    ) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.by_seq.insert(request.seq, self.next);
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
        };
        self.slots.insert(self.next, cell);
        self.next
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
        self.recent.is_some() || !self.graves.is_empty() || self.slots.values().any(watched)
    }

    /// Kills every process of every cell.
    pub fn kill_all(&self) {
        self.slots
            .values()
            .filter_map(|cell| cell.opened.as_ref())
            .for_each(kill);
    }

    /// Kills those of some cells once more that were killed before: with version 1, one that is frozen before all of it has
    /// died lives on.
    pub fn kill_again(&self, slots: &HashSet<u32>) {
        let cells = slots.iter().filter_map(|slot| self.slots.get(slot));
        let opened = cells.filter_map(|cell| cell.opened.as_ref());
        opened.filter(|opened| opened.killed.get()).for_each(kill);
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
        let mut buffer = [0; MAX_REPORT];
        let Some(cell) = self.cells.slots.get_mut(&slot) else {
            return;
        };
        let Some(opened) = &cell.opened else { return };
        let mut started = None;
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
                Ok(FromCell::UserNamespaceMade) => {
                    let Some(stdio) = cell.stdio.take() else {
                        continue;
                    };
                    match start(opened, cell.uid_base, &stdio) {
                        Ok(()) => started = cell.ends.take().map(|ends| (cell.request.seq, ends)),
                        Err(error) => {
                            // It may just have been killed; if not, this line is the reason that it is now.
                            let (killed, error) = (opened.killed.get(), error.as_ref());
                            tracing::warn!(killed, error, "a cell could not be started");
                            // Who is dead already has said why, or was killed by the host.
                            if error.downcast_ref() != Some(&Errno::EPIPE) {
                                cell.end.get_or_insert(CellEnd::SetupFailed.seen(killed));
                                kill(opened);
                            }
                        }
                    }
                }
                Ok(FromCell::End(end)) => {
                    cell.end.get_or_insert(end.seen(opened.killed.get()));
                    cell.namespaces = packet.fds;
                }
                Ok(FromCell::Failed(step)) => {
                    let (seq, killed) = (cell.request.seq, opened.killed.get());
                    tracing::error!(seq, killed, step, "a cell could not be built");
                    cell.end.get_or_insert(CellEnd::SetupFailed.seen(killed));
                }
                Err(error) => tracing::error!(%error, "a cell's report is malformed"),
            }
        }
        if let Some((seq, ends)) = started {
            self.reply(&Reply::Started { seq }, ends);
        }
    }

    /// Every process of the cell is gone: reads its group, answers, buries it.
    pub(super) fn cell_is_gone(&mut self, slot: u32) {
        // What it said last may still be in the socket.
        self.cell_spoke(slot);
        let Some(mut cell) = self.cells.slots.remove(&slot) else {
            return;
        };
        let Some(opened) = cell.opened.take() else {
            return;
        };
        let _ = self.epoll.delete(&opened.control);
        let _ = self.epoll.delete(&opened.pidfd);
        if let Some((fd, _)) = opened.group.oom_source() {
            let _ = self.epoll.delete(fd);
        }
        let _ = nix::sys::wait::waitpid(opened.pid, None);
        if cell.end.is_none() && !opened.killed.get() {
            cell.end = Some(CellEnd::Unseen);
        }
        let logged = |error: CgroupError| {
            tracing::error!(error = &error as &dyn Error, "reading a cell's group");
        };
        let oom_killed = opened
            .group
            .oom_kills()
            .map_err(logged)
            .is_ok_and(|count| count > 0);
        let usage = opened.group.usage().map_err(logged).unwrap_or_default();
        self.cells.graves.bury(Grave::Cell(opened.group));
        let little = cell.request.runtime_resources.memory_bytes / RECENT_PART;
        let namespaces = std::mem::take(&mut cell.namespaces);
        let id = cell.request.runtime;
        let gone = Gone {
            slot,
            cell,
            oom_killed,
            usage,
        };
        if usage.peak_memory_bytes > little.min(RECENT_BYTES) && !namespaces.is_empty() {
            // Its memory is free before its end is told: the next exec may need it.
            let purpose = Purpose::Bury(Box::new(gone));
            self.start_job(Lane::Release, purpose, namespaces, release);
        } else {
            self.cells.recent = Some((Instant::now(), id, namespaces));
            self.finish(gone);
        }
        self.cells.graves.dig();
    }

    /// Ends an exec whose cell was never opened: that failed or, where there is no failure, it was killed.
    pub(super) fn end_unopened(&mut self, slot: u32, failure: Option<Failure>) {
        let Some(mut cell) = self.cells.slots.remove(&slot) else {
            return;
        };
        cell.failure = failure;
        self.finish(Gone {
            slot,
            cell,
            oom_killed: false,
            usage: Usage::default(),
        });
    }

    /// Answers for a cell that is gone.
    pub(super) fn finish(&mut self, gone: Gone) {
        let Gone {
            slot,
            cell,
            oom_killed,
            usage,
        } = gone;
        let CellRequest {
            seq, runtime: id, ..
        } = cell.request;
        self.cells.by_seq.remove(&seq);
        let ended = Reply::Ended {
            seq,
            end: cell.end.unwrap_or(CellEnd::Killed),
            oom_killed,
            cpu_exceeded: cell.cpu_exceeded,
            usage,
        };
        if let Some(failure) = cell.failure {
            self.reply(&Reply::Failed { seq, failure }, Vec::new());
        } else {
            // An end follows a start, even if the command itself did not come so far.
            if let Some(ends) = cell.ends {
                self.reply(&Reply::Started { seq }, ends);
            }
            self.reply(&ended, Vec::new());
        }
        if let Some(runtime) = self.catalogue.get(id) {
            runtime.cells.remove(&slot);
            if let State::Mounted(mounted) = &mut runtime.state {
                mounted.last_used = Instant::now();
            }
        }
        self.finish_closing(id);
    }

    /// Kills an exec's cell; an ended or unknown one is nothing to do for.
    pub(super) fn kill(&mut self, seq: u64) {
        if let Some(slot) = self.cells.by_seq(seq) {
            self.kill_slot(slot);
        }
    }

    pub(super) fn kill_slot(&mut self, slot: u32) {
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
        self.cells.graves.dig();
        self.cells
            .recent
            .take_if(|(since, ..)| now.duration_since(*since) >= RECENT);
        for id in self.catalogue.freezing() {
            self.check_still(id, now);
        }
        self.evict_idle(now);
    }
}

/// Writes the maps and hands over the descriptors; the cell goes on by itself.
fn start(opened: &Opened, uid_base: u32, stdio: &Stdio) -> Result<(), Box<dyn Error>> {
    userns::write_maps(opened.pid, uid_base)?;
    let [stdin, stdout, stderr] = stdio.streams.each_ref().map(AsFd::as_fd);
    let fds = [stdio.command.as_fd(), stdin, stdout, stderr];
    packet::send(opened.control.as_fd(), GO, &fds)?;
    Ok(())
}
