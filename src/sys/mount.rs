//! The mount calls that work on descriptors (Linux 5.2, mount_setattr 5.12).

use super::{Result, check, new_fd};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// open_tree(2) with OPEN_TREE_CLONE (Linux 5.2): a detached copy of the mount at `path`, of all below it if `recursive`.
pub fn open_tree_clone(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    flags |= libc::AT_EMPTY_PATH as u32 | libc::AT_SYMLINK_NOFOLLOW as u32;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    // SAFETY: path is NUL-ended and outlives the call; the rest are integers.
    check(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) })
        .map(new_fd)
}

/// move_mount(2) (Linux 5.2): attaches the detached mount `from` on the very object that `to` refers to. Both are
/// descriptors, so no path is looked up again between check and use.
pub fn move_mount(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    move_mount_onto(from, to, c"")
}

/// [`move_mount`] onto what `path` leads to from `to`: only where no tenant has a say in what lies on the way. A link at
/// its end is not followed.
pub fn move_mount_onto(from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    const F_EMPTY_PATH: libc::c_uint = 0x4;
    const T_EMPTY_PATH: libc::c_uint = 0x40;
    // SAFETY: both paths are NUL-ended and outlive the call; the rest are integers.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from.as_raw_fd(),
            c"".as_ptr(),
            to.as_raw_fd(),
            path.as_ptr(),
            F_EMPTY_PATH | T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// fsopen(2) (Linux 5.2): a new, not yet configured file system of the given type.
pub fn fsopen(fstype: &CStr) -> Result<OwnedFd> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    // SAFETY: fstype is NUL-ended and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) }).map(new_fd)
}

/// fsconfig(2) FSCONFIG_SET_STRING, or FSCONFIG_SET_FLAG where there is no value.
pub fn fsconfig_set(fs: BorrowedFd<'_>, key: &CStr, value: Option<&CStr>) -> Result<()> {
    const SET_FLAG: libc::c_uint = 0;
    const SET_STRING: libc::c_uint = 1;
    let (command, value) = match value {
        Some(value) => (SET_STRING, value.as_ptr()),
        None => (SET_FLAG, std::ptr::null()),
    };
    // SAFETY: key and value are NUL-ended and outlive the call; a null value is what SET_FLAG wants.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            fs.as_raw_fd(),
            command,
            key.as_ptr(),
            value,
            0,
        )
    })
    .map(drop)
}

/// fsconfig(2) FSCONFIG_CMD_CREATE, then fsmount(2): the configured file system as a detached mount with MOUNT_ATTR_*.
pub fn fsmount(fs: BorrowedFd<'_>, attributes: u64) -> Result<OwnedFd> {
    const CMD_CREATE: libc::c_uint = 6;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: CMD_CREATE takes neither key nor value; both are null as fsconfig(2) demands.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            fs.as_raw_fd(),
            CMD_CREATE,
            null,
            null,
            0,
        )
    })?;
    // SAFETY: integers only.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            fs.as_raw_fd(),
            FSMOUNT_CLOEXEC,
            attributes,
        )
    })
    .map(new_fd)
}

/// mount_setattr(2) (Linux 5.12) on the mount that `mount` refers to: sets MOUNT_ATTR_* `attributes`, makes propagation
/// private, and with `idmap` maps owners by that user namespace (detached mounts only).
pub fn mount_setattr(
    mount: BorrowedFd<'_>,
    attributes: u64,
    idmap: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> Result<()> {
    let mut attr = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    if let Some(userns) = idmap {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = userns.as_raw_fd() as u64;
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: attr is initialised, outlives the call, and its size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}
