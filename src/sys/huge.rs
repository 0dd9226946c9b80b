//! A program's file in huge pages. Every process that is forked from one that executes it finds its text anew, by a fault for
//! each 64 KiB that it touches; with huge pages it is one for each 2 MiB. A cell takes a few dozen less of them.

use super::Result;
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What one maps, on the architectures that there are builds for, with pages of 4 KiB. The linker is told the same (build.rs).
const HUGE: usize = 2 << 20;

/// Collects the pages of a memfd of so many bytes into huge ones, as far as they fill such.
///
/// # Errors
/// Nothing is changed where the kernel can't: EINVAL before Linux 6.1, or where it knows no huge pages; ENOMEM or EAGAIN where
/// none is free.
pub fn collect(memfd: BorrowedFd<'_>, length: u64) -> Result<()> {
    let whole = usize::try_from(length).map_err(|_| Errno::EOVERFLOW)? / HUGE * HUGE;
    if whole == 0 {
        return Ok(());
    }
    let map = |at, length, access, flags, fd| {
        // SAFETY: where the kernel likes, or over what the first call has mapped.
        let mapped = unsafe { libc::mmap(at, length, access, flags, fd, 0) };
        (mapped != libc::MAP_FAILED)
            .then_some(mapped)
            .ok_or_else(Errno::last)
    };
    // With room to begin where a huge page can.
    let room = whole + HUGE;
    let nothing = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let all = map(std::ptr::null_mut(), room, libc::PROT_NONE, nothing, -1)?;
    let at = all.cast::<u8>();
    let at = at.wrapping_add(at.align_offset(HUGE)).cast();
    let over = libc::MAP_PRIVATE | libc::MAP_FIXED;
    let collected = map(at, whole, libc::PROT_READ, over, memfd.as_raw_fd()).and_then(|at| {
        // SAFETY: it changes nothing but how the mapping's pages lie.
        Errno::result(unsafe { libc::madvise(at, whole, libc::MADV_COLLAPSE) })
    });
    // SAFETY: mapped above, and nobody has a reference into it.
    unsafe { libc::munmap(all, room) };
    collected.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    #[test]
    fn what_is_collected_stays_what_it_was() {
        let memfd = nix::sys::memfd::memfd_create(c"huge", nix::sys::memfd::MFdFlags::MFD_CLOEXEC);
        let mut memfd = std::fs::File::from(memfd.unwrap());
        let written: Vec<u8> = (0..3 * HUGE / 2).map(|n| (n / 4096) as u8).collect();
        memfd.write_all(&written).unwrap();
        // Whether this kernel does it is another question.
        let _ = collect(memfd.as_fd(), written.len() as u64);
        assert_eq!(collect(memfd.as_fd(), HUGE as u64 - 1), Ok(()));
        memfd.rewind().unwrap();
        let mut read = Vec::new();
        memfd.read_to_end(&mut read).unwrap();
        assert!(read == written);
    }
}
