//! User namespaces of a runtime's uid range: ids 0 to 65535 inside are `base` to `base + 65535` outside.

use crate::cell::error::{Result, Step};
use crate::resources::RANGE;
use crate::sys::{self, Cloned};
use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, Uid, seteuid};
use std::os::fd::OwnedFd;

/// Makes the caller a user namespace that belongs to `owner`: the kernel counts what is limited per user (inotify
/// instances, message queues, pending signals) against the owner too, and that must be the runtime, not the host's root.
///
/// The change of the effective uid empties the effective capabilities (capabilities(7), "Effect of user ID changes"), and
/// some hosts let only CAP_SYS_ADMIN make user namespaces (Debian's kernel.unprivileged_userns_clone, Ubuntu's AppArmor):
/// so that one, which is still permitted, is taken back. In the new namespace it means nothing to the host.
pub fn unshare_as(owner: u32) -> Result<()> {
    let owner = Uid::from_raw(owner);
    seteuid(owner).step("become the owner of the user namespace")?;
    caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN)
        .map_err(|_| Errno::last())
        .step("take CAP_SYS_ADMIN back")?;
    unshare(CloneFlags::CLONE_NEWUSER).step("unshare the user namespace")
}

/// Tries [`unshare_as`] in a child. Only for a single-threaded caller.
pub fn try_unshare_as(owner: u32) -> Result<()> {
    let step = "try to unshare a user namespace";
    match sys::fork().step(step)? {
        ForkResult::Child => {
            sys::exit_now(unshare_as(owner).map_or_else(|error| error.source as i32, |()| 0))
        }
        ForkResult::Parent { child } => match waitpid(child, None).step(step)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, errno) => Err(Errno::from_raw(errno)).step(step),
            _ => Err(Errno::EINTR).step(step),
        },
    }
}

/// Writes the uid and gid map of a process that has just made itself a user namespace (user_namespaces(7)). The caller
/// must be root of the parent namespace.
pub fn write_maps(pid: Pid, base: u32) -> Result<()> {
    write(pid, &format!("0 {base} {RANGE}"))
}

fn write(pid: Pid, map: &str) -> Result<()> {
    for file in ["uid_map", "gid_map"] {
        let path = format!("/proc/{pid}/{file}");
        // One write(2) of the whole map, as the kernel demands.
        std::fs::write(&path, map).step(&format!("write {path}"))?;
    }
    Ok(())
}

/// A user namespace with the map of `base` and no process in it: what mount_setattr(2) wants for an idmapped mount.
pub fn mapped(base: u32) -> Result<OwnedFd> {
    empty(&format!("0 {base} {RANGE}"))
}

/// A user namespace for what is done with an image's own ids, 0 to 65534: in the range of `base`, but without its first id,
/// which other processes have, and no more than an image may use.
pub fn inner(base: u32) -> Result<OwnedFd> {
    empty(&format!("0 {} {}", base + 1, RANGE - 1))
}

/// As [`mapped`], for a mount on which the files of the range `from` belong to the range `base`. Root's stay root's: an
/// overlay works in its upper layer as root, and could not write where root has no id.
pub fn shifted(from: u32, base: u32) -> Result<OwnedFd> {
    empty(&format!("0 0 1\n{from} {base} {RANGE}"))
}

/// The child: stands in its namespace until it is killed, or until who made it is. Nobody else would end it, and it holds
/// what its parent had open: a disk's mount, for one.
fn wait_for(parent: Pid) -> ! {
    let tied = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    // Who died before that was said has left it to another parent.
    if tied.is_err() || nix::unistd::getppid() != parent {
        sys::exit_now(1);
    }
    loop {
        nix::unistd::pause();
    }
}

fn empty(map: &str) -> Result<OwnedFd> {
    let step = "make a user namespace";
    let parent = nix::unistd::getpid();
    match sys::clone3(libc::CLONE_NEWUSER, None).step(step)? {
        Cloned::Child => wait_for(parent),
        Cloned::Parent { pid, pidfd } => {
            let path = format!("/proc/{pid}/ns/user");
            let made = write(pid, map)
                .and_then(|()| std::fs::File::open(&path).step(&format!("open {path}")));
            sys::pidfd_kill(std::os::fd::AsFd::as_fd(&pidfd)).step(step)?;
            waitpid(pid, None).step(step)?;
            made.map(OwnedFd::from)
        }
    }
}
