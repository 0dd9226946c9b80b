//! The terminal of a cell. The warden makes it before the cell exists, in a devpts instance that the cell then mounts as
//! its `/dev/pts`: so no descriptor ever comes out of a cell, and the master is with the api before anything can fail.

use crate::cell::devices;
use crate::cell::error::{Result, Step};
use crate::sys::terminal::{open_pair, set_size};
use crate::warden::protocol::TerminalSize;
use nix::sys::termios::{InputFlags, SetArg, tcgetattr, tcsetattr};
use nix::unistd::{Uid, fchown};
use std::os::fd::{AsFd, OwnedFd};

/// A new terminal.
#[derive(Debug)]
pub struct Terminal {
    /// What the api reads and writes.
    pub master: OwnedFd,
    /// What becomes the command's standard streams and its controlling terminal.
    pub slave: OwnedFd,
    /// The devpts instance that both are in, not attached anywhere yet.
    pub pts: OwnedFd,
}

/// Makes a terminal of this size that belongs to the host uid `owner`, for the cell whose root is `uid_base`.
pub fn make(uid_base: u32, owner: u32, size: TerminalSize) -> Result<Terminal> {
    let pts = devices::new_pts(uid_base)?;
    let (master, slave) = open_pair(pts.as_fd()).step("open a terminal")?;
    // Its group is `tty` already, an option of the instance. The owner may open /dev/pts/0 and /dev/stdout again.
    fchown(&slave, Some(Uid::from_raw(owner)), None).step("give the terminal to the command")?;
    set_size(master.as_fd(), size.rows.get(), size.cols.get()).step("set the terminal's size")?;
    // LANG is C.UTF-8 in every cell: erasing must take whole characters (termios(3)).
    let mut termios = tcgetattr(&slave).step("read the terminal's settings")?;
    termios.input_flags |= InputFlags::IUTF8;
    tcsetattr(&slave, SetArg::TCSANOW, &termios).step("change the terminal's settings")?;
    Ok(Terminal { master, slave, pts })
}
