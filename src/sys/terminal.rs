//! Pseudo-terminals by descriptor: no path is looked up, so it does not matter in whose `/dev/pts` they are.

use super::{Result, check, new_fd};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Opens a new pair, master and slave, in a devpts instance given by its root directory.
///
/// # Errors
/// ENOSPC when the instance or the host has no terminal left.
pub fn open_pair(devpts: BorrowedFd<'_>) -> Result<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = openat(devpts, "ptmx", flags, Mode::empty())?;
    let unlocked: libc::c_int = 0;
    let (fd, from) = (master.as_raw_fd(), &raw const unlocked);
    // SAFETY: TIOCSPTLCK reads one int, which outlives the call.
    check(unsafe { libc::ioctl(fd, libc::TIOCSPTLCK as _, from) }.into())?;
    // SAFETY: TIOCGPTPEER (Linux 4.13) takes open flags by value and returns a new descriptor.
    let slave = check(
        unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags.bits()) }.into(),
    )?;
    Ok((master, new_fd(slave)))
}

/// Sets a terminal's size in characters; its foreground process group gets SIGWINCH where that is a change.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, cols: u16) -> Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    check(
        unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) }.into(),
    )
    .map(drop)
}

/// Makes the terminal on a standard stream the controlling one of the caller's session, which must have none and be led
/// by the caller (TIOCSCTTY, ioctl_tty(2)).
pub fn make_controlling(stream: libc::c_int) -> Result<()> {
    // SAFETY: TIOCSCTTY takes an integer; 0 steals from nobody.
    check(unsafe { libc::ioctl(stream, libc::TIOCSCTTY as _, 0) }.into()).map(drop)
}
