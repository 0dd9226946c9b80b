//! From an accepted request to a cell that builds itself: pipes, group, clone.

use crate::cell::error::CellError;
use crate::cell::report::Stdio;
use crate::cell::{self, Spec};
use crate::cgroup::CellGroup;
use crate::resources::RuntimeResources;
use crate::sys;
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

/// The running part of a cell.
#[derive(Debug)]
pub(super) struct Opened {
    /// Its init.
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) control: OwnedFd,
    pub(super) group: CellGroup,
    /// Whether it was killed.
    pub(super) killed: Cell<bool>,
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
        let stdio = Stdio {
            command,
            streams,
            terminal: pts.is_some(),
        };
        let slot = self.cells.add(request, uid_base, stdio, pts);
        runtime.cells.insert(slot);
        if let Some(cell) = self.cells.get_mut(slot) {
            cell.ends = Some(ends);
        }
        runtime.waiting.push(slot);
        self.open_waiting(id);
        Ok(())
    }

    /// Opens an accepted cell; a failure ends it with a log line.
    pub(super) fn open_cell(&mut self, slot: u32) {
        match self.try_open(slot) {
            Ok(()) => {}
            Err(error) => {
                tracing::error!(error = error.as_ref(), "a cell could not be opened");
                self.end_unopened(slot, Some(failure(error.as_ref())));
            }
        }
    }

    fn try_open(&mut self, slot: u32) -> Result<(), Box<dyn Error>> {
        let Some(cell) = self.cells.get_mut(slot) else {
            return Ok(());
        };
        let runtime = self
            .catalogue
            .get(cell.request.runtime)
            .ok_or("the runtime is gone")?;
        let record = &runtime.record;
        let State::Mounted(mounted) = &mut runtime.state else {
            return Err("not mounted".into());
        };
        mounted.last_used = Instant::now();
        let wanted = cell.request.runtime_resources;
        // To lower memory takes long once something runs there, and is for `set_resources`: it comes next, or was refused.
        let lowers = |now: RuntimeResources| wanted.memory_bytes < now.memory_bytes;
        if mounted.resources != Some(wanted) && !mounted.resources.is_some_and(lowers) {
            mounted.group.set(&wanted)?;
            mounted.resources = Some(wanted);
        }
        let group = mounted
            .group
            .cell(&slot.to_string(), &cell.request.cell_resources)?;
        let filesystem = record.spec.filesystem;
        let fresh_bytes = record.spec.disk_mib * crate::resources::MIB;
        let policy = &self.policies[&record.spec.profile];
        let spec = Spec {
            template: mounted.template.as_fd(),
            fresh: (filesystem == Filesystem::Ephemeral).then_some((&mounted.layers, fresh_bytes)),
            read_only: filesystem == Filesystem::ReadOnly,
            fresh_tmp: filesystem != Filesystem::Persistent,
            pts: cell.pts.as_ref().map(AsFd::as_fd),
            clone_into: group.clone_into(),
            attach: group.attach(),
            hostname: &cell.request.hostname,
            uid_base: cell.uid_base,
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
            group,
            killed: false.into(),
        };
        let watched = self.watch(slot, &opened);
        opened.group.attached();
        if let Err(errno) = watched {
            kill(&opened);
            let _ = nix::sys::wait::waitpid(opened.pid, None);
            self.cells.graves.bury(Grave::Cell(opened.group));
            return Err(errno.into());
        }
        if let Some(cell) = self.cells.get_mut(slot) {
            cell.opened = Some(opened);
            cell.pts = None;
        }
        Ok(())
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
    use Errno::{EAGAIN, EMFILE, ENFILE, ENOMEM};
    match error.downcast_ref::<CellError>().map(|error| error.source) {
        Some(EAGAIN | ENOMEM | EMFILE | ENFILE) => Failure::NoRoom("processes".to_owned()),
        _ => Failure::Internal,
    }
}
