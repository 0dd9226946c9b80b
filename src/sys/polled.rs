//! Registering a descriptor with tokio's reactor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
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
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
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
