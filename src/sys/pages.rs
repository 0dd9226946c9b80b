//! How the kernel keeps a file's pages.

use super::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd};

/// What is put together: a huge page of x86-64, and of aarch64 with pages of 4 KiB.
pub const HUGE: usize = 2 << 20;

/// Has the kernel keep the first `length` bytes of a memfd, a multiple of [`HUGE`], in huge pages (MADV_COLLAPSE, Linux 6.1),
/// whatever the machine's settings for these are. Whoever maps the file in small pages gains too: what is mapped at once is
/// counted once, not for each page, and so is what goes.
///
/// # Errors
/// The kernel's refusal, of the first piece that it refuses: it does not know of this, or has no memory in one piece.
pub fn gather(file: BorrowedFd<'_>, length: usize) -> Result<()> {
    /// linux/mman.h; libc has it for Linux, but not for every C library.
    const MADV_COLLAPSE: libc::c_int = 25;
    let map = |address, size, protection, flags, fd| {
        // SAFETY: without an address, or with one inside of what was reserved below, which nobody else uses.
        let pointer = unsafe { libc::mmap(address, size, protection, flags, fd, 0) };
        check(if pointer == libc::MAP_FAILED { -1 } else { 0 }).map(|_| pointer)
    };
    // Only what is mapped to a whole huge page can be put together; so more is reserved than is needed.
    let reserved = length + HUGE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let start = map(std::ptr::null_mut(), reserved, libc::PROT_NONE, flags, -1)?;
    let begin = start.map_addr(|address| address.next_multiple_of(HUGE));
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    let put = map(begin, length, libc::PROT_READ, flags, file.as_raw_fd()).and_then(|begin| {
        // SAFETY: that much has just been mapped there; nothing in it is changed.
        check(unsafe { libc::madvise(begin, length, MADV_COLLAPSE) }.into())
    });
    // SAFETY: all of it was mapped above, and nothing points into it any more.
    check(unsafe { libc::munmap(start, reserved) }.into())?;
    put.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn a_file_is_the_same_in_huge_pages() {
        let mut file = File::from(memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap());
        let bytes: Vec<u8> = (0..HUGE + 5).map(|n| (n % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        file.set_len(2 * HUGE as u64).unwrap();
        match gather(file.as_fd(), 2 * HUGE) {
            Ok(()) => {}
            // None of it here, or no memory in one piece at the moment (madvise(2)).
            Err(Errno::EINVAL | Errno::ENOMEM | Errno::EAGAIN | Errno::EBUSY) => {
                println!("the kernel keeps it in small pages");
            }
            Err(errno) => panic!("{errno}"),
        }
        let mut read = Vec::new();
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), 2 * HUGE);
        assert!(read.starts_with(&bytes) && read[bytes.len()..].iter().all(|byte| *byte == 0));
    }
}
