//! `/dev` of a cell: a read-only tmpfs with six harmless nodes, which cells share that share their root, and on it a devpts
//! instance and `/dev/shm` of its own.

use crate::cell::error::{Result, Step};
use crate::cell::mounts::{self, NOSUID_NODEV};
use crate::sys;
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, fstat, makedev, mknodat, umask};
use nix::unistd::symlinkat;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Character devices of the "memory" and "tty" majors (Documentation/admin-guide/devices.txt).
const NODES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("pts/ptmx", "ptmx"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// The group that owns terminals on every distribution (`tty`), inside the cell.
const TTY_GID: u32 = 5;

/// A new, detached devpts instance for the cell whose root is the host uid `owner`.
pub fn new_pts(owner: u32) -> Result<OwnedFd> {
    let tty = (owner + TTY_GID).to_string();
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    let options: &[(&std::ffi::CStr, &str)] = &[
        (c"mode", "620"),
        (c"ptmxmode", "666"),
        // Of 3,072, which all instances share (drivers/tty/pty.c keeps 1,024 of 4,096 for the host's own): so many that as many
        // commands as the server runs at a time by default (512) can't have them all.
        (c"max", "5"),
        (c"gid", &tty),
    ];
    mounts::new(c"devpts", options, attributes)
}

/// Mounts `/dev`, as far as all cells with the same root may share it: nodes, links and places for mounts of their own. It is
/// read-only. `owner` is the host uid of the cell's root. Must run while the caller is root of the
/// host's user namespace: only then may nodes be made.
pub fn mount_dev(root: BorrowedFd<'_>, owner: u32) -> Result<()> {
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    let dev = mounts::tmpfs(65536, 64, owner, "755", attributes)?;
    let mask = umask(Mode::empty());
    for (name, major, minor) in NODES {
        let mode = Mode::from_bits_truncate(0o666);
        mknodat(&dev, name, SFlag::S_IFCHR, mode, makedev(major, minor))
            .step(&format!("make /dev/{name}"))?;
    }
    for (target, name) in LINKS {
        symlinkat(target, &dev, name).step(&format!("link /dev/{name}"))?;
    }
    for name in ["pts", "shm"] {
        nix::sys::stat::mkdirat(&dev, name, Mode::from_bits_truncate(0o755))
            .step(&format!("make /dev/{name}"))?;
    }
    umask(mask);
    sys::mount::mount_setattr(dev.as_fd(), libc::MOUNT_ATTR_RDONLY, None, false)
        .step("seal /dev")?;
    mounts::attach(dev.as_fd(), root, c"dev")
}

/// The `/dev` of a root that [`mount_dev`] was used on.
///
/// # Errors
/// ENODEV where it is a directory of that root's own file system: then whatever lies there is a tenant's.
pub fn find(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let step = "open /dev";
    let dev = mounts::beneath_dir(root, c"dev").step(step)?;
    let [outer, inner] = [root, dev.as_fd()].map(|fd| fstat(fd).map(|stat| stat.st_dev));
    match outer.step(step)? == inner.step(step)? {
        true => Err(Errno::ENODEV).step(step),
        false => Ok(dev),
    }
}

/// What a cell has below `dev` for itself: `pts` becomes `/dev/pts`, and `/dev/shm` is `shm_bytes` large. `hidden` is a mount
/// that only has to be attached anywhere: it comes below `/dev/shm`, where nobody reaches it.
pub fn mount_own(
    dev: BorrowedFd<'_>,
    owner: u32,
    shm_bytes: u64,
    pts: BorrowedFd<'_>,
    hidden: Option<BorrowedFd<'_>>,
) -> Result<()> {
    mounts::attach(pts, dev, c"pts")?;
    let attributes = NOSUID_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let shm = mounts::tmpfs(
        shm_bytes,
        mounts::inodes_for(shm_bytes),
        owner,
        "1777",
        attributes,
    )?;
    if let Some(hidden) = hidden {
        mounts::attach(hidden, dev, c"shm")?;
    }
    mounts::attach(shm.as_fd(), dev, c"shm")
}
