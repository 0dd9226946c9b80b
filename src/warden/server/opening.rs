//! From an accepted request to a cell that builds itself: pipes, group, clone.

use crate::cell::error::CellError;
use crate::cell::report::Stdio;
use crate::cell::{self, Spec};
use crate::warden::protocol::{Failure, Filesystem};
use crate::warden::server::catalogue::State;
use crate::warden::server::cells::{Opened, Request, kill};
use crate::warden::server::graves::Grave;
use crate::warden::server::{Source, Warden, nonblocking};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::unistd::{Gid, Uid, fchown, pipe2};
use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

impl Warden {
    /// Makes the pipes and opens the cell as soon as the runtime is mounted.
    pub(super) fn accept(&mut self, request: Request, command: OwnedFd) -> Result<(), Failure> {
        let (id, stdin) = (request.runtime, request.stdin);
        let runtime = self.catalogue.get(id).ok_or(Failure::UnknownRuntime)?;
        let uid_base = runtime.record.uid_base;
        let policy = &self.policies[&runtime.record.spec.profile];
        let owner = (uid_base + policy.sandbox.uid, uid_base + policy.sandbox.gid);
        let no_room = |errno: Errno| Failure::NoRoom(format!("descriptors ({errno})"));
        let (stdin_read, stdin_write) = pipe(owner).map_err(no_room)?;
        let (stdout_read, stdout_write) = pipe(owner).map_err(no_room)?;
        let (stderr_read, stderr_write) = pipe(owner).map_err(no_room)?;

        let streams = [stdin_read, stdout_write, stderr_write];
        let slot = self
            .cells
            .add(request, uid_base, Stdio { command, streams });
        runtime.cells.insert(slot);

        let mut ends = vec![stdout_read, stderr_read];
        ends.extend(stdin.then_some(stdin_write));
        if let Some(cell) = self.cells.get_mut(slot) {
            cell.ends = Some(ends);
        }
        match &mut runtime.state {
            State::Mounted(_) => self.open_cell(slot),
            State::Mounting(waiting) => waiting.push(slot),
            State::Unmounted => {
                if let Err(failure) = self.mount_runtime(id, slot) {
                    tracing::error!(%id, ?failure, "the runtime can't be mounted");
                    self.end_unopened(slot, Some(failure));
                }
            }
        }
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
        if mounted.resources != Some(cell.request.runtime_resources) {
            mounted.group.set(&cell.request.runtime_resources)?;
            mounted.resources = Some(cell.request.runtime_resources);
        }
        let group = mounted
            .group
            .cell(&slot.to_string(), &cell.request.cell_resources)?;
        let filesystem = record.spec.filesystem;
        let fresh_bytes = record.spec.disk_mib * crate::resources::MIB;
        let spec = Spec {
            template: mounted.template.as_fd(),
            fresh: (filesystem == Filesystem::Ephemeral).then_some((&mounted.layers, fresh_bytes)),
            fresh_tmp: filesystem != Filesystem::Persistent,
            clone_into: group.clone_into(),
            attach: group.attach(),
            hostname: &cell.request.hostname,
            uid_base: cell.uid_base,
            sandbox: &self.policies[&record.spec.profile].sandbox,
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

/// A pipe that belongs to the command, so that it can open `/dev/stdout` again (pipes have an owner and mode 0600).
fn pipe((uid, gid): (u32, u32)) -> Result<(OwnedFd, OwnedFd), Errno> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fchown(&read, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    Ok((read, write))
}
