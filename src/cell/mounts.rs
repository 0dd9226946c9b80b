//! Mounting by descriptor: new file systems are made detached, configured, and only then attached on an object that
//! was opened without following a link. No step looks a path up twice, but for
//! names right below a `/proc` that has just been mounted (`procfs`).

use crate::cell::error::{Result, Step};
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::MsFlags;
use nix::sys::stat::Mode;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// No set-user-ID, no devices: what every mount in a cell has.
pub const NOSUID_NODEV: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
/// [`NOSUID_NODEV`] and read-only.
pub const READ_ONLY: u64 = NOSUID_NODEV | libc::MOUNT_ATTR_RDONLY;

/// A directory's descriptor, following links: for paths of the operator's, never of a tenant's.
pub fn host_dir(path: &std::path::Path) -> Result<OwnedFd> {
    open(
        path,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .step(&format!("open {}", path.display()))
}

/// An object below `root` by a path in which no component may be a link, and which can't leave `root`.
///
/// A tenant can put a link where the runtime is about to mount (CVE-2025-31133 and its kin); this refuses it (ELOOP).
pub fn beneath(root: BorrowedFd<'_>, path: &CStr) -> std::result::Result<OwnedFd, Errno> {
    let resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    sys::openat2(root, path, OFlag::O_PATH | OFlag::O_NOFOLLOW, resolve)
}

/// A directory below `root`, as [`beneath`] finds it.
pub fn beneath_dir(root: BorrowedFd<'_>, path: &CStr) -> std::result::Result<OwnedFd, Errno> {
    let resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    sys::openat2(root, path, OFlag::O_PATH | OFlag::O_DIRECTORY, resolve)
}

/// A new, detached mount of `fstype` with `options` (`name`, `value`) and MOUNT_ATTR_* `attributes`.
pub fn new(fstype: &CStr, options: &[(&CStr, &str)], attributes: u64) -> Result<OwnedFd> {
    let name = fstype.to_string_lossy();
    let fs = sys::mount::fsopen(fstype).step(&format!("fsopen {name}"))?;
    for (key, value) in options {
        let step = || format!("{name} option {}={value}", key.to_string_lossy());
        let value = CString::new(*value)
            .map_err(|_| Errno::EINVAL)
            .step(&step())?;
        sys::mount::fsconfig_set(fs.as_fd(), key, Some(&value)).step(&step())?;
    }
    sys::mount::fsmount(fs.as_fd(), attributes).step(&format!("create {name}"))
}

/// An overlay on the directory `path` of the caller's own, by mount(2): the names of up to 128 layers are more than the 256
/// bytes that fsconfig(2) takes, and to name them one by one (`lowerdir+`) takes Linux 6.8. Here they may fill a page.
pub fn overlay(options: &str, path: &CStr, read_only: bool) -> Result<OwnedFd> {
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    flags.set(MsFlags::MS_RDONLY, read_only);
    let overlay = Some(c"overlay");
    nix::mount::mount(overlay, path, overlay, flags, Some(options)).step("create overlay")?;
    // Opened after the mount: what is there now is its root.
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).step("open the overlay")
}

/// A tmpfs of at most `bytes` and `inodes` whose root has this owner and mode.
pub fn tmpfs(bytes: u64, inodes: u64, owner: u32, mode: &str, attributes: u64) -> Result<OwnedFd> {
    let owner = owner.to_string();
    let options: &[(&CStr, &str)] = &[
        (c"size", &bytes.to_string()),
        (c"nr_inodes", &inodes.to_string()),
        (c"uid", &owner),
        (c"gid", &owner),
        (c"mode", mode),
    ];
    new(c"tmpfs", options, attributes)
}

/// Inodes for a tmpfs of this size: one per 4 KiB page, as the kernel's own default counts.
pub fn inodes_for(bytes: u64) -> u64 {
    (bytes / 4096).max(64)
}

/// Attaches a detached mount on `path` below `root`.
pub fn attach(mount: BorrowedFd<'_>, root: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    let step = format!("mount on {}", path.to_string_lossy());
    let target = beneath(root, path).step(&step)?;
    sys::mount::move_mount(mount, target.as_fd()).step(&step)
}

/// Makes `new_root` (an attached mount) the root of the mount namespace and detaches the old one with all below it.
///
/// # Errors
/// EINVAL when the machine runs from an initramfs: pivot_root(2) can't replace that; boot with switch_root first.
pub fn pivot(new_root: BorrowedFd<'_>) -> Result<()> {
    nix::unistd::fchdir(new_root).step("enter the new root")?;
    nix::unistd::pivot_root(".", ".").step("pivot_root")?;
    nix::mount::umount2(".", nix::mount::MntFlags::MNT_DETACH).step("detach the old root")?;
    nix::unistd::chdir("/").step("enter /")
}

/// The caller's root directory.
pub fn root() -> Result<OwnedFd> {
    host_dir("/".as_ref())
}
