//! What is too large for a packet goes beside it, in a sealed memfd: a command to the warden, an image's configuration and
//! lists of images to the api process.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

/// A memfd that holds `bytes` and can't be changed any more. Its name shows in /proc and nowhere else.
pub fn seal(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(name, flags)?);
    file.write_all(bytes)?;
    add_seals(&file)?;
    Ok(file.into())
}

/// Adds all seals to a memfd. The kernel refuses F_SEAL_WRITE with EBUSY while anything else holds a page of it
/// (fcntl(2), mm/memfd.c), be it only a list of pages just written that another processor has not worked off; it waits
/// 150 ms for that itself, which is too short on a machine that is full. So it is asked again.
pub fn add_seals(memfd: &File) -> io::Result<()> {
    const TRIES: u32 = 32;
    for _ in 1..TRIES {
        match fcntl(memfd, FcntlArg::F_ADD_SEALS(SealFlag::all())) {
            Err(Errno::EBUSY) => {}
            other => return Ok(other.map(drop)?),
        }
    }
    fcntl(memfd, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
    Ok(())
}

/// Reads what [`seal`] wrote, of at most `most` bytes. The descriptor shares its place in the file with the sender's.
pub fn read(memfd: OwnedFd, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::from(memfd);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::other("more than it may hold")),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_held_for_a_while_delays_a_seal_and_does_not_refuse_it() {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = File::from(memfd_create(c"test", flags).unwrap());
        file.write_all(b"abc").unwrap();
        file.rewind().unwrap();
        // A pipe that was spliced into holds the page itself.
        let (held, pipe) = nix::unistd::pipe().unwrap();
        let flags = rustix::pipe::SpliceFlags::empty();
        let spliced = rustix::pipe::splice(&file, None, &pipe, None, 3, flags);
        assert_eq!(spliced.unwrap(), 3);
        std::thread::scope(|scope| {
            let sealing = scope.spawn(|| add_seals(&file));
            // Far longer than the kernel waits by itself. These calls and the other thread's take turns.
            for _ in 0..4 {
                let refused = fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::all()));
                assert_eq!(refused, Err(Errno::EBUSY));
            }
            drop((held, pipe));
            sealing.join().unwrap().unwrap();
        });
    }

    #[test]
    fn what_was_sealed_can_be_read_and_not_changed() {
        let memfd = seal(c"test", b"abc").unwrap();
        assert!(nix::unistd::write(&memfd, b"d").is_err());
        let copy = memfd.try_clone().unwrap();
        assert_eq!(read(memfd, 3).unwrap(), b"abc");
        assert!(read(copy, 2).is_err(), "more than may be");
    }
}
