//! Where a file is to be written: the path is walked part by part and by descriptor, and nothing is made or opened for
//! writing on the way.
//!
//! Commands may remove and put back what it leads through meanwhile. What was found before and is another thing now is
//! EBUSY here, and [`again`] walks once more.

use super::{Refusal, in_proc};
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, readlinkat};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use rustix::fs::StatxFlags;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

/// Links followed at the end of a path: as many as the kernel follows, path_resolution(7).
const MAX_LINKS: usize = 40;

/// Walks before it is said that a path does not hold still. A walk is over in microseconds, so that few are overtaken.
const MAX_WALKS: usize = 32;

const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY);

/// Tries until nobody is in the way who removes directories at the same time.
pub(super) fn again<T>(mut attempt: impl FnMut() -> Result<T, Refusal>) -> Result<T, Refusal> {
    for _ in 1..MAX_WALKS {
        match attempt() {
            Err(Refusal::Kernel(Errno::EBUSY)) => {}
            done => return done,
        }
    }
    attempt()
}

/// What it means that something is not there which we hold, or have just made or seen.
pub(super) fn removed(errno: Errno) -> Errno {
    match errno {
        Errno::ENOENT => Errno::EBUSY,
        errno => errno,
    }
}

/// A place for a file.
#[derive(Debug)]
pub(super) struct Place {
    /// The deepest directory on the way that exists.
    pub(super) directory: OwnedFd,
    /// What is missing below it.
    missing: Vec<CString>,
    /// The file's name in the last of those.
    pub(super) name: CString,
    /// Permissions of the file that is there.
    pub(super) mode: Option<Mode>,
}

impl Place {
    /// Finds the place that an absolute path names. A link at its end is followed, also one that leads to nothing yet, so
    /// that it is still a link afterwards.
    pub(super) fn find(path: &CStr) -> Result<Place, Refusal> {
        let root = open("/", DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let (mut from, mut path) = (root.try_clone().map_err(io)?, path.to_bytes().to_vec());
        for _ in 0..=MAX_LINKS {
            let (parents, name) = split(&path);
            if matches!(name, b"" | b"." | b"..") {
                descend(&from, &path)?;
                return Err(Errno::EISDIR.into());
            }
            let name = text(name)?;
            let (directory, missing) = descend(&from, parents)?;
            // What its links say is no path.
            if in_proc(&directory)? {
                return Err(Refusal::Elsewhere);
            }
            let mut place = Place {
                directory,
                missing,
                name,
                mode: None,
            };
            if !place.missing.is_empty() {
                return place.on_the_disk(&root);
            }
            let (directory, name) = (&place.directory, place.name.as_c_str());
            let status = match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Err(Errno::ENOENT) => return place.on_the_disk(&root),
                other => other?,
            };
            match status.st_mode & libc::S_IFMT {
                libc::S_IFREG => {
                    place.mode = Some(Mode::from_bits_truncate(status.st_mode & 0o777));
                    return place.on_the_disk(&root);
                }
                libc::S_IFDIR => return Err(Errno::EISDIR.into()),
                libc::S_IFLNK => {
                    path = readlinkat(directory, name).map_err(relinked)?.into_vec();
                    from = match path.starts_with(b"/") {
                        true => root.try_clone().map_err(io)?,
                        false => place.directory,
                    };
                }
                _ => return Err(Refusal::NotRegular),
            }
        }
        Err(Errno::ELOOP.into())
    }

    /// Only what lies on the same mount as the root is the runtime's own and kept.
    fn on_the_disk(self, root: &OwnedFd) -> Result<Place, Refusal> {
        match mount_id(&self.directory)? == mount_id(root)? {
            true => Ok(self),
            false => Err(Refusal::Elsewhere),
        }
    }

    /// Makes what is missing and gives the directory that the file belongs into. A link that somebody else put there
    /// meanwhile is not followed: it might leave the disk.
    pub(super) fn make_directories(&self) -> Result<OwnedFd, Refusal> {
        let mut directory = self.directory.try_clone().map_err(io)?;
        for name in &self.missing {
            match mkdirat(&directory, name.as_c_str(), Mode::from_bits_truncate(0o777)) {
                // Somebody else was faster.
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(removed(errno).into()),
            }
            directory = enter(&directory, name, libc::RESOLVE_NO_SYMLINKS).map_err(removed)?;
        }
        Ok(directory)
    }
}

/// The directories of a path and its last part.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let at = path.iter().rposition(|byte| *byte == b'/');
    path.split_at(at.map_or(0, |slash| slash + 1))
}

/// Goes down as far as there are directories; gives the last one and the names of those that are missing.
fn descend(from: &OwnedFd, path: &[u8]) -> Result<(OwnedFd, Vec<CString>), Refusal> {
    let mut directory = from.try_clone().map_err(io)?;
    let mut names = path
        .split(|byte| *byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."));
    while let Some(part) = names.next() {
        let name = text(part)?;
        match enter(&directory, &name, libc::RESOLVE_NO_MAGICLINKS) {
            Ok(next) => directory = next,
            Err(Errno::ENOENT) => {
                let missing: Result<Vec<CString>, Refusal> = names.map(text).collect();
                let missing = [vec![name], missing?].concat();
                let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
                return match fstatat(&directory, missing[0].as_c_str(), flags) {
                    // A directory can't be looked behind before it is made…
                    Err(Errno::ENOENT) if missing.iter().any(|name| name.as_c_str() == c"..") => {
                        Err(Errno::ENOENT.into())
                    }
                    Err(Errno::ENOENT) => Ok((directory, missing)),
                    // … nor made where a link to nothing is.
                    Ok(there) if there.st_mode & libc::S_IFMT == libc::S_IFLNK => {
                        Err(Errno::ENOENT.into())
                    }
                    // It has come meanwhile.
                    Ok(_) => Err(Errno::EBUSY.into()),
                    Err(errno) => Err(errno.into()),
                };
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok((directory, Vec::new()))
}

/// A directory of a directory; `resolve` says which links are not followed, the magic ones of `/proc` never being.
fn enter(directory: &OwnedFd, name: &CStr, resolve: u64) -> Result<OwnedFd, Errno> {
    sys::openat2(directory.as_fd(), name, DIRECTORY, resolve)
}

/// What was a link a moment ago is gone, or none any more.
fn relinked(errno: Errno) -> Errno {
    match removed(errno) {
        Errno::EINVAL => Errno::EBUSY,
        errno => errno,
    }
}

fn mount_id(directory: &OwnedFd) -> Result<u64, Refusal> {
    let flags = rustix::fs::AtFlags::EMPTY_PATH;
    // Since Linux 5.8.
    let status = rustix::fs::statx(directory, c"", flags, StatxFlags::MNT_ID)
        .map_err(|error| Errno::from_raw(error.raw_os_error()))?;
    Ok(status.stx_mnt_id)
}

fn text(name: &[u8]) -> Result<CString, Refusal> {
    CString::new(name).map_err(|_| Errno::EINVAL.into())
}

pub(super) fn io(error: std::io::Error) -> Refusal {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)).into()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::path::Path;

    /// A place below a directory of the host, whatever mount that is on.
    pub(in super::super) fn place_in(directory: &Path, path: &str) -> Place {
        let directory = open(directory, DIRECTORY, Mode::empty()).unwrap();
        let (parents, name) = split(path.as_bytes());
        let (directory, missing) = descend(&directory, parents).unwrap();
        Place {
            directory,
            missing,
            name: text(name).unwrap(),
            mode: None,
        }
    }

    fn failure(directory: &Path, path: &str) -> Refusal {
        let directory = open(directory, DIRECTORY, Mode::empty()).unwrap();
        descend(&directory, split(path.as_bytes()).0).err().unwrap()
    }

    #[test]
    fn finds_what_is_missing_and_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("there")).unwrap();
        let place = place_in(dir.path(), "there//./a/b/file");
        assert_eq!(place.missing, [c"a".to_owned(), c"b".to_owned()]);
        assert_eq!(place.name.as_c_str(), c"file");
        assert!(!dir.path().join("there/a").exists());
        place.make_directories().unwrap();
        assert!(dir.path().join("there/a/b").is_dir());
        // Who comes second finds them made.
        place.make_directories().unwrap();

        let place = place_in(dir.path(), "c/file");
        std::os::unix::fs::symlink("there", dir.path().join("c")).unwrap();
        assert_eq!(place.make_directories().err(), Some(Errno::ELOOP.into()));
    }

    #[test]
    fn refuses_what_is_no_way() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("nothing", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/proc/self/cwd", dir.path().join("magic")).unwrap();
        assert_eq!(failure(dir.path(), "file/x"), Errno::ENOTDIR.into());
        assert_eq!(failure(dir.path(), "link/x"), Errno::ENOENT.into());
        assert_eq!(failure(dir.path(), "absent/../x"), Errno::ENOENT.into());
        assert_eq!(failure(dir.path(), "magic/x"), Errno::ELOOP.into());
    }

    #[test]
    fn what_was_removed_on_the_way_is_looked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        let place = place_in(dir.path(), "a/b/file");
        std::fs::remove_dir(dir.path().join("a")).unwrap();
        assert_eq!(place.make_directories().err(), Some(Errno::EBUSY.into()));
        let mut walks = 0;
        again(|| {
            walks += 1;
            match walks {
                1 => place.make_directories(),
                _ => place_in(dir.path(), "a/b/file").make_directories(),
            }
        })
        .unwrap();
        assert!(dir.path().join("a/b").is_dir());
        // Not for ever.
        assert_eq!(
            again(|| place.make_directories()).err(),
            Some(Errno::EBUSY.into())
        );
    }
}
