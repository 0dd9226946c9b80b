//! Removal of trees that strangers packed: nothing of it is followed, and no depth of it is too deep.

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use uuid::Uuid;

/// Removes a directory and all below it; that there is none is fine. Never a mount point: mounts are made in namespaces of
/// their own only.
///
/// A directory that is not empty is moved up and emptied in its turn, so that two descriptors and no stack are enough. Two
/// that remove the same tree do not disturb each other.
pub(super) fn tree(path: &Path) -> io::Result<()> {
    let root = match open(CWD, path) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let prefix = Uuid::now_v7();
    let mut moved = 0_u64;
    loop {
        let names = names(root.as_fd())?;
        if names.is_empty() {
            break;
        }
        for name in names {
            if unlink(root.as_fd(), &name)? {
                continue;
            }
            let Some(child) = gone(open(root.as_fd(), &*name))? else {
                continue;
            };
            for below in self::names(child.as_fd())? {
                if !unlink(child.as_fd(), &below)? {
                    let up = format!(".{prefix}.{moved}");
                    moved += 1;
                    gone(renameat(&child, &*below, &root, up))?;
                }
            }
            gone(unlinkat(&root, &*name, AtFlags::REMOVEDIR))?;
        }
    }
    gone(unlinkat(CWD, path, AtFlags::REMOVEDIR))?;
    Ok(())
}

fn open(dir: BorrowedFd<'_>, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// Removes what is no directory, or an empty one; false for one that is not empty.
fn unlink(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(errno.into()),
    }
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Another process may have removed it, or filled what was empty: then the next round does the rest.
fn gone<T>(result: Result<T, Errno>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            found.push(name);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn removes_what_is_deeper_than_descriptors_reach_and_follows_nothing() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "").unwrap();
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("tree");
        fs::create_dir(&root).unwrap();
        symlink(outside.path(), root.join("link")).unwrap();
        // One path of 4096 bytes reaches no further; two do.
        let mut upper = root.join("a");
        for _ in 0..2 {
            let mut path = upper.clone();
            for _ in 0..1500 {
                path.push("d");
            }
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("file"), "x").unwrap();
            let above = place.path().join("above");
            fs::create_dir(&above).unwrap();
            fs::rename(root.join("a"), above.join("d")).unwrap();
            fs::rename(&above, root.join("a")).unwrap();
            upper = root.join("b");
        }
        tree(&root).unwrap();
        assert!(!root.exists());
        assert!(outside.path().join("kept").exists());
        tree(&root).unwrap();
    }
}
