//! What the Landlock domain of a cell allows. It restates what mounts, capabilities and namespaces enforce already, so that
//! a mistake in one of them, or a hole in the kernel's, is not enough.
//!
//! - Files: on `/` everything but to make device nodes and to control devices (ioctl(2)), the latter below `/dev` alone. In a
//!   runtime that can't be written to `/` is for reading and executing, and only the cell's own mounts are for writing.
//! - TCP, where the profile denies it; signals and abstract sockets of whoever is not in the cell.
//!
//! Rules grant and are inherited downwards, across mounts. What has no name below `/` is out of their reach: pipes, sockets
//! and memfds are exempted by the kernel, POSIX message queues are not, hence [`queues`].

use crate::cell::Spec;
use crate::cell::error::{Result, Step};
use crate::cell::mounts::{self, NOSUID_NODEV};
use crate::landlock::{Abi, Domain, Right, Rights, Rules, all};
use nix::errno::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A mount of the message queues of the caller's IPC namespace. mq_open(3) opens in a mount of the kernel's own, which no
/// rule for a directory of the cell covers; a rule is about the file system's root, though, and any mount has the same.
/// None where nothing is restricted, or where the kernel has no queues.
///
/// It has to be attached somewhere: to close one that is not waits for an RCU grace period, a quarter of a millisecond.
pub fn queues(abi: Abi) -> Result<Option<OwnedFd>> {
    if abi == Abi::Unsupported {
        return Ok(None);
    }
    match mounts::new(c"mqueue", &[], NOSUID_NODEV | libc::MOUNT_ATTR_NOEXEC) {
        Err(error) if error.source == Errno::ENODEV => Ok(None),
        other => other.map(Some),
    }
}

/// Makes the domain for the finished file system below `root`. The payload enters it.
pub fn domain(
    spec: &Spec<'_>,
    root: BorrowedFd<'_>,
    queues: Option<BorrowedFd<'_>>,
) -> Result<Option<Domain>> {
    let abi = spec.sandbox.landlock;
    if abi == Abi::Unsupported {
        return Ok(None);
    }
    let open = |path| mounts::beneath_dir(root, path).step("open a place for Landlock");
    let own = spec
        .read_only
        .then(|| Ok([open(c"tmp")?, open(c"dev/shm")?, open(c"proc")?]))
        .transpose()?;
    let dev = open(c"dev")?;

    let write: Rights<Right> = Right::WriteFile | Right::Truncate;
    let device = write | Right::IoctlDev;
    let any = all(abi) & !(Right::MakeChar | Right::MakeBlock | Right::IoctlDev);
    let on_root = if own.is_some() {
        Right::from_read(abi)
    } else {
        any
    };
    let mut places = vec![(root, on_root), (dev.as_fd(), device)];
    if let Some([tmp, shm, proc]) = &own {
        places.extend([
            (tmp.as_fd(), any),
            (shm.as_fd(), any),
            (proc.as_fd(), write),
        ]);
    }
    places.extend(queues.map(|queues| (queues, Right::ReadFile | Right::WriteFile)));
    let rules = Rules {
        places: &places,
        deny_tcp: spec.sandbox.deny_tcp,
        // A tenant could fill the host's audit log.
        quiet: true,
    };
    Domain::new(abi, &rules).step("make the Landlock domain")
}
