//! Sends a regular file.

use super::{CHUNK, Refusal, Report, by_descriptor, in_proc, tell};
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{read, write};
use std::ffi::CStr;
use std::os::fd::OwnedFd;

/// Reports the size and sends as many bytes, or fewer if the file is shorter by then.
pub fn run(path: &CStr) -> Result<(), Refusal> {
    let (file, size) = open_regular(path)?;
    tell(Report::Ready(size))?;
    let mut buffer = vec![0; CHUNK];
    let mut left = size;
    while left > 0 {
        let wanted = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = read(&file, &mut buffer[..wanted])?;
        if count == 0 {
            break;
        }
        left -= count as u64;
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            rest = &rest[write(std::io::stdout(), rest)?..];
        }
    }
    Ok(())
}

/// Opens what the path names, and tells its size.
///
/// The path is looked up once, without opening what is found: to open a FIFO would wake a writer that waits for a
/// reader, and to open a device may do anything.
fn open_regular(path: &CStr) -> Result<(OwnedFd, u64), Refusal> {
    // The magic links of /proc would lead to what this process itself has open.
    let place = sys::openat2(AT_FDCWD, path, OFlag::O_PATH, libc::RESOLVE_NO_MAGICLINKS)?;
    match fstat(&place)?.st_mode & libc::S_IFMT {
        libc::S_IFREG => {}
        libc::S_IFDIR => return Err(Errno::EISDIR.into()),
        _ => return Err(Refusal::NotRegular),
    }
    if in_proc(&place)? {
        return Err(Refusal::Elsewhere);
    }
    // O_NONBLOCK: where a command holds a lease on the file, an open would wait for it (fcntl(2), F_SETLEASE).
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = open(by_descriptor(&place).as_str(), flags, Mode::empty())?;
    let size = fstat(&file)?.st_size;
    Ok((file, u64::try_from(size).unwrap_or_default()))
}
