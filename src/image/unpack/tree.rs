//! The directory that a layer is unpacked into: everything is found from its descriptor, beneath it, through no link.

use super::names;
use super::trouble::{Result, Trouble};
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, makedev, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, unlinkat};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a path may not do on its way.
const RESOLVE: u64 = libc::RESOLVE_BENEATH
    | libc::RESOLVE_NO_SYMLINKS
    | libc::RESOLVE_NO_MAGICLINKS
    | libc::RESOLVE_NO_XDEV;

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A directory.
    Directory,
    /// A whiteout of this layer.
    Whiteout,
    /// A regular file or a symbolic link.
    Other,
}

/// The layer's directory.
pub struct Tree {
    root: OwnedFd,
    /// The directory that was asked for last: entries come in the order of directories.
    last: Option<(names::Path, OwnedFd)>,
}

/// A path for the kernel; the root's own is `.`.
pub fn c_path(path: &[u8]) -> CString {
    let path = if path.is_empty() { b"." } else { path };
    CString::new(path).expect("checked names hold no NUL")
}

/// Opens a directory beneath another one, by a path without links.
pub fn open_dir(root: BorrowedFd<'_>, path: &[u8], flags: OFlag) -> nix::Result<OwnedFd> {
    sys::openat2(root, &c_path(path), flags | OFlag::O_DIRECTORY, RESOLVE)
}

impl Tree {
    /// Of a directory that nobody else writes to.
    pub fn new(root: OwnedFd) -> Tree {
        Tree { root, last: None }
    }

    /// An existing directory, for its attributes or its list.
    pub fn readable(&self, path: &[u8]) -> nix::Result<OwnedFd> {
        open_dir(self.root.as_fd(), path, OFlag::O_RDONLY)
    }

    /// An existing directory, to work in.
    pub fn directory(&mut self, path: &[u8]) -> nix::Result<BorrowedFd<'_>> {
        if self.last.as_ref().is_none_or(|(known, _)| known != path) {
            let opened = open_dir(self.root.as_fd(), path, OFlag::O_PATH)?;
            self.last = Some((path.to_vec(), opened));
        }
        let (_, opened) = self.last.as_ref().expect("just set");
        Ok(opened.as_fd())
    }

    /// What is at a path whose parent exists.
    pub fn look(&mut self, path: &[u8]) -> Result<Found> {
        let (parent, name) = names::split(path);
        let step = "look at it";
        let parent = self
            .directory(parent)
            .map_err(|e| Trouble::placing(step, e))?;
        match fstatat(parent, &*c_path(name), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(status) => Ok(found(&status)),
            Err(Errno::ENOENT) => Ok(Found::Nothing),
            Err(errno) => Err(Trouble::placing(step, errno)),
        }
    }

    /// Makes a directory of root's where there is nothing.
    pub fn make_directory(&mut self, path: &[u8], mode: u32) -> Result<()> {
        let (parent, name) = names::split(path);
        let mode = Mode::from_bits_truncate(mode);
        self.directory(parent)
            .and_then(|parent| mkdirat(parent, &*c_path(name), mode))
            .map_err(|errno| Trouble::placing("make the directory", errno))
    }

    /// Makes what says that a name is absent: a character device 0:0, which every user may make (Linux 5.8).
    pub fn make_whiteout(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = names::split(path);
        self.directory(parent)
            .and_then(|parent| {
                let name = c_path(name);
                mknodat(parent, &*name, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))
            })
            .map_err(|errno| Trouble::placing("make a whiteout", errno))
    }

    /// Removes what is there, with all below it; follows nothing.
    pub fn remove(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = names::split(path);
        let removed = self
            .directory(parent)
            .and_then(|parent| unlinkat(parent, &*c_path(name), UnlinkatFlags::NoRemoveDir));
        match removed {
            Err(Errno::EISDIR) => {
                self.last = None;
                self.remove_directories(path)
            }
            other => other,
        }
        .map_err(|errno| Trouble::placing("remove an earlier entry", errno))
    }

    /// One descriptor and no recursion, however deep it is.
    fn remove_directories(&self, path: &[u8]) -> nix::Result<()> {
        let mut open = vec![(path.to_vec(), false)];
        while let Some((path, emptied)) = open.pop() {
            if emptied {
                let (parent, name) = names::split(&path);
                let parent = open_dir(self.root.as_fd(), parent, OFlag::O_PATH)?;
                unlinkat(&parent, &*c_path(name), UnlinkatFlags::RemoveDir)?;
                continue;
            }
            let dir = self.readable(&path)?;
            open.push((path.clone(), true));
            for name in list(&dir)? {
                match unlinkat(&dir, &*c_path(&name), UnlinkatFlags::NoRemoveDir) {
                    Err(Errno::EISDIR) => open.push((names::join(&path, &name), false)),
                    other => other?,
                }
            }
        }
        Ok(())
    }
}

/// What a status tells.
pub fn found(status: &FileStat) -> Found {
    match SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => Found::Directory,
        SFlag::S_IFCHR => Found::Whiteout,
        _ => Found::Other,
    }
}

/// Names in a directory.
fn list(dir: &OwnedFd) -> nix::Result<Vec<Vec<u8>>> {
    let errno = |errno: rustix::io::Errno| Errno::from_raw(errno.raw_os_error());
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir).map_err(errno)? {
        let name = entry.map_err(errno)?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Owner and group for the kernel.
pub fn owner((uid, gid): (u32, u32)) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}
