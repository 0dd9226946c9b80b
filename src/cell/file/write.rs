//! Writes a regular file so that it is there as a whole or not at all: into a file without a name, which the kernel
//! removes however this process ends, and only when every byte has come and is stored under the name that was asked for.

use super::place::Place;
use super::{CHUNK, Refusal, Report, by_descriptor, tell};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{UnlinkatFlags, fdatasync, fsync, linkat, read, unlinkat, write};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

/// Bytes after which what was written is stored before more is taken. So much at the most is left to wait for at the end,
/// when the client waits for nothing else: a slow disk is felt by who sends.
const STORE_EVERY: usize = 8 * 1024 * 1024;

const FLAGS: OFlag = OFlag::O_WRONLY.union(OFlag::O_CLOEXEC);

/// Of a new file, before the mask.
const MODE: Mode = Mode::from_bits_truncate(0o666);

/// Reports that the bytes may come, takes them, puts the file in its place, reports that.
pub fn run(path: &CStr) -> Result<(), Refusal> {
    let place = Place::find(path)?;
    let new = NewFile::create(&place)?;
    tell(Report::Ready(0))?;
    if receive(&new.file)? {
        new.put(&place)?;
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
            let mut rest = &buffer[..count];
            while !rest.is_empty() {
                rest = &rest[write(file, rest)?..];
            }
            left -= count;
            unstored += count;
            if unstored >= STORE_EVERY {
                fdatasync(file)?;
                unstored = 0;
            }
        }
    }
}

/// A file on its way.
struct NewFile<'a> {
    file: OwnedFd,
    /// Where it has a name that is not the one it shall have: removed on drop.
    named: Option<(&'a OwnedFd, CString)>,
}

impl<'a> NewFile<'a> {
    fn create(place: &'a Place) -> Result<Self, Refusal> {
        match Self::unnamed(place) {
            // An overlay has such files since Linux 6.1.
            Err(Refusal::Kernel(Errno::EOPNOTSUPP | Errno::EISDIR)) => Self::named(place),
            created => created,
        }
    }

    fn unnamed(place: &'a Place) -> Result<Self, Refusal> {
        let flags = FLAGS | OFlag::O_TMPFILE;
        let file = openat(&place.directory, c".", flags, MODE)?;
        Ok(Self { file, named: None })
    }

    fn named(place: &'a Place) -> Result<Self, Refusal> {
        let name = unguessable()?;
        let flags = FLAGS | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let file = openat(&place.directory, name.as_c_str(), flags, MODE)?;
        let named = Some((&place.directory, name));
        Ok(Self { file, named })
    }

    /// Stores it and gives it its name, in place of whatever file has that name. The directories above are made now, so
    /// that what does not come to its end leaves none behind.
    fn put(mut self, place: &Place) -> Result<(), Refusal> {
        if let Some(mode) = place.mode {
            fchmod(&self.file, mode)?;
        }
        fsync(&self.file)?;
        let directory = place.make_directories()?;
        let (from, temporary) = match self.named.take() {
            Some((from, name)) => (from, name),
            None => {
                // linkat(2) replaces nothing, so there is no way around another name.
                let name = unguessable()?;
                let file = by_descriptor(&self.file);
                let flags = AtFlags::AT_SYMLINK_FOLLOW;
                linkat(AT_FDCWD, file.as_str(), &directory, name.as_c_str(), flags)?;
                (&directory, name)
            }
        };
        let name = place.name.as_c_str();
        renameat(from, temporary.as_c_str(), &directory, name).map_err(|errno| {
            let _ = unlinkat(from, temporary.as_c_str(), UnlinkatFlags::NoRemoveDir);
            errno.into()
        })
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if let Some((directory, name)) = &self.named {
            let _ = unlinkat(*directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir);
        }
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

    type Way = for<'a> fn(&'a Place) -> Result<NewFile<'a>, Refusal>;
    /// Without and with a name: what newer and older kernels offer.
    const WAYS: [Way; 2] = [
        |place| NewFile::unnamed(place),
        |place| NewFile::named(place),
    ];

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

            let new = make(&place).unwrap();
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
    fn what_can_not_be_put_in_its_place_leaves_nothing() {
        for make in WAYS {
            let dir = tempfile::tempdir().unwrap();
            let place = place_in(dir.path(), "taken");
            let new = make(&place).unwrap();
            std::fs::create_dir_all(dir.path().join("taken/x")).unwrap();
            assert_eq!(new.put(&place), Err(Errno::EISDIR.into()));
            assert_eq!(names(dir.path()), ["taken"]);
        }
    }
}
