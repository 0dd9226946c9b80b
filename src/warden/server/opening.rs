//! From an accepted request to a cell that builds itself: pipes, group, clone.

use crate::cell::error::{CellError, Step};
use crate::cell::report::{GO, Stdio};
use crate::cell::{self, Spec, userns};
use crate::cgroup::{CellGroup, CgroupError};
use crate::resources::{CellResources, RuntimeResources, Usage};
use crate::sys::{self, packet};
use crate::warden::protocol::{CellRequest, Failure, Filesystem};
use crate::warden::server::catalogue::State;
use crate::warden::server::channels::Channels;
use crate::warden::server::graves::Grave;
use crate::warden::server::{Source, Warden, nonblocking};
use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::unistd::Pid;
use std::cell::Cell;
use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;
use uuid::Uuid;

/// The running part of a cell.
#[derive(Debug)]
pub(super) struct Opened {
    /// Its init.
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) control: OwnedFd,
    /// What its payload's order is sent over, until it is.
    pub(super) order: Option<OwnedFd>,
    /// Its maps are written, and so its payload waits for the order.
    /// When that was, in [`sys::monotonic_us`].
    pub(super) mapped: Cell<Option<u64>>,
    /// When its first process was there.
    pub(super) since: u64,
    pub(super) group: CellGroup,
    /// Whether it was killed.
    pub(super) killed: Cell<bool>,
    /// Whether that was for memory, and by the warden: the kernel has not counted it.
    pub(super) out_of_memory: Cell<bool>,
}

/// What a cell is opened for, as far as it matters before its command.
#[derive(Debug)]
pub(super) struct Shape {
    /// The runtime's limits, where they are to hold from now on.
    pub(super) resources: Option<RuntimeResources>,
    pub(super) cell_resources: CellResources,
    pub(super) hostname: String,
    /// The devpts instance with the command's terminal, where it has one.
    pub(super) pts: Option<OwnedFd>,
}

impl Opened {
    /// Writes the maps that it waits for, and lets it go on: from here on its payload takes an order.
    pub(super) fn map(&self, uid_base: u32) -> Result<(), CellError> {
        userns::write_maps(self.pid, uid_base)?;
        packet::send(self.control.as_fd(), GO, &[]).step("let the cell go on")?;
        self.mapped.set(Some(sys::monotonic_us()));
        Ok(())
    }

    /// Whether the kernel killed something of it for memory, and all that it has used.
    pub(super) fn used(&self) -> (bool, Usage) {
        let logged = |error: CgroupError| {
            tracing::error!(error = &error as &dyn Error, "reading a cell's group");
        };
        let oom_killed = self.group.oom_kills().map_err(logged);
        let usage = self.group.usage().map_err(logged);
        (
            self.out_of_memory.get() || oom_killed.is_ok_and(|count| count > 0),
            usage.unwrap_or_default(),
        )
    }
}

/// Init's death ends the pid namespace; the group's kill reaches whatever is not in it yet, and is quicker for many.
pub(super) fn kill(opened: &Opened) {
    opened.killed.set(true);
    let _ = sys::pidfd_kill(opened.pidfd.as_fd());
    if let Err(error) = opened.group.kill() {
        tracing::error!(error = &error as &dyn Error, "killing a cell's group");
    }
}

impl Warden {
    /// Makes the pipes and opens the cell as soon as the runtime is mounted and does not stand still.
    pub(super) fn accept(&mut self, request: CellRequest, command: OwnedFd) -> Result<(), Failure> {
        let (id, stdin) = (request.runtime, request.stdin);
        let runtime = self.catalogue.get(id).ok_or(Failure::UnknownRuntime)?;
        let uid_base = runtime.record.uid_base;
        let ids = runtime.record.ids;
        let ids = ids.unwrap_or(self.policies[&runtime.record.spec.profile].ids);
        let owner = (uid_base + ids.uid, uid_base + ids.gid);
        let Channels { streams, ends, pts } = match request.terminal {
            Some(size) => Channels::terminal(uid_base, owner.0, size)?,
            None => Channels::pipes(owner, stdin)?,
        };
        let stdio = Stdio { command, streams };
        let may_open = runtime.may_open() && runtime.waiting.is_empty();
        let parked = match may_open && self.limit_runtime(id, request.runtime_resources).is_ok() {
            true => self.take_parked(&request, &stdio),
            false => None,
        };
        self.want_parked(&request, parked.is_none());
        let slot = match &parked {
            Some(parked) => parked.slot,
            None => self.cells.new_slot(),
        };
        self.cells.add(slot, request, uid_base, stdio, pts);
        let Some(cell) = self.cells.get_mut(slot) else {
            return Err(Failure::Internal);
        };
        cell.ends = Some(ends);
        if let Some(parked) = parked {
            cell.has_order(parked.opened);
            self.tell_started(slot);
            return Ok(());
        }
        if let Some(runtime) = self.catalogue.get(id) {
            runtime.cells.insert(slot);
            runtime.waiting.push(slot);
        }
        self.open_waiting(id);
        Ok(())
    }

    /// Brings a mounted runtime's limits to what an exec says they are.
    fn limit_runtime(&mut self, id: Uuid, wanted: RuntimeResources) -> Result<(), Box<dyn Error>> {
        let runtime = self.catalogue.get(id).ok_or("the runtime is gone")?;
        let State::Mounted(mounted) = &mut runtime.state else {
            return Err("not mounted".into());
        };
        mounted.last_used = Instant::now();
        // To lower memory takes long once something runs there, and is for `set_resources`: it comes next, or was refused.
        let lowers = |now: RuntimeResources| wanted.memory_bytes < now.memory_bytes;
        if mounted.resources != Some(wanted) && !mounted.resources.is_some_and(lowers) {
            mounted.group.set(&wanted)?;
            mounted.resources = Some(wanted);
        }
        Ok(())
    }

    /// Opens an accepted cell; a failure ends it with a log line.
    pub(super) fn open_cell(&mut self, slot: u32) {
        match self.try_open(slot) {
            Ok(()) => {}
            Err(error) => {
                let failure = failure(error.as_ref());
                let error = error.as_ref();
                match failure {
                    Failure::NoRoom(_) => tracing::warn!(error, "a cell had no room"),
                    _ => tracing::error!(error, "a cell could not be opened"),
                }
                self.end_unopened(slot, Some(failure));
            }
        }
    }

    fn try_open(&mut self, slot: u32) -> Result<(), Box<dyn Error>> {
        let Some(cell) = self.cells.get_mut(slot) else {
            return Ok(());
        };
        let id = cell.request.runtime;
        let shape = Shape {
            resources: Some(cell.request.runtime_resources),
            cell_resources: cell.request.cell_resources,
            hostname: cell.request.hostname.clone(),
            pts: cell.pts.take(),
        };
        let opened = self.open(slot, id, &shape)?;
        if let Some(cell) = self.cells.get_mut(slot) {
            cell.opened = Some(opened);
        }
        self.hand_over(slot);
        Ok(())
    }

    /// Opens a cell of a mounted runtime and begins to listen to it.
    pub(super) fn open(
        &mut self,
        slot: u32,
        id: Uuid,
        shape: &Shape,
    ) -> Result<Opened, Box<dyn Error>> {
        if let Some(resources) = shape.resources {
            self.limit_runtime(id, resources)?;
        }
        let runtime = self.catalogue.get(id).ok_or("the runtime is gone")?;
        let record = &runtime.record;
        let State::Mounted(mounted) = &mut runtime.state else {
            return Err("not mounted".into());
        };
        let group = mounted
            .group
            .cell(&slot.to_string(), &shape.cell_resources)?;
        let filesystem = record.spec.filesystem;
        let fresh_bytes = record.spec.disk_mib * crate::resources::MIB;
        let policy = &self.policies[&record.spec.profile];
        let spec = Spec {
            template: mounted.template.as_fd(),
            fresh: (filesystem == Filesystem::Ephemeral).then_some((&mounted.layers, fresh_bytes)),
            read_only: filesystem == Filesystem::ReadOnly,
            fresh_tmp: filesystem != Filesystem::Persistent,
            pts: shape.pts.as_ref().map(AsFd::as_fd),
            clone_into: group.clone_into(),
            attach: group.attach(),
            hostname: &shape.hostname,
            uid_base: record.uid_base,
            ids: record.ids.unwrap_or(policy.ids),
            sandbox: &policy.sandbox,
        };
        let opened = match cell::open(&spec) {
            Ok(opened) => opened,
            Err(error) => {
                self.cells.graves.bury(Grave::Cell(group));
                return Err(error.into());
            }
        };
        let mut opened = Opened {
            pid: opened.pid,
            pidfd: opened.pidfd,
            control: opened.control,
            order: Some(opened.order),
            mapped: None.into(),
            since: sys::monotonic_us(),
            group,
            killed: false.into(),
            out_of_memory: false.into(),
        };
        let watched = self.watch(slot, &opened);
        opened.group.attached();
        if let Err(errno) = watched {
            kill(&opened);
            self.bury(opened);
            return Err(errno.into());
        }
        Ok(opened)
    }

    /// Lets go of what is left of a cell whose last process is gone, or is about to be.
    pub(super) fn bury(&mut self, opened: Opened) {
        let _ = self.epoll.delete(&opened.control);
        let _ = self.epoll.delete(&opened.pidfd);
        if let Some((fd, _)) = opened.group.oom_source() {
            let _ = self.epoll.delete(fd);
        }
        let _ = nix::sys::wait::waitpid(opened.pid, None);
        self.cells.graves.bury(Grave::Cell(opened.group));
    }

    fn watch(&self, slot: u32, opened: &Opened) -> Result<(), Errno> {
        nonblocking(&opened.control)?;
        let readable = EpollFlags::EPOLLIN;
        let add = |fd, flags, source: Source| {
            self.epoll
                .add::<std::os::fd::BorrowedFd<'_>>(fd, EpollEvent::new(flags, source.pack()))
        };
        add(opened.control.as_fd(), readable, Source::Control(slot))?;
        add(opened.pidfd.as_fd(), readable, Source::Exit(slot))?;
        if let Some((fd, flags)) = opened.group.oom_source() {
            // Edge-triggered: each event is told once and need not be read away.
            add(fd, flags | EpollFlags::EPOLLET, Source::Oom(slot))?;
        }
        Ok(())
    }
}

/// What the api process may know of a cell that could not be opened.
fn failure(error: &(dyn Error + 'static)) -> Failure {
    match error.downcast_ref::<CellError>() {
        Some(error) if error.is_shortage() => {
            Failure::NoRoom("processes, of the runtime's or of the machine's".to_owned())
        }
        _ => Failure::Internal,
    }
}
