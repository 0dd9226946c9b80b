//! From an accepted request to a cell that builds itself: pipes, group, clone.

use crate::cell::error::Step;
use crate::cell::report::Stdio;
use crate::cell::terminal::{self, Terminal};
use crate::cell::{self, Spec};
use crate::warden::protocol::{CellEnd, Failure, Filesystem, Reply, TerminalSize};
use crate::warden::server::catalogue::State;
use crate::warden::server::cells::{Opened, Request, kill};
use crate::warden::server::{Source, Warden, nonblocking};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::unistd::{Gid, Uid, fchown, pipe2};
use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

impl Warden {
    /// Makes the pipes, hands the api its ends, and opens the cell as soon as the runtime is mounted.
    pub(super) fn accept(&mut self, request: Request, command: OwnedFd) -> Result<(), Failure> {
        let (id, seq, stdin) = (request.runtime, request.seq, request.stdin);
        let runtime = self.catalogue.get(id).ok_or(Failure::UnknownRuntime)?;
        let uid_base = runtime.record.uid_base;
        let policy = &self.policies[&runtime.record.spec.profile];
        let owner = (uid_base + policy.sandbox.uid, uid_base + policy.sandbox.gid);
        let Channels { streams, ends, pts } = match request.terminal {
            Some(size) => terminal(uid_base, owner.0, size)?,
            None => {
                let no_room = |errno| Failure::NoRoom(format!("descriptors ({errno})"));
                pipes(owner, stdin).map_err(no_room)?
            }
        };
        let stdio = Stdio {
            command,
            streams,
            terminal: pts.is_some(),
        };
        let slot = self.cells.add(request, uid_base, stdio, pts);
        runtime.cells.insert(slot);
        self.reply(&Reply::Started { seq }, ends);

        let Some(runtime) = self.catalogue.get(id) else {
            return Ok(());
        };
        match &mut runtime.state {
            State::Mounted(_) => self.open_cell(slot),
            State::Mounting(waiting) => waiting.push(slot),
            State::Unmounted => {
                if let Err(failure) = self.mount_runtime(id, slot) {
                    tracing::error!(%id, ?failure, "the runtime can't be mounted");
                    self.end_unopened(slot, CellEnd::SetupFailed);
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
                self.end_unopened(slot, CellEnd::SetupFailed);
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
            pts: cell.pts.as_ref().map(AsFd::as_fd),
            clone_into: group.clone_into(),
            attach: group.attach(),
            hostname: &cell.request.hostname,
            uid_base: cell.uid_base,
            sandbox: &self.policies[&record.spec.profile].sandbox,
        };
        let opened = match cell::open(&spec) {
            Ok(opened) => opened,
            Err(error) => {
                self.cells.bury(group);
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
            self.cells.bury(opened.group);
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

/// What a command talks through.
struct Channels {
    /// The command's.
    streams: [OwnedFd; 3],
    /// The api's, in the order of [`Reply::Started`].
    ends: Vec<OwnedFd>,
    /// See [`Terminal::pts`].
    pts: Option<OwnedFd>,
}

fn pipes(owner: (u32, u32), stdin: bool) -> Result<Channels, Errno> {
    let (stdin_read, stdin_write) = pipe(owner)?;
    let (stdout_read, stdout_write) = pipe(owner)?;
    let (stderr_read, stderr_write) = pipe(owner)?;
    let mut ends = vec![stdout_read, stderr_read];
    ends.extend(stdin.then_some(stdin_write));
    Ok(Channels {
        streams: [stdin_read, stdout_write, stderr_write],
        ends,
        pts: None,
    })
}

fn terminal(uid_base: u32, owner: u32, size: TerminalSize) -> Result<Channels, Failure> {
    let made = terminal::make(uid_base, owner, size).and_then(|terminal| {
        let Terminal { master, slave, pts } = terminal;
        let copy = || slave.try_clone().step("copy the terminal's descriptor");
        Ok(Channels {
            streams: [copy()?, copy()?, slave],
            ends: vec![master],
            pts: Some(pts),
        })
    });
    made.map_err(|error| match error.source {
        Errno::ENOSPC | Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => {
            Failure::NoRoom(format!("terminals ({})", error.source))
        }
        _ => {
            tracing::error!(error = &error as &dyn Error, "a terminal could not be made");
            Failure::Internal
        }
    })
}

/// A pipe that belongs to the command, so that it can open `/dev/stdout` again (pipes have an owner and mode 0600).
fn pipe((uid, gid): (u32, u32)) -> Result<(OwnedFd, OwnedFd), Errno> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fchown(&read, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    Ok((read, write))
}
