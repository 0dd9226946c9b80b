//! The cell's first process while it is still root of the host: it builds everything around itself, then gives the host
//! up by making its user namespace and becomes the cell's init.

use crate::cell::error::{Result, Step};
use crate::cell::report::{FromCell, GO, report_failure, tell};
use crate::cell::{Spec, devices, init, landlock, mounts, procfs, rootfs, userns};
use crate::landlock::Domain;
use crate::sys::{self, packet};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Where what is kept of all that the warden had open lives in the child: the control socket, which init keeps, the order's,
/// which the payload does, and a terminal's devpts instance until it is mounted.
const KEPT: i32 = 3;

/// Builds the cell and runs its init. Never returns; a failure is reported to the warden before the end.
pub fn run(spec: &Spec<'_>, mut control: OwnedFd, mut order: OwnedFd) -> ! {
    sys::memory::begin_child();
    let result = build(spec, &mut control, &mut order)
        .and_then(|domain| init::run(spec, &control, order, domain));
    if let Err(error) = result {
        report_failure(&control, &error, error.end());
    }
    sys::exit_now(1)
}

/// `control` and `order` are replaced by their only copies that stay open.
fn build(spec: &Spec<'_>, control: &mut OwnedFd, order: &mut OwnedFd) -> Result<Option<Domain>> {
    // The warden's end must be ours too; also set again below, since a change of ids clears it (prctl(2)).
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("set the parent death signal")?;
    nix::sys::prctl::set_dumpable(false).step("become not dumpable")?;
    nix::sys::prctl::set_name(c"init").step("set the name")?;
    umask(Mode::empty());
    // Before anything that waits: among what the warden had open are the pipe ends of other cells, whose readers wait for
    // the last one to be closed.
    let mut needed = vec![control.as_fd(), order.as_fd(), spec.template];
    needed.extend(spec.attach.iter().map(AsFd::as_fd));
    needed.extend(spec.pts);
    sys::close_all_but(&needed).step("close what other cells need")?;

    for file in spec.attach {
        // "0" is the writer itself.
        nix::unistd::write(file, b"0").step("join the cgroup")?;
    }
    // After the joins, so that the cgroup namespace's root is the cell's own group, and what is made here is charged to it.
    let mut own = CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    own.set(
        CloneFlags::CLONE_NEWNET,
        !cfg!(cellblock_without = "network-namespace"),
    );
    own.set(
        CloneFlags::CLONE_NEWCGROUP,
        !cfg!(cellblock_without = "cgroup-namespace"),
    );
    unshare(own).step("unshare the namespaces")?;
    setns(spec.template, CloneFlags::CLONE_NEWNS).step("enter the template")?;
    unshare(CloneFlags::CLONE_NEWNS).step("copy the template")?;

    let pts = keep_only(control, order, spec.pts)?;
    if let Some((layers, bytes)) = spec.fresh {
        rootfs::assemble(layers, &rootfs::Writable::Fresh(bytes), spec.uid_base)?;
        devices::mount_dev(mounts::root()?.as_fd(), spec.uid_base)?;
    }
    let root = mounts::root()?;
    let dev = devices::find(root.as_fd())?;
    let sandbox = spec.sandbox;
    procfs::mount_proc(root.as_fd(), dev.as_fd(), sandbox)?;
    let pts = pts.map_or_else(|| devices::new_pts(spec.uid_base), Ok)?;
    let queues = landlock::queues(sandbox.landlock)?;
    let hidden = queues.as_ref().map(AsFd::as_fd);
    let (owner, shm) = (spec.uid_base, sandbox.shm_bytes);
    devices::mount_own(dev.as_fd(), owner, shm, pts.as_fd(), hidden)?;
    drop((pts, dev));
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
    userns::unshare_as(spec.uid_base)?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("set the parent death signal")?;
    tell(control, &FromCell::UserNamespaceMade, &[]);
    wait_for_go(control)?;
    Ok(domain)
}

/// Closes everything that was inherited but the sockets, which move to the lowest numbers, and what will be `/dev/pts`,
/// which is returned behind them. Descriptors 0 and 1 of the warden are `/dev/null`; 2 is its log, which no process of a
/// cell may hold, and becomes the same.
fn keep_only(
    control: &mut OwnedFd,
    order: &mut OwnedFd,
    pts: Option<BorrowedFd<'_>>,
) -> Result<Option<OwnedFd>> {
    let step = "keep only the sockets";
    sys::dup_onto(std::io::stdin().as_fd(), 2, false).step(step)?;
    let kept = [Some(control.as_fd()), Some(order.as_fd()), pts];
    // Above the fixed numbers, so that no copy below overwrites another's source.
    let copies = kept
        .into_iter()
        .flatten()
        .map(|fd| sys::dup_above(fd, KEPT + 3));
    let copies: Vec<OwnedFd> = copies.collect::<nix::Result<_>>().step(step)?;
    let mut number = KEPT;
    for copy in copies {
        sys::dup_onto(copy.as_fd(), number, true).step(step)?;
        number += 1;
    }
    sys::close_range(number, u32::MAX).step(step)?;
    // Their numbers are closed here, or belong to the copies.
    for (place, number) in [control, order].into_iter().zip(KEPT..) {
        let kept = sys::inherited_fd(number).step(step)?;
        std::mem::forget(std::mem::replace(place, kept));
    }
    let pts = pts.map(|_| sys::inherited_fd(KEPT + 2));
    pts.transpose().step(step)
}

fn wait_for_go(control: &OwnedFd) -> Result<()> {
    let step = "wait for the warden";
    let mut buffer = [0; 16];
    let packet = packet::receive_trusted(control.as_fd(), &mut buffer).step(step)?;
    // The warden's end while a cell waits: there is nobody left to report to.
    let packet = packet.ok_or(Errno::EPIPE).step(step)?;
    if &buffer[..packet.length] == GO {
        Ok(())
    } else {
        Err(Errno::EPROTO).step(step)
    }
}
