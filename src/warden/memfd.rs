//! What is too large for a packet goes beside it, in a sealed memfd: a command to the warden, an image's configuration and
//! lists of images to the api process.

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
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
    Ok(file.into())
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
    fn what_was_sealed_can_be_read_and_not_changed() {
        let memfd = seal(c"test", b"abc").unwrap();
        assert!(nix::unistd::write(&memfd, b"d").is_err());
        let copy = memfd.try_clone().unwrap();
        assert_eq!(read(memfd, 3).unwrap(), b"abc");
        assert!(read(copy, 2).is_err(), "more than may be");
    }
}
