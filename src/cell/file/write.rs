//! Writes a regular file so that it is there as a whole or not at all: into a file without a name, which the kernel
//! removes however this process ends, and only when every byte has come and is stored under the name that was asked for.

use super::place::{Place, again, io, removed};
use super::{CHUNK, Refusal, Report, by_descriptor, tell};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod, fstatat};
use nix::sys::statvfs::fstatvfs;
use nix::sys::uio::pread;
use nix::unistd::{UnlinkatFlags, fdatasync, fsync, linkat, read, unlinkat, write};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

/// Bytes after which what was written is stored before more is taken. So much at the most is left to wait for at the end,
/// when the client waits for nothing else: a slow disk is felt by who sends.
const STORE_EVERY: usize = 8 * 1024 * 1024;

/// Read as well, should it have to be made once more.
const FLAGS: OFlag = OFlag::O_RDWR.union(OFlag::O_CLOEXEC);

/// Of a new file, before the mask.
const MODE: Mode = Mode::from_bits_truncate(0o666);

/// Reports that the bytes may come, takes them, puts the file in its place, reports that.
pub fn run(path: &CStr) -> Result<(), Refusal> {
    let mut new = again(|| NewFile::create(&Place::find(path)?))?;
    tell(Report::Ready(0))?;
    if receive(&new.file)? {
        // What the path leads through may have been removed, and put back, while the bytes came.
        again(|| new.put(&Place::find(path)?))?;
        tell(Report::Done)?;
    }
    Ok(())
}

/// Takes the frames from stdin; false when it ended without the empty frame that completes the file.
fn receive(file: &OwnedFd) -> Result<bool, Refusal> {
    let mut buffer = vec![0; CHUNK];
    let mut unstored = 0;
    loop {
        let mut header = [0; 4];
        let mut have = 0;
        while have < header.len() {
            match read(std::io::stdin(), &mut header[have..])? {
                0 => return Ok(false),
                count => have += count,
            }
        }
        let mut left = u32::from_le_bytes(header) as usize;
        if left == 0 {
            return Ok(true);
        }
        while left > 0 {
            let wanted = left.min(buffer.len());
            let count = read(std::io::stdin(), &mut buffer[..wanted])?;
            if count == 0 {
                return Ok(false);
            }
            write_all(file, &buffer[..count])?;
            left -= count;
            unstored += count;
            if unstored >= STORE_EVERY {
                stored(file, fdatasync(file))?;
                unstored = 0;
            }
        }
    }
}

/// What came of storing a file. Its own disk gave it its blocks when they were written, so one that has more of them is not the
/// one that is full.
fn stored(file: &OwnedFd, done: Result<(), Errno>) -> Result<(), Refusal> {
    /// Blocks that may be free and of no use: of the tables that tell where a file's blocks are.
    const TABLES: u64 = 64;
    match done {
        Err(Errno::ENOSPC) => match fstatvfs(file) {
            Ok(disk) if disk.blocks_available() > TABLES => Err(Refusal::HostFull),
            _ => Err(Errno::ENOSPC.into()),
        },
        done => Ok(done?),
    }
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        bytes = &bytes[write(file, bytes)?..];
    }
    Ok(())
}

/// A file on its way.
struct NewFile {
    file: OwnedFd,
    /// Where it has a name that is not the one it shall have: removed on drop.
    named: Option<(OwnedFd, CString)>,
}

impl NewFile {
    fn create(place: &Place) -> Result<Self, Refusal> {
        match Self::unnamed(place) {
            // An overlay has such files since Linux 6.1.
            Err(Refusal::Kernel(Errno::EOPNOTSUPP | Errno::EISDIR)) => Self::named(place),
            // What an overlay says of a directory that was removed; one that is closed is EACCES.
            Err(Refusal::Kernel(Errno::EPERM)) => Err(Errno::EBUSY.into()),
            created => created,
        }
    }

    fn unnamed(place: &Place) -> Result<Self, Refusal> {
        let flags = FLAGS | OFlag::O_TMPFILE;
        let file = openat(&place.directory, c".", flags, MODE).map_err(removed)?;
        Ok(Self { file, named: None })
    }

    fn named(place: &Place) -> Result<Self, Refusal> {
        let name = unguessable()?;
        let flags = FLAGS | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let directory = place.directory.try_clone().map_err(io)?;
        let file = openat(&directory, name.as_c_str(), flags, MODE).map_err(removed)?;
        let named = Some((directory, name));
        Ok(Self { file, named })
    }

    /// Stores it and gives it its name, in place of whatever file has that name. The directories above are made now, so
    /// that what does not come to its end leaves none behind.
    fn put(&mut self, place: &Place) -> Result<(), Refusal> {
        if let Some(mode) = place.mode {
            fchmod(&self.file, mode)?;
        }
        stored(&self.file, fsync(&self.file))?;
        let directory = place.make_directories()?;
        let to = place.name.as_c_str();
        if self.named.is_none() {
            let file = by_descriptor(&self.file);
            let link = |name: &CStr| {
                linkat(
                    AT_FDCWD,
                    file.as_str(),
                    &directory,
                    name,
                    AtFlags::AT_SYMLINK_FOLLOW,
                )
            };
            match link(to) {
                Ok(()) => return Ok(()),
                // linkat(2) replaces nothing, so there is no way around another name.
                Err(Errno::EEXIST) => {
                    let name = unguessable()?;
                    link(&name).map_err(removed)?;
                    self.named = Some((directory.try_clone().map_err(io)?, name));
                }
                Err(errno) => return Err(removed(errno).into()),
            }
        }
        if let Some((from, name)) = &self.named {
            match renameat(from, name.as_c_str(), &directory, to) {
                Ok(()) => self.named = None,
                Err(Errno::ENOENT) => {
                    if is_gone(from, name)? {
                        *self = self.copied(place)?;
                    }
                    return Err(Errno::EBUSY.into());
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Its bytes as another new file. The kernel gives no second name to a file that has lost its only one (linkat(2),
    /// ENOENT), and a command that removes all that is in a directory may take the name away in which it waits.
    fn copied(&self, place: &Place) -> Result<Self, Refusal> {
        let new = Self::create(place)?;
        let mut buffer = vec![0; CHUNK];
        let mut at = 0;
        loop {
            let count = pread(&self.file, &mut buffer, at)?;
            if count == 0 {
                return Ok(new);
            }
            write_all(&new.file, &buffer[..count])?;
            at += count as libc::off_t;
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some((directory, name)) = &self.named {
            let _ = unlinkat(directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

fn is_gone(directory: &OwnedFd, name: &CStr) -> Result<bool, Errno> {
    match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(false),
        Err(Errno::ENOENT) => Ok(true),
        Err(errno) => Err(errno),
    }
}

/// A name that nobody waits for.
fn unguessable() -> Result<CString, Refusal> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Errno::EIO)?;
    let name = format!(".cellblock-{:032x}", u128::from_le_bytes(bytes));
    CString::new(name).map_err(|_| Errno::EINVAL.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::file::place::tests::place_in;
    use std::path::Path;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    type Way = fn(&Place) -> Result<NewFile, Refusal>;
    /// Without and with a name: what newer and older kernels offer.
    const WAYS: [Way; 2] = [NewFile::unnamed, NewFile::named];

    #[test]
    fn nothing_is_there_before_all_is() {
        for make in WAYS {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("file"), "old").unwrap();
            let place = place_in(dir.path(), "a/b/file");
            let given_up = make(&place).unwrap();
            write(&given_up.file, b"half").unwrap();
            drop(given_up);
            assert_eq!(names(dir.path()), ["file"]);

            let mut new = make(&place).unwrap();
            write(&new.file, b"whole").unwrap();
            new.put(&place).unwrap();
            assert_eq!(names(dir.path()), ["a", "file"]);
            assert_eq!(names(&dir.path().join("a/b")), ["file"]);
            let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
            assert_eq!(read("a/b/file"), b"whole");

            let place = place_in(dir.path(), "file");
            make(&place).unwrap().put(&place).unwrap();
            assert_eq!(read("file"), b"");
            assert_eq!(names(dir.path()), ["a", "file"]);
        }
    }

    #[test]
    fn a_file_whose_name_on_the_way_was_removed_still_gets_to_its_place() {
        for make in WAYS {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a");
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("file"), "old").unwrap();
            let mut new = make(&place_in(dir.path(), "a/file")).unwrap();
            let bytes: Vec<u8> = (0..3 * CHUNK + 5).map(|n| (n % 251) as u8).collect();
            write_all(&new.file, &bytes).unwrap();
            if new.named.is_none() {
                // As when it replaces a file.
                let place = place_in(dir.path(), "a/file");
                let (from, name) = (by_descriptor(&new.file), unguessable().unwrap());
                let flags = AtFlags::AT_SYMLINK_FOLLOW;
                linkat(
                    AT_FDCWD,
                    from.as_str(),
                    &place.directory,
                    name.as_c_str(),
                    flags,
                )
                .unwrap();
                new.named = Some((place.directory, name));
            }
            std::fs::remove_dir_all(&path).unwrap();
            again(|| new.put(&place_in(dir.path(), "a/file"))).unwrap();
            assert_eq!(std::fs::read(path.join("file")).unwrap(), bytes);
            drop(new);
            assert_eq!(names(&path), ["file"]);
            assert_eq!(names(dir.path()), ["a"]);
        }
    }

    #[test]
    fn what_can_not_be_put_in_its_place_leaves_nothing() {
        for make in WAYS {
            let dir = tempfile::tempdir().unwrap();
            let place = place_in(dir.path(), "taken");
            let mut new = make(&place).unwrap();
            std::fs::create_dir_all(dir.path().join("taken/x")).unwrap();
            assert_eq!(new.put(&place), Err(Errno::EISDIR.into()));
            drop(new);
            assert_eq!(names(dir.path()), ["taken"]);
        }
    }
}
