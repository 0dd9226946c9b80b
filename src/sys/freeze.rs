//! Freezing a file system: FIFREEZE and FITHAW of linux/fs.h.

use super::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd};

/// _IOWR('X', 119, int)
const FIFREEZE: libc::c_ulong = 0xc004_5877;
/// _IOWR('X', 120, int)
const FITHAW: libc::c_ulong = 0xc004_5878;

/// Writes everything of the file system that `dir` is on to its device, and holds every further write up until [`thaw`].
/// The freeze is the file system's: it outlives this process and even the last mount.
///
/// # Errors
/// EBUSY when it is frozen already.
pub fn freeze(dir: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: FIFREEZE ignores its argument.
    check(unsafe { libc::ioctl(dir.as_raw_fd(), FIFREEZE as _, 0) }.into()).map(drop)
}

/// Undoes [`freeze`].
///
/// # Errors
/// EINVAL when it is not frozen.
pub fn thaw(dir: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: FITHAW ignores its argument.
    check(unsafe { libc::ioctl(dir.as_raw_fd(), FITHAW as _, 0) }.into()).map(drop)
}
