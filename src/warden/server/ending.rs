//! The end of a cell: told as soon as nothing of it runs any more, and over when the kernel has taken it apart.

use crate::resources::{MIB, Usage};
use crate::warden::protocol::{Beginning, CellEnd, Failure, Reply};
use crate::warden::server::Warden;
use crate::warden::server::catalogue::State;
use crate::warden::server::cells::Cell;
use crate::warden::server::jobs::Lane;
use crate::warden::server::purposes::{Purpose, release};
use std::os::fd::OwnedFd;
use std::time::Instant;

/// The most memory that a cell may have used for its namespaces to be held, in bytes and as a part of its runtime's.
const RECENT_BYTES: u64 = 16 * MIB;
const RECENT_PART: u64 = 16;

/// A cell whose last process is gone.
#[derive(Debug)]
pub struct Gone {
    slot: u32,
    cell: Cell,
    oom_killed: bool,
    usage: Usage,
}

impl Cell {
    /// So many bytes of memory are worth no wait.
    fn little(&self) -> u64 {
        let part = self.request.runtime_resources.memory_bytes / RECENT_PART;
        part.min(RECENT_BYTES)
    }

    /// Sees where the time went, for as long as that can be seen.
    fn look_back(&mut self) {
        let Some(opened) = &self.opened else { return };
        let (opened, mapped) = (opened.since, opened.mapped.get().unwrap_or(opened.since));
        let waits = mapped.max(self.ordered);
        self.beginning = Beginning {
            open: opened.saturating_sub(self.accepted),
            bind: mapped.saturating_sub(opened.max(self.accepted)),
            exec: self.began.saturating_sub(waits),
        };
    }

    /// What the api is told at its end.
    fn last_words(&mut self, oom_killed: bool, usage: Usage) -> Vec<(Reply, Vec<OwnedFd>)> {
        let seq = self.request.seq;
        if let Some(failure) = self.failure.take() {
            return vec![(Reply::Failed { seq, failure }, Vec::new())];
        }
        // An end follows a start, even if the command itself did not come so far.
        let started = self.ends.take().map(|ends| (Reply::Started { seq }, ends));
        let ended = Reply::Ended {
            seq,
            end: self.end.take().unwrap_or(CellEnd::Killed),
            oom_killed,
            cpu_exceeded: self.cpu_exceeded,
            usage,
            beginning: self.beginning,
        };
        started.into_iter().chain([(ended, Vec::new())]).collect()
    }
}

impl Warden {
    /// Tells an end before the kernel has taken the cell apart: nothing of it runs any more, and all that it used is counted.
    /// Not where much memory is still to come free with it, which the runtime's next command may need.
    pub(super) fn tell_early_end(&mut self, slot: u32) {
        let Some(cell) = self.cells.slots.get_mut(&slot) else {
            return;
        };
        let Some(opened) = &cell.opened else { return };
        let (oom_killed, usage) = opened.used();
        if opened.killed.get()
            || cell.oom_suspected.is_some()
            || usage.peak_memory_bytes > cell.little()
        {
            return;
        }
        cell.told = true;
        cell.look_back();
        let (seq, words) = (cell.request.seq, cell.last_words(oom_killed, usage));
        self.tell_end(seq, words);
    }

    /// Nobody asks for the exec by its number any more.
    fn tell_end(&mut self, seq: u64, words: Vec<(Reply, Vec<OwnedFd>)>) {
        self.cells.by_seq.remove(&seq);
        for (reply, ends) in words {
            self.reply(&reply, ends);
        }
    }

    /// Every process of the cell is gone: reads its group, answers, buries it.
    pub(super) fn cell_is_gone(&mut self, slot: u32) {
        if self.cells.parking.has(slot) {
            return self.parked_is_gone(slot);
        }
        // What it said last may still be in the socket.
        self.cell_spoke(slot);
        let Some(mut cell) = self.cells.slots.remove(&slot) else {
            return;
        };
        cell.look_back();
        let Some(opened) = cell.opened.take() else {
            return;
        };
        if cell.end.is_none() && !opened.killed.get() {
            cell.end = Some(CellEnd::Unseen);
        }
        let (oom_killed, usage) = match cell.told {
            true => Default::default(),
            false => opened.used(),
        };
        self.bury(opened);
        let little = cell.little();
        let namespaces = std::mem::take(&mut cell.namespaces);
        let id = cell.request.runtime;
        let gone = Gone {
            slot,
            cell,
            oom_killed,
            usage,
        };
        if usage.peak_memory_bytes > little && !namespaces.is_empty() {
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

    /// Answers for a cell that is gone, where that has not been done.
    pub(super) fn finish(&mut self, gone: Gone) {
        let Gone {
            slot,
            mut cell,
            oom_killed,
            usage,
        } = gone;
        let id = cell.request.runtime;
        if !cell.told {
            let words = cell.last_words(oom_killed, usage);
            self.tell_end(cell.request.seq, words);
        }
        if let Some(runtime) = self.catalogue.get(id) {
            runtime.cells.remove(&slot);
            if let State::Mounted(mounted) = &mut runtime.state {
                mounted.last_used = Instant::now();
            }
        }
        self.finish_closing(id);
    }
}
