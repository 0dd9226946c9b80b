//! Loop devices: a file as a block device (loop(4)).

use super::{Result, check};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// struct loop_config of linux/loop.h; only the fields that are set here are named.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names_and_keys: [u8; 64 + 64 + 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// Makes `backing` readable and writable as a block device that frees itself when its last user closes it
/// (loop(4); LOOP_CONFIGURE is Linux 5.8). Returns the device's path and an open handle on it: until something is
/// mounted from it, the handle is its last user.
pub fn attach(backing: BorrowedFd<'_>) -> Result<(std::path::PathBuf, OwnedFd)> {
    const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
    const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
    const LO_FLAGS_AUTOCLEAR: u32 = 4;
    let open = |path: &std::path::Path| {
        let mut options = std::fs::OpenOptions::new();
        let opened = options
            .read(true)
            .write(true)
            .custom_flags(libc::O_CLOEXEC)
            .open(path);
        opened.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))
    };
    let control = open("/dev/loop-control".as_ref())?;
    // Another process may take the free number between the two calls: EBUSY, ask again.
    for _ in 0..64 {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument.
        let index =
            check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) }.into())?;
        let path = std::path::PathBuf::from(format!("/dev/loop{index}"));
        let device = open(&path)?;
        // SAFETY: LoopConfig is integers and arrays of them; all zero is valid.
        let mut config: LoopConfig = unsafe { std::mem::zeroed() };
        config.fd = backing.as_raw_fd() as u32;
        config.flags = LO_FLAGS_AUTOCLEAR;
        // SAFETY: LOOP_CONFIGURE reads one struct loop_config, which is initialised and has the kernel's layout.
        let done = check(
            unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) }
                .into(),
        );
        match done {
            Ok(_) => return Ok((path, device.into())),
            Err(Errno::EBUSY) => continue,
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EBUSY)
}

/// Device and inode number (as in stat(2)) of the file behind an attached loop device. As long as `device` is open, the
/// file stays behind it: what frees itself does so with its last user.
///
/// # Errors
/// ENXIO when nothing is attached.
pub fn backing(device: BorrowedFd<'_>) -> Result<(u64, u64)> {
    const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
    /// struct loop_info64 of linux/loop.h: 232 bytes, the first two fields of which are wanted.
    const WORDS: usize = 232 / 8;
    let mut info = [0u64; WORDS];
    let (device, to) = (device.as_raw_fd(), info.as_mut_ptr());
    // SAFETY: LOOP_GET_STATUS64 writes one struct loop_info64, for which there is room and alignment.
    check(unsafe { libc::ioctl(device, LOOP_GET_STATUS64 as _, to) }.into())?;
    Ok((info[0], info[1]))
}
