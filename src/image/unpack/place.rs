//! Making one file or link, and giving a thing its attributes.

use super::tar::Entry;
use super::tree::{c_path, owner};
use super::trouble::{Result, Trouble};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{LinkatFlags, fchown, fchownat, linkat, symlinkat};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What is copied at once.
const PIECE: usize = 128 << 10;
/// Longest target of a symbolic link.
const MAX_TARGET: usize = 4095;

/// What a file or directory is given beside its content.
pub struct Attributes<'a> {
    ids: (u32, u32),
    /// For a file.
    file_mode: u32,
    /// For a directory.
    directory_mode: u32,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    xattrs: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Attributes<'a> {
    /// What of an entry's is kept: no set-id bits of files, and of extended attributes only the users' own, of which
    /// overlayfs's would change what is seen of other layers.
    pub fn of(entry: &'a Entry, ids: (u32, u32)) -> Attributes<'a> {
        let kept = |name: &[u8]| name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        let xattrs = entry.xattrs.iter().filter(|(name, _)| kept(name));
        Attributes {
            ids,
            file_mode: entry.mode & 0o777,
            directory_mode: entry.mode & 0o3777,
            mtime: entry.mtime,
            xattrs: xattrs
                .map(|(name, value)| (&name[..], &value[..]))
                .collect(),
        }
    }

    /// Of a root that an archive does not mention.
    pub fn of_root() -> Attributes<'a> {
        Attributes {
            ids: (0, 0),
            file_mode: 0,
            directory_mode: 0o755,
            mtime: (0, 0),
            xattrs: Vec::new(),
        }
    }

    /// What the extended attributes take.
    pub fn xattr_bytes(&self) -> u64 {
        let sizes = self
            .xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len());
        sizes.sum::<usize>() as u64
    }
}

/// The mode of a directory that only its content tells of: root's, for all to read. The two that everybody writes to would
/// else be closed where a layer adds a file to them without naming them.
pub fn implied_mode(path: &[u8]) -> u32 {
    match path {
        b"tmp" | b"var/tmp" => 0o1777,
        _ => 0o755,
    }
}

/// Makes a regular file with what the archive holds of it. Nothing may be there.
pub fn file(
    parent: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    archive: &mut impl Read,
    attributes: &Attributes<'_>,
) -> Result<()> {
    // O_EXCL: a link that is there is not followed either.
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let opened = openat(parent, &*c_path(name), flags, Mode::S_IRUSR | Mode::S_IWUSR);
    let mut file = File::from(opened.map_err(|errno| Trouble::placing("make the file", errno))?);
    let whole = [(0, entry.size)];
    for (offset, length) in entry.pieces.as_deref().unwrap_or(&whole) {
        if *offset > 0 {
            file.seek(SeekFrom::Start(*offset)).map_err(write_failed)?;
        }
        copy(archive, &mut file, *length)?;
    }
    if entry.pieces.is_some() {
        file.set_len(entry.size).map_err(write_failed)?;
    }
    give(file.as_fd(), attributes, attributes.file_mode)?;
    set_time(&file, attributes.mtime).map_err(|errno| Trouble::placing("set its time", errno))
}

fn copy(archive: &mut impl Read, file: &mut File, mut left: u64) -> Result<()> {
    let mut buffer = vec![0; usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))];
    while left > 0 {
        let count = buffer.len().min(usize::try_from(left).unwrap_or(PIECE));
        let piece = &mut buffer[..count];
        archive.read_exact(piece).map_err(super::tar::early)?;
        file.write_all(piece).map_err(write_failed)?;
        left -= count as u64;
    }
    Ok(())
}

fn write_failed(error: std::io::Error) -> Trouble {
    Trouble::Failed(format!("write the file: {error}"))
}

/// Whether a symbolic link can lead there. Where it leads means something inside a cell only.
pub fn check_target(target: &[u8]) -> Result<()> {
    match target {
        [] => Err(Trouble::refused("is a symbolic link to nothing")),
        _ if target.contains(&0) => Err(Trouble::refused("has a NUL byte in its target")),
        _ if target.len() > MAX_TARGET => Err(Trouble::refused("has too long a target")),
        _ => Ok(()),
    }
}

/// Makes a symbolic link. Nothing may be there.
pub fn symlink(
    parent: BorrowedFd<'_>,
    name: &[u8],
    target: &[u8],
    attributes: &Attributes<'_>,
) -> Result<()> {
    let name = c_path(name);
    let (uid, gid) = owner(attributes.ids);
    let time = time(attributes.mtime);
    symlinkat(&*c_path(target), parent, &*name)
        .and_then(|()| fchownat(parent, &*name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW))
        .and_then(|()| {
            utimensat(
                parent,
                &*name,
                &time,
                &time,
                UtimensatFlags::NoFollowSymlink,
            )
        })
        .map_err(|errno| Trouble::placing("make the link", errno))
}

/// Gives a file another name; a symbolic link as well, without following it.
pub fn hard_link(
    from: &OwnedFd,
    from_name: &[u8],
    to: BorrowedFd<'_>,
    to_name: &[u8],
) -> nix::Result<()> {
    let (from_name, to_name) = (c_path(from_name), c_path(to_name));
    linkat(from, &*from_name, to, &*to_name, LinkatFlags::empty())
}

/// Gives a directory its owner, mode and extended attributes, not its time.
pub fn attributes(directory: BorrowedFd<'_>, attributes: &Attributes<'_>) -> Result<()> {
    give(directory, attributes, attributes.directory_mode)
}

fn give(thing: BorrowedFd<'_>, attributes: &Attributes<'_>, mode: u32) -> Result<()> {
    let (uid, gid) = owner(attributes.ids);
    fchown(thing, uid, gid).map_err(|errno| Trouble::placing("give it its owner", errno))?;
    // After the owner, a change of which takes bits away.
    fchmod(thing, Mode::from_bits_truncate(mode))
        .map_err(|errno| Trouble::placing("give it its mode", errno))?;
    for (name, value) in &attributes.xattrs {
        let Ok(name) = std::ffi::CString::new(*name) else {
            return Err(Trouble::refused("has a NUL byte in an attribute's name"));
        };
        let set = rustix::fs::fsetxattr(thing, &*name, value, rustix::fs::XattrFlags::empty());
        match set.map_err(|errno| Errno::from_raw(errno.raw_os_error())) {
            // A file system without them: they go, as in every copy to it.
            Ok(()) | Err(Errno::ENOTSUP) => {}
            Err(Errno::E2BIG | Errno::ERANGE | Errno::ENOSPC) => {
                return Err(Trouble::refused(
                    "has an extended attribute that is too long",
                ));
            }
            Err(errno) => return Err(Trouble::placing("give it an extended attribute", errno)),
        }
    }
    Ok(())
}

/// Sets the time of an open file or directory.
pub fn set_time(thing: impl AsFd, mtime: (i64, u32)) -> nix::Result<()> {
    let time = time(mtime);
    futimens(thing, &time, &time)
}

/// What the disk can't keep is brought to the nearest by the kernel.
fn time((seconds, nanos): (i64, u32)) -> TimeSpec {
    TimeSpec::new(seconds, nanos.into())
}
