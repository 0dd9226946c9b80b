//! The life of cells in the warden: accepted (pipes made, the api has its ends), opened, mapped and running, gone,
//! buried. A cell is gone when its init is: the kernel ends an init only after every other process of its pid namespace.

use crate::cell::child::Stdio;
use crate::cell::report::{FromCell, GO, MAX_REPORT};
use crate::cell::{self, Spec, userns};
use crate::cgroup::{CellGroup, CgroupError, RuntimeGroup};
use crate::resources::{CellResources, RuntimeResources, Usage};
use crate::sys::{self, packet};
use crate::warden::protocol::{CellEnd, Failure, Filesystem, Reply};
use crate::warden::server::catalogue::State;
use crate::warden::server::{Source, Warden, nonblocking};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::unistd::{Gid, Pid, Uid, fchown, pipe2};
use std::collections::HashMap;
use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// An exec that passed the checks.
#[derive(Debug)]
pub struct Request {
    /// The api's name for it.
    pub seq: u64,
    /// The runtime to run in.
    pub runtime: Uuid,
    /// Limits of the runtime's group.
    pub runtime_resources: RuntimeResources,
    /// Limits of the cell.
    pub cell_resources: CellResources,
    /// Host name inside.
    pub hostname: String,
    /// Whether stdin is a pipe of the api's.
    pub stdin: bool,
}

/// The running part of a cell.
#[derive(Debug)]
struct Opened {
    pid: Pid,
    pidfd: OwnedFd,
    control: OwnedFd,
    group: CellGroup,
}

#[derive(Debug)]
struct Cell {
    request: Request,
    uid_base: u32,
    /// Until they are handed to the cell.
    stdio: Option<Stdio>,
    /// None while the runtime is being mounted.
    opened: Option<Opened>,
    /// The first report of its end.
    end: Option<CellEnd>,
    /// An OOM notification came; the count may follow a moment later.
    oom_suspected: bool,
    cpu_exceeded: bool,
}

/// A group that may still be busy for a moment after its last process is gone.
#[derive(Debug)]
enum Grave {
    Cell(CellGroup),
    Runtime(RuntimeGroup),
}

/// All cells.
#[derive(Debug, Default)]
pub struct Cells {
    slots: HashMap<u32, Cell>,
    by_seq: HashMap<u64, u32>,
    next: u32,
    graves: Vec<Grave>,
    /// Namespaces of the cell that ended last, and when. Their ids are inode numbers, which the kernel gives out again
    /// at once: held for [`RECENT`], the next cell's differ, and whoever compares two execs sees that nothing is shared.
    recent: Option<(Instant, Vec<OwnedFd>)>,
}

const RECENT: Duration = Duration::from_secs(2);

impl Cells {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The slot of an exec.
    pub fn by_seq(&self, seq: u64) -> Option<u32> {
        self.by_seq.get(&seq).copied()
    }

    /// Whether the loop must look at something at intervals.
    pub fn need_watching(&self) -> bool {
        let watched =
            |cell: &Cell| cell.request.cell_resources.cpu_secs.is_some() || cell.oom_suspected;
        self.recent.is_some() || !self.graves.is_empty() || self.slots.values().any(watched)
    }

    /// Kills every process of every cell.
    pub fn kill_all(&self) {
        self.slots
            .values()
            .filter_map(|cell| cell.opened.as_ref())
            .for_each(kill);
    }

    /// Removes a runtime's group, now or when it is empty.
    pub fn bury_runtime(&mut self, group: RuntimeGroup) {
        // It may hold the runtime's disk.
        self.recent = None;
        self.graves.push(Grave::Runtime(group));
        self.dig();
    }

    fn dig(&mut self) {
        self.graves.retain(|grave| {
            let removed = match grave {
                Grave::Cell(group) => group.remove(),
                Grave::Runtime(group) => group.remove(),
            };
            removed.unwrap_or_else(|error| {
                tracing::error!(error = &error as &dyn Error, "a cgroup is left behind");
                true
            })
        });
    }
}

/// Init's death ends the pid namespace; the group's kill reaches whatever is not in it yet, and is quicker for many.
fn kill(opened: &Opened) {
    let _ = sys::pidfd_kill(opened.pidfd.as_fd());
    if let Err(error) = opened.group.kill() {
        tracing::error!(error = &error as &dyn Error, "killing a cell's group");
    }
}

impl Warden {
    /// Makes the pipes, hands the api its ends, and opens the cell as soon as the runtime is mounted.
    pub(super) fn accept(&mut self, request: Request, command: OwnedFd) -> Result<(), Failure> {
        let (id, seq, stdin) = (request.runtime, request.seq, request.stdin);
        let runtime = self.catalogue.get(id).ok_or(Failure::UnknownRuntime)?;
        let uid_base = runtime.record.uid_base;
        let policy = &self.policies[&runtime.record.spec.profile];
        let owner = (uid_base + policy.sandbox.uid, uid_base + policy.sandbox.gid);
        let no_room = |errno: Errno| Failure::NoRoom(format!("descriptors ({errno})"));
        let (stdin_read, stdin_write) = pipe(owner).map_err(no_room)?;
        let (stdout_read, stdout_write) = pipe(owner).map_err(no_room)?;
        let (stderr_read, stderr_write) = pipe(owner).map_err(no_room)?;

        self.cells.next = self.cells.next.wrapping_add(1);
        let slot = self.cells.next;
        let stdio = Stdio {
            command,
            streams: [stdin_read, stdout_write, stderr_write],
        };
        let cell = Cell {
            request,
            uid_base,
            stdio: Some(stdio),
            opened: None,
            end: None,
            oom_suspected: false,
            cpu_exceeded: false,
        };
        self.cells.slots.insert(slot, cell);
        self.cells.by_seq.insert(seq, slot);
        runtime.cells.insert(slot);

        let mut ends = vec![stdout_read, stderr_read];
        ends.extend(stdin.then_some(stdin_write));
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
        let Some(cell) = self.cells.slots.get_mut(&slot) else {
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
                self.cells.graves.push(Grave::Cell(group));
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
            self.cells.graves.push(Grave::Cell(opened.group));
            return Err(errno.into());
        }
        if let Some(cell) = self.cells.slots.get_mut(&slot) {
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

    /// Hears what a cell has to say.
    pub(super) fn cell_spoke(&mut self, slot: u32) {
        let mut buffer = [0; MAX_REPORT];
        let Some(cell) = self.cells.slots.get_mut(&slot) else {
            return;
        };
        let Some(opened) = &cell.opened else { return };
        loop {
            let packet = match packet::receive(opened.control.as_fd(), &mut buffer) {
                Err(Errno::EAGAIN) => return,
                Ok(Some(packet)) => packet,
                Ok(None) | Err(_) => {
                    // Its end; the pidfd tells the rest.
                    let _ = self.epoll.delete(&opened.control);
                    return;
                }
            };
            match serde_json::from_slice(&buffer[..packet.length]) {
                Ok(FromCell::UserNamespaceMade) => {
                    let Some(stdio) = cell.stdio.take() else {
                        continue;
                    };
                    if let Err(error) = start(opened, cell.uid_base, &stdio) {
                        tracing::error!(error = error.as_ref(), "a cell could not be started");
                        cell.end.get_or_insert(CellEnd::SetupFailed);
                        kill(opened);
                    }
                }
                Ok(FromCell::End(end)) => {
                    cell.end.get_or_insert(end);
                    self.cells.recent = Some((Instant::now(), packet.fds));
                }
                Ok(FromCell::Failed(step)) => {
                    tracing::error!(seq = cell.request.seq, step, "a cell could not be built");
                    cell.end.get_or_insert(CellEnd::SetupFailed);
                }
                Err(error) => tracing::error!(%error, "a cell's report is malformed"),
            }
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
        let logged = |error: CgroupError| {
            tracing::error!(error = &error as &dyn Error, "reading a cell's group");
        };
        let oom_killed = opened
            .group
            .oom_kills()
            .map_err(logged)
            .is_ok_and(|count| count > 0);
        let usage = opened.group.usage().map_err(logged).unwrap_or_default();
        self.cells.graves.push(Grave::Cell(opened.group));
        self.finish(slot, cell, oom_killed, usage);
        self.cells.dig();
    }

    /// Ends an exec whose cell was never opened.
    pub(super) fn end_unopened(&mut self, slot: u32, end: CellEnd) {
        let Some(mut cell) = self.cells.slots.remove(&slot) else {
            return;
        };
        cell.end = Some(end);
        self.finish(slot, cell, false, Usage::default());
    }

    fn finish(&mut self, slot: u32, cell: Cell, oom_killed: bool, usage: Usage) {
        let Request {
            seq, runtime: id, ..
        } = cell.request;
        self.cells.by_seq.remove(&seq);
        let end = cell.end.unwrap_or(CellEnd::Killed);
        let cpu_exceeded = cell.cpu_exceeded;
        self.reply(
            &Reply::Ended {
                seq,
                end,
                oom_killed,
                cpu_exceeded,
                usage,
            },
            Vec::new(),
        );
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
        if let Some(runtime) = self.catalogue.get(cell.request.runtime)
            && let State::Mounting(waiting) = &mut runtime.state
        {
            waiting.retain(|waiting| *waiting != slot);
        }
        self.end_unopened(slot, CellEnd::Killed);
    }

    /// A notification of the memory controller: kills the cell at the first kill that is counted. With v2 the kernel has
    /// done that already (memory.oom.group); killing again does no harm.
    pub(super) fn cell_ran_out_of_memory(&mut self, slot: u32) {
        let Some(cell) = self.cells.slots.get_mut(&slot) else {
            return;
        };
        let Some(opened) = &cell.opened else { return };
        cell.oom_suspected = true;
        if opened.group.oom_kills().is_ok_and(|count| count > 0) {
            cell.oom_suspected = false;
            kill(opened);
        }
    }

    /// Looks at what sends no event.
    pub(super) fn tick(&mut self, now: Instant) {
        for cell in self.cells.slots.values_mut() {
            let Some(opened) = &cell.opened else { continue };
            if cell.oom_suspected && opened.group.oom_kills().is_ok_and(|count| count > 0) {
                cell.oom_suspected = false;
                kill(opened);
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
        self.cells.dig();
        self.cells
            .recent
            .take_if(|(since, _)| now.duration_since(*since) >= RECENT);
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

/// A pipe that belongs to the command, so that it can open `/dev/stdout` again (pipes have an owner and mode 0600).
fn pipe((uid, gid): (u32, u32)) -> Result<(OwnedFd, OwnedFd), Errno> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fchown(&read, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    Ok((read, write))
}
