//! The cell's first process while it is still root of the host: it builds everything around itself, then gives the host
//! up by making its user namespace and becomes the cell's init.

use crate::cell::error::{Result, Step};
use crate::cell::report::{FromCell, GO, Stdio, report_failure, tell};
use crate::cell::{Spec, devices, init, landlock, mounts, procfs, rootfs, userns};
use crate::landlock::Domain;
use crate::sys::{self, packet};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Where the control socket lives in the child: the only descriptor that init keeps of all those the warden had open.
const CONTROL: i32 = 3;
/// Where a terminal's devpts instance lives until it is mounted.
const PTS: i32 = 4;

/// Builds the cell and runs its init. Never returns; a failure is reported to the warden before the end.
pub fn run(spec: &Spec<'_>, mut control: OwnedFd) -> ! {
    let result = build(spec, &mut control)
        .and_then(|(stdio, domain)| init::run(spec.sandbox, spec.ids, &control, stdio, domain));
    if let Err(error) = result {
        report_failure(&control, &error);
    }
    sys::exit_now(1)
}

/// `control` is replaced by its only copy that stays open.
fn build(spec: &Spec<'_>, control: &mut OwnedFd) -> Result<(Stdio, Option<Domain>)> {
    // The warden's end must be ours too; also set again below, since a change of ids clears it (prctl(2)).
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("set the parent death signal")?;
    nix::sys::prctl::set_dumpable(false).step("become not dumpable")?;
    nix::sys::prctl::set_name(c"init").step("set the name")?;
    umask(Mode::empty());
    // Before anything that waits: among what the warden had open are the pipe ends of other cells, whose readers wait for
    // the last one to be closed.
    let mut needed = vec![control.as_fd(), spec.template];
    needed.extend(spec.attach.iter().map(AsFd::as_fd));
    needed.extend(spec.pts);
    sys::close_all_but(&needed).step("close what other cells need")?;

    for file in spec.attach {
        // "0" is the writer itself. The write waits for an RCU grace period: here only this cell waits with it.
        nix::unistd::write(file, b"0").step("join the cgroup")?;
    }
    // After the joins, so that the namespace's root is the cell's own group.
    if !cfg!(cellblock_without = "cgroup-namespace") {
        unshare(CloneFlags::CLONE_NEWCGROUP).step("unshare the cgroup namespace")?;
    }
    setns(spec.template, CloneFlags::CLONE_NEWNS).step("enter the template")?;
    unshare(CloneFlags::CLONE_NEWNS).step("copy the template")?;

    let pts = keep_only(control, spec.pts)?;
    if let Some((layers, bytes)) = spec.fresh {
        rootfs::assemble(layers, &rootfs::Writable::Fresh(bytes), spec.uid_base)?;
    }
    let root = mounts::root()?;
    let sandbox = spec.sandbox;
    let terminal = pts.is_some();
    let pts = pts.map_or_else(|| devices::new_pts(spec.uid_base), Ok)?;
    let queues = landlock::queues(sandbox.landlock)?;
    let hidden = queues.as_ref().map(AsFd::as_fd);
    let (owner, shm) = (spec.uid_base, sandbox.shm_bytes);
    devices::mount_dev(root.as_fd(), owner, shm, pts.as_fd(), hidden)?;
    drop(pts);
    procfs::mount_proc(root.as_fd(), sandbox)?;
    if spec.fresh_tmp {
        let (bytes, owner) = (sandbox.tmp_bytes, spec.uid_base);
        let inodes = mounts::inodes_for(bytes);
        let tmp = mounts::tmpfs(bytes, inodes, owner, "1777", mounts::NOSUID_NODEV)?;
        mounts::attach(tmp.as_fd(), root.as_fd(), c"tmp")?;
    }
    // While everything can be opened still, whatever a tenant made of his own directories.
    let domain = landlock::domain(spec, root.as_fd(), hidden)?;
    drop((root, queues));
    nix::unistd::chdir("/").step("enter /")?;
    sys::loopback_up().step("bring lo up")?;
    nix::unistd::sethostname(spec.hostname).step("set the host name")?;
    // POSIX message queues and SysV objects live in the ipc namespace that the clone made.

    userns::unshare_as(spec.uid_base)?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("set the parent death signal")?;
    tell(control, &FromCell::UserNamespaceMade, &[]);
    Ok((wait_for_go(control, terminal)?, domain))
}

/// Closes everything that was inherited but the control socket, which moves to [`CONTROL`], and what will be `/dev/pts`,
/// which is returned at [`PTS`]. Descriptors 0 and 1 of the warden are `/dev/null`; 2 is its log, which no process of a
/// cell may hold, and becomes the same.
fn keep_only(control: &mut OwnedFd, pts: Option<BorrowedFd<'_>>) -> Result<Option<OwnedFd>> {
    let step = "keep only the control socket";
    // Above the fixed numbers, so that neither copy below overwrites the other's source.
    let pts = pts
        .map(|pts| sys::dup_above(pts, PTS + 1))
        .transpose()
        .step(step)?;
    sys::dup_onto(control.as_fd(), CONTROL, true).step(step)?;
    sys::dup_onto(std::io::stdin().as_fd(), 2, false).step(step)?;
    let kept = sys::inherited_fd(CONTROL).step(step)?;
    // Its number is closed here, or it is CONTROL itself.
    std::mem::forget(std::mem::replace(control, kept));
    let Some(pts) = pts else {
        sys::close_range(CONTROL + 1, u32::MAX).step(step)?;
        return Ok(None);
    };
    sys::dup_onto(pts.as_fd(), PTS, true).step(step)?;
    drop(pts);
    sys::close_range(PTS + 1, u32::MAX).step(step)?;
    sys::inherited_fd(PTS).map(Some).step(step)
}

fn wait_for_go(control: &OwnedFd, terminal: bool) -> Result<Stdio> {
    let step = "wait for the warden";
    let mut buffer = [0; 16];
    let packet = packet::receive(control.as_fd(), &mut buffer).step(step)?;
    // The warden's end while a cell waits: there is nobody left to report to.
    let packet = packet.ok_or(Errno::EPIPE).step(step)?;
    let expected = &buffer[..packet.length] == GO;
    let fds: std::result::Result<[OwnedFd; 4], _> = packet.fds.try_into();
    match fds {
        Ok([command, stdin, stdout, stderr]) if expected => Ok(Stdio {
            command,
            streams: [stdin, stdout, stderr],
            terminal,
        }),
        _ => Err(Errno::EPROTO).step(step),
    }
}
