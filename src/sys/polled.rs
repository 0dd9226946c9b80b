//! Descriptors and packet sockets that tokio's reactor polls.

use crate::sys::packet;
use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// A descriptor of our own for the reactor to poll.
#[derive(Debug)]
pub struct Polled(OwnedFd);

impl AsRawFd for Polled {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Polled {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes a descriptor non-blocking and known to the tokio runtime that this is called in.
pub fn register(fd: OwnedFd) -> io::Result<AsyncFd<Polled>> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // SAFETY: `Polled` owns its descriptor, answers with the same open one as long as it lives, and never gives it away.
    unsafe { AsyncFd::register(Polled(fd)) }.map_err(|failed| failed.into_parts().1)
}

/// As [`packet::send`], when there is room, and again after a moment where the kernel is short of something.
///
/// # Errors
/// EPIPE or ECONNRESET when the other end is gone, EIO when the runtime ends.
pub async fn send(
    socket: &AsyncFd<Polled>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    loop {
        let mut ready = socket.writable().await.map_err(|_| Errno::EIO)?;
        match ready.try_io(|socket| Ok(packet::send(socket.as_fd(), bytes, fds)?)) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => {
                let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
                if !packet::is_shortage(errno) {
                    return Err(errno);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(_would_block) => {}
        }
    }
}
