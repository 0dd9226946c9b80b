//! User namespaces of a runtime's uid range: ids 0 to 65535 inside are `base` to `base + 65535` outside.

use crate::cell::error::{Result, Step};
use crate::sys::{self, Cloned};
use nix::unistd::Pid;
use std::os::fd::OwnedFd;

/// Ids in one runtime's range.
pub const RANGE: u32 = 65536;

/// Writes the uid and gid map of a process that has just made itself a user namespace (user_namespaces(7)). The caller
/// must be root of the parent namespace.
pub fn write_maps(pid: Pid, base: u32) -> Result<()> {
    let map = format!("0 {base} {RANGE}");
    for file in ["uid_map", "gid_map"] {
        let path = format!("/proc/{pid}/{file}");
        // One write(2) of the whole map, as the kernel demands.
        std::fs::write(&path, &map).step(&format!("write {path}"))?;
    }
    Ok(())
}

/// A user namespace with the map of `base` and no process in it: what mount_setattr(2) wants for an idmapped mount.
pub fn mapped(base: u32) -> Result<OwnedFd> {
    let step = "make a user namespace";
    match sys::clone3(libc::CLONE_NEWUSER, None).step(step)? {
        Cloned::Child => loop {
            nix::unistd::pause();
        },
        Cloned::Parent { pid, pidfd } => {
            let path = format!("/proc/{pid}/ns/user");
            let made = write_maps(pid, base)
                .and_then(|()| std::fs::File::open(&path).step(&format!("open {path}")));
            sys::pidfd_kill(std::os::fd::AsFd::as_fd(&pidfd)).step(step)?;
            nix::sys::wait::waitpid(pid, None).step(step)?;
            made.map(OwnedFd::from)
        }
    }
}
