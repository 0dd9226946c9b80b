//! The groups of one cell. Made before its processes, removed after the last one is gone; no pid is
//! ever written by us.
//!
//! A write to cgroup.procs waits for an RCU grace period, milliseconds when it is not one of many, and everything else that
//! makes or removes a group waits with it. So the new child is born inside the version 2 group (CLONE_INTO_CGROUP, 5.7) and
//! puts itself into the version 1 groups by their file `tasks`: a thread that moves itself alone has nothing to wait for
//! (`cgroup_procs_write_start`, 5.5).
//!
//! Cost: per used hierarchy one mkdir, plus the limits; every file is opened, written and closed
//! once.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::epoll::EpollFlags;

use super::error::CgroupError;
use super::freeze::Freezer;
use super::layout::{Layout, Place};
use super::lowering::{self, Lowering};
use super::oom::OomWatch;
use super::usage::{self, CpuClock};
use super::{INIT_PIDS, files, kill, limits, sockets};
use crate::resources::{CellResources, Usage};

/// One cell's groups. Dropping it removes nothing: see [`CellGroup::remove`].
#[derive(Debug)]
pub struct CellGroup {
    /// The cell's own directories, all to be removed.
    own: Vec<PathBuf>,
    clone_into: Option<OwnedFd>,
    attach: Vec<OwnedFd>,
    killer: Killer,
    memory: Option<(PathBuf, bool)>,
    pids: Option<PathBuf>,
    clock: CpuClock,
    oom: Option<OomWatch>,
    /// The runtime's count of cells, and whether this one is still in it.
    cells: Arc<AtomicU64>,
    counted: AtomicBool,
}

/// How the cell's processes are ended.
#[derive(Debug)]
enum Killer {
    /// By the kernel, in this version 2 group.
    Kernel(PathBuf),
    /// One by one, as listed in this version 1 group.
    Loop(PathBuf, Option<Freezer>),
    /// The host gives cells no group at all.
    Nothing,
}

impl CellGroup {
    pub(super) fn create(
        layout: &Layout,
        runtime: &str,
        id: &str,
        resources: &CellResources,
        cells: Arc<AtomicU64>,
    ) -> Result<Self, CgroupError> {
        let dir_of = |base: &Path| base.join(runtime).join(id);
        let place = |controller: &str| match layout.place(controller)? {
            Place::V1(index) => Some((dir_of(&layout.v1[index].base), false)),
            Place::V2 => layout.v2.as_ref().map(|tree| (dir_of(&tree.base), true)),
        };
        let v2_dir = layout.v2.as_ref().map(|tree| dir_of(&tree.base));
        let mut own: Vec<_> = layout
            .v1
            .iter()
            .filter(|tree| tree.per_cell)
            .map(|tree| dir_of(&tree.base))
            .collect();
        own.extend(v2_dir.clone());
        let joined = layout.v1.iter().map(|tree| match tree.per_cell {
            true => dir_of(&tree.base),
            false => tree.base.join(runtime),
        });
        let joined = joined.collect();
        let mut cell = Self {
            own: Vec::with_capacity(own.len()),
            clone_into: None,
            attach: Vec::with_capacity(layout.v1.len()),
            killer: match (&v2_dir, place("freezer"), own.first()) {
                (Some(dir), _, _) => Killer::Kernel(dir.clone()),
                (None, Some((dir, _)), _) => Killer::Loop(dir, Some(Freezer::V1)),
                (None, None, Some(dir)) => Killer::Loop(dir.clone(), None),
                (None, None, None) => Killer::Nothing,
            },
            memory: place("memory"),
            pids: place("pids").map(|(dir, _)| dir),
            clock: match (&v2_dir, place("cpuacct")) {
                (Some(dir), _) => CpuClock::Stat(dir.clone()),
                (None, Some((dir, _))) => CpuClock::Acct(dir),
                (None, None) => CpuClock::None,
            },
            oom: None,
            cells,
            counted: true.into(),
        };
        match cell.fill(own, joined, v2_dir.as_deref(), resources) {
            Ok(()) => Ok(cell),
            Err(error) => {
                // The first error is the one worth reading; a later sweep removes what this could
                // not.
                cell.counted.store(false, Ordering::Relaxed);
                let _ = cell.remove();
                Err(error)
            }
        }
    }

    fn fill(
        &mut self,
        own: Vec<PathBuf>,
        joined: Vec<PathBuf>,
        v2_dir: Option<&Path>,
        resources: &CellResources,
    ) -> Result<(), CgroupError> {
        for dir in own {
            files::make(&dir)?;
            // Only what was made here is ours to remove.
            self.own.push(dir);
        }
        if let Some((dir, v2)) = &self.memory {
            if *v2 {
                limits::memory_v2(dir, resources.memory_bytes)?;
                // All or nothing: a cell that lost one process to the OOM killer is of no use
                // (4.19).
                files::write_if_there(dir, "memory.oom.group", "1")?;
                self.oom = Some(OomWatch::v2(dir)?);
            } else {
                limits::memory_v1(dir, resources.memory_bytes, true)?;
                self.oom = Some(OomWatch::v1(dir)?);
            }
        }
        if let Some(dir) = &self.pids {
            limits::pids(dir, resources.pids.saturating_add(INIT_PIDS))?;
        }
        for dir in joined {
            self.attach.push(files::open_tasks(&dir)?);
        }
        self.clone_into = v2_dir.map(files::open_directory).transpose()?;
        Ok(())
    }

    /// Changes the limits of a cell that runs. What this host can't enforce is passed over.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set(&self, resources: &CellResources) -> Result<(), CgroupError> {
        lowering::set(self.memory_place(), resources.memory_bytes)?;
        match &self.pids {
            Some(dir) => limits::pids(dir, resources.pids.saturating_add(INIT_PIDS)),
            None => Ok(()),
        }
    }

    /// As [`super::RuntimeGroup::lowering`].
    ///
    /// # Errors
    /// The limit that holds can't be read.
    pub fn lowering(&self, memory_bytes: u64) -> Result<Option<Lowering>, CgroupError> {
        Lowering::needed(self.memory_place(), memory_bytes)
    }

    /// What its sockets hold, where the kernel counts that as memory; 0 where it can't be told.
    pub fn socket_bytes(&self) -> u64 {
        match self.memory_place() {
            Some((dir, true)) => sockets::held(dir).unwrap_or(0),
            _ => 0,
        }
    }

    fn memory_place(&self) -> Option<(&Path, bool)> {
        self.memory.as_ref().map(|(dir, v2)| (dir.as_path(), *v2))
    }

    /// The version 2 group's directory, for CLONE_INTO_CGROUP; none on a host without a version 2
    /// tree.
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.clone_into.as_ref().map(OwnedFd::as_fd)
    }

    /// Open `tasks` files of version 1 groups: the new child writes `0` into each to put
    /// itself there, all before it forks. Opened O_WRONLY and O_CLOEXEC.
    pub fn attach(&self) -> &[OwnedFd] {
        &self.attach
    }

    /// Closes the files that only a new child needs ([`Self::clone_into`], [`Self::attach`]), when
    /// the child is inside: they count against the warden's limit of open files for as long as the
    /// cell lives.
    pub fn attached(&mut self) {
        self.attach = Vec::new();
        self.clone_into = None;
    }

    /// The cell's own directories, for logs.
    pub fn directories(&self) -> &[PathBuf] {
        &self.own
    }

    /// Ends every process of the cell, stopped and frozen ones too. They may still be dying when it
    /// returns.
    ///
    /// # Errors
    /// What the kernel answers. A group that is gone is no error.
    pub fn kill(&self) -> Result<(), CgroupError> {
        match &self.killer {
            Killer::Kernel(dir) => kill::kill_v2(dir),
            Killer::Loop(dir, freezer) => kill::kill_loop(dir, *freezer),
            Killer::Nothing => Ok(()),
        }
    }

    /// What to give to epoll, with the events to ask for, to hear of an OOM at once; none on hosts
    /// that can't tell.
    ///
    /// After a wake-up call [`Self::oom_kills`], which also makes ready for the next. It may still
    /// find the old count: on version 1 the event comes before the kill (ask again a few
    /// milliseconds later, and at the end of the cell); on version 2 for changes other than kills.
    /// Where the events are `EPOLLPRI`, `EPOLLIN` must not be asked for: it is always on.
    pub fn oom_source(&self) -> Option<(BorrowedFd<'_>, EpollFlags)> {
        self.oom.as_ref()?.source()
    }

    /// Whether and how often the kernel has killed a process of the cell for memory, be it the
    /// cell's limit, the runtime's or the host's own. Only zero and not zero mean the same on both
    /// versions: where the whole group is killed, the first victim counts twice.
    ///
    /// # Errors
    /// The counter can't be read.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        self.oom.as_ref().map_or(Ok(0), OomWatch::kills)
    }

    /// CPU time of all processes so far, user and system, in microseconds. One small file, cheap
    /// enough to ask often.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn cpu_us(&self) -> Result<u64, CgroupError> {
        self.clock.total_us()
    }

    /// All that is known about what the cell has used. Final after its last process.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn usage(&self) -> Result<Usage, CgroupError> {
        usage::read(&self.clock, self.memory_place(), self.pids.as_deref())
    }

    /// Removes the groups; false while a process is left: try later. What is gone already is fine.
    ///
    /// # Errors
    /// What the kernel answers, other than that a group is busy.
    pub fn remove(&self) -> Result<bool, CgroupError> {
        let mut gone = true;
        for dir in &self.own {
            gone &= files::remove(dir)?;
        }
        if gone && self.counted.swap(false, Ordering::Relaxed) {
            self.cells.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(gone)
    }
}
