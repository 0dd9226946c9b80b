//! The api process's own confinement, entered while it is single-threaded and before it reads a byte from the network:
//! a mount namespace that holds nothing but its state directory, an unprivileged uid, no capability, no_new_privs, a Landlock
//! domain, a list of system calls.

use crate::cell::error::{Result, Step};
use crate::cell::{identity, mounts};
use crate::landlock::{self, Domain, Right, Rules};
use crate::roles::filters;
use crate::sys;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, mkdirat};
use std::os::fd::AsFd;
use std::path::Path;

/// Where the state directory is afterwards.
pub const STATE: &str = "/state";

/// Leaves `state` as `/state` and takes everything else of the machine's file system away, then becomes `uid`/`gid`.
pub fn enter(state: &Path, uid: u32, gid: u32) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).step("unshare the mount namespace")?;
    let root = mounts::root()?;
    sys::mount::mount_setattr(root.as_fd(), 0, None, true).step("make all mounts private")?;
    let attributes = mounts::NOSUID_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let place = mounts::host_dir(state)?;
    let state =
        sys::mount::open_tree_clone(place.as_fd(), c"", false).step("clone the state directory")?;
    sys::mount::mount_setattr(state.as_fd(), attributes, None, false)
        .step("clone the state directory")?;
    let jail = mounts::tmpfs(4096, 8, 0, "755", attributes)?;
    mkdirat(&jail, &STATE[1..], Mode::from_bits_truncate(0o755)).step("make /state")?;
    sys::mount::move_mount(jail.as_fd(), place.as_fd()).step("attach the jail")?;
    mounts::pivot(jail.as_fd())?;
    mounts::attach(state.as_fd(), jail.as_fd(), c"state")?;
    sys::mount::mount_setattr(jail.as_fd(), libc::MOUNT_ATTR_RDONLY, None, false)
        .step("seal the jail")?;

    identity::drop_bounding_set()?;
    identity::become_ids(uid, gid)?;
    identity::drop_capabilities()?;
    nix::sys::prctl::set_dumpable(false).step("become not dumpable")?;
    restrict()?;
    filters::enter_api()
}

/// Enters a Landlock domain, where the kernel has that: plain files below the state directory and nothing else, no TCP but
/// what the bound listener accepts, no signal and no abstract socket of anybody else's. What is denied is logged by the
/// kernel (Linux 6.15): nothing in this process asks for it but an intruder.
fn restrict() -> Result<()> {
    let state = mounts::host_dir(STATE.as_ref())?;
    let look = Right::ReadFile | Right::ReadDir;
    let change = Right::WriteFile | Right::Truncate | Right::MakeReg | Right::RemoveFile;
    let rules = Rules {
        places: &[(state.as_fd(), look | change | Right::MakeDir)],
        deny_tcp: true,
        quiet: false,
    };
    match Domain::new(landlock::abi(), &rules).step("make the Landlock domain")? {
        Some(domain) => domain.enter().step("enter the Landlock domain"),
        None => Ok(()),
    }
}
