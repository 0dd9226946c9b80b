//! The role `role:unpack`: one process that makes the confinement, and one that lives in it and reads the archive.
//!
//! The first is started by `launch` with the packet socket as its standard input. It is root of the host, makes a copy of
//! each given directory's mount (idmapped: ids on disk are the image's own) and clones the second one into namespaces of
//! its own. That one makes those mounts all it has of a file system, gives its rights up and only then reads. The first one
//! only waits. Each dies with its parent.

use super::launch::MAX_DIRECTORIES;
use super::stream::Stream;
use super::trouble::Trouble;
use super::wire::{self, Job, Order, Report};
use super::{filter, layer, names, user};
use crate::cell::error::{CellError, Result, Step};
use crate::cell::{identity, mounts, userns};
use crate::sys::{self, Cloned, packet};
use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, mkdirat, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Progress is told each time that so many packed bytes have been read.
const TOLD: u64 = 1 << 20;
/// Memory: a window of zstd's (128 MiB), names that are remembered (64 MiB), the program itself.
const MEMORY: u64 = 1 << 30;
/// Where a directory of an archive belongs to others of the image, nobody else can fill it.
const KEPT: [Capability; 4] = [
    Capability::CAP_CHOWN,
    Capability::CAP_FOWNER,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FSETID,
];

/// What the second process is made of.
struct Cage {
    userns: OwnedFd,
    /// Detached mounts of the given directories.
    mounts: Vec<OwnedFd>,
    /// The archive and perhaps the file to write.
    files: Vec<OwnedFd>,
    order: Order,
}

/// Does the job that comes over standard input. The exit code matters to nobody: what is to be said was reported.
pub fn run() -> std::result::Result<(), Box<dyn std::error::Error>> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    nix::sys::prctl::set_dumpable(false)?;
    nix::sys::prctl::set_name(c"cellblock-unpack")?;
    sys::close_range(3, u32::MAX)?;
    sys::reset_signals()?;
    // Too long a file is an error, not a death (setrlimit(2), RLIMIT_FSIZE).
    sys::ignore_signals(&[Signal::SIGXFSZ])?;
    let control = sys::inherited_fd(0)?;
    let child = prepare(&control).and_then(|cage| clone_into(cage, &control));
    let child = match child {
        Ok(child) => child,
        Err(error) => {
            let _ = failed(&error).send(&control);
            return Ok(());
        }
    };
    // The socket has its end when the child has.
    drop(control);
    loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            Ok(WaitStatus::Exited(_, 0)) => return Ok(()),
            Ok(WaitStatus::Exited(_, code)) => sys::exit_now(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => sys::exit_now(128 + signal as i32),
            _ => sys::exit_now(1),
        }
    }
}

fn failed(error: &CellError) -> Report {
    Report::Failed(format!("{}: {}", error.step, error.source.desc()))
}

/// Receives the order and copies the mounts while they can be: a detached copy of a mount of another namespace can't be made.
fn prepare(control: &OwnedFd) -> Result<Cage> {
    let step = "receive the order";
    let mut buffer = vec![0; wire::MAX];
    let packet = packet::receive(control.as_fd(), &mut buffer).step(step)?;
    let packet = packet.ok_or(Errno::EPIPE).step(step)?;
    let order: Order = serde_json::from_slice(&buffer[..packet.length])
        .map_err(|_| Errno::EINVAL)
        .step(step)?;
    let mut fds = packet.fds;
    let (directories, files, attributes) = match &order.job {
        Job::Layer { .. } if fds.len() == 2 => (fds.split_off(1), fds, mounts::NOSUID_NODEV),
        Job::Expand { .. } if fds.len() == 2 => (Vec::new(), fds, 0),
        Job::User { .. } if fds.len() <= MAX_DIRECTORIES => (fds, Vec::new(), mounts::READ_ONLY),
        _ => return Err(Errno::EPROTO).step(step),
    };
    let userns = userns::inner(order.uid_base)?;
    let mut copies = Vec::new();
    for directory in directories {
        let step = "idmap the directory";
        let copy = sys::mount::open_tree_clone(directory.as_fd(), c"", false).step(step)?;
        let attributes = attributes | libc::MOUNT_ATTR_NOEXEC;
        sys::mount::mount_setattr(copy.as_fd(), attributes, Some(userns.as_fd()), false)
            .step(step)?;
        copies.push(copy);
    }
    Ok(Cage {
        userns,
        mounts: copies,
        files,
        order,
    })
}

/// Returns in the first process only.
fn clone_into(cage: Cage, control: &OwnedFd) -> Result<nix::unistd::Pid> {
    let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    match sys::clone3(flags, None).step("clone the confined process")? {
        Cloned::Parent { pid, .. } => Ok(pid),
        Cloned::Child => {
            let report = match confine(cage) {
                Ok((roots, files, job)) => work(job, roots, files, control),
                Err(error) => failed(&error),
            };
            let sent = report.send(control);
            sys::exit_now(i32::from(sent.is_err()))
        }
    }
}

/// Gives everything up. What is left: the directories, the files, the socket.
fn confine(cage: Cage) -> Result<(Vec<OwnedFd>, Vec<OwnedFd>, Job)> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("set the parent death signal")?;
    umask(Mode::empty());
    unshare(CloneFlags::CLONE_NEWNS).step("unshare the mount namespace")?;
    let roots = jail(&cage.mounts)?;

    // Only now, so that all other namespaces belong to the host's: whoever takes this process over has no power over them.
    setns(&cage.userns, CloneFlags::CLONE_NEWUSER).step("enter the user namespace")?;
    identity::become_ids(0, 0)?;
    identity::drop_bounding_set()?;
    reduce_capabilities()?;
    nix::sys::prctl::set_no_new_privs().step("set no_new_privs")?;
    let largest = match &cage.order.job {
        Job::Layer { bounds, .. } | Job::Expand { bounds, .. } => bounds.bytes,
        Job::User { .. } => 0,
    };
    identity::set_rlimits(&[
        (Resource::RLIMIT_AS, MEMORY, MEMORY),
        // Not 0: a core pattern with a pipe takes no notice of that (core(5)).
        (Resource::RLIMIT_CORE, 1, 1),
        (Resource::RLIMIT_NOFILE, 512, 512),
        (Resource::RLIMIT_NPROC, 0, 0),
        (Resource::RLIMIT_FSIZE, largest, largest),
    ])?;
    // A change of ids has cleared it (prctl(2)).
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("set the parent death signal")?;
    let filter = filter::program().map_err(|_| Errno::EINVAL);
    let filter = filter.step("compile the seccomp filter")?;
    let Cage { files, order, .. } = cage;
    seccompiler::apply_filter(&filter)
        .map_err(|_| Errno::last())
        .step("install the seccomp filter")?;
    Ok((roots, files, order.job))
}

/// Makes the directories the only ones that there are, each in an empty one of a file system that can't be written.
fn jail(pieces: &[OwnedFd]) -> Result<Vec<OwnedFd>> {
    let attributes = mounts::NOSUID_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let host = mounts::root()?;
    sys::mount::mount_setattr(host.as_fd(), 0, None, true).step("make all mounts private")?;
    let jail = mounts::tmpfs(1 << 20, MAX_DIRECTORIES as u64 + 8, 0, "755", attributes)?;
    let name = |index: usize| CString::new(index.to_string()).expect("digits hold no NUL");
    for index in 0..pieces.len() {
        mkdirat(&jail, &*name(index), Mode::from_bits_truncate(0o755)).step("make a place")?;
    }
    // Any directory does: it is out of sight a moment later.
    let anchor = mounts::host_dir("/proc".as_ref())?;
    sys::mount::move_mount(jail.as_fd(), anchor.as_fd()).step("attach the jail")?;
    mounts::pivot(jail.as_fd())?;
    let mut roots = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let name = name(index);
        mounts::attach(piece.as_fd(), jail.as_fd(), &name)?;
        roots.push(mounts::beneath_dir(jail.as_fd(), &name).step("open a directory")?);
    }
    sys::mount::mount_setattr(jail.as_fd(), libc::MOUNT_ATTR_RDONLY, None, false)
        .step("seal the jail")?;
    Ok(roots)
}

fn reduce_capabilities() -> Result<()> {
    let failed = |_| CellError {
        step: "reduce the capabilities".to_owned(),
        source: Errno::last(),
    };
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).map_err(failed)?;
    }
    let kept = CapsHashSet::from(KEPT);
    // A permitted set smaller than the effective one is refused.
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).map_err(failed)?;
    }
    Ok(())
}

/// From here on bytes of the archive are read.
fn work(job: Job, roots: Vec<OwnedFd>, files: Vec<OwnedFd>, control: &OwnedFd) -> Report {
    let mut files = files.into_iter().map(File::from);
    match (job, files.next(), files.next()) {
        (Job::Layer { length, bounds }, Some(source), None) => {
            let stream = Stream::open(source, length, layer::most(&bounds), &bounds, tell(control));
            let Some(root) = roots.into_iter().next() else {
                return Report::Failed("no directory came with the order".to_owned());
            };
            let done = stream
                .map_err(|trouble| (None, trouble))
                .and_then(|stream| layer::unpack(stream, root, &bounds));
            match done {
                Err((entry, trouble)) => refusal(entry, trouble),
                Ok((unpacked, opaque)) => {
                    for path in opaque {
                        let _ = Report::Opaque(path).send(control);
                    }
                    for path in &unpacked.implied {
                        let _ = Report::Implied(path.clone()).send(control);
                    }
                    Report::Unpacked(unpacked)
                }
            }
        }
        (Job::Expand { length, bounds }, Some(source), Some(target)) => {
            let stream = Stream::open(source, length, bounds.bytes, &bounds, tell(control));
            let done = stream.and_then(|stream| expand(stream, target));
            done.map_or_else(|trouble| refusal(None, trouble), Report::Expanded)
        }
        (Job::User { user }, None, None) => match user::find(&roots, &user) {
            Ok(user) => Report::User(user),
            Err(trouble) => refusal(None, trouble),
        },
        _ => Report::Failed("other descriptors came than the order wants".to_owned()),
    }
}

fn refusal(entry: Option<Vec<u8>>, trouble: Trouble) -> Report {
    let entry = entry.map(|name| names::show(&name));
    match (trouble, entry) {
        (Trouble::Refused(reason), entry) => Report::Refused { entry, reason },
        (Trouble::Failed(text), Some(entry)) => Report::Failed(format!("{entry}: {text}")),
        (Trouble::Failed(text), None) => Report::Failed(text),
    }
}

/// Reports progress from time to time.
fn tell(control: &OwnedFd) -> impl FnMut(u64) + 'static {
    let control = control.try_clone();
    let mut told = 0;
    move |read| {
        if let Ok(control) = &control
            && read >= told + TOLD
        {
            told = read;
            // Nobody waits for the result any more: there is nothing to go on for.
            if Report::Progress(read).send(control).is_err() {
                sys::exit_now(1);
            }
        }
    }
}

fn expand(mut stream: Stream, mut target: File) -> std::result::Result<u64, Trouble> {
    let mut buffer = vec![0; 256 << 10];
    let mut written = 0;
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => return Ok(written),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        let done = target.write_all(&buffer[..count]);
        done.map_err(|error| Trouble::Failed(format!("write the archive: {error}")))?;
        written += count as u64;
    }
}
