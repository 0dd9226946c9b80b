//! The lock of the store. What follows a reference and then makes another one (the warden, for a new runtime or checkpoint)
//! holds it shared; what adds or removes content holds it exclusively. Both for a moment only: what takes long is done
//! before, in a staging directory, or after, in the trash.

use crate::image::ImageStore;
use crate::image::error::{ImageError, io_error};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

/// The lock, until it is dropped.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held, not used")] Flock<File>);

impl ImageStore {
    /// Keeps what is there from being removed. Waits for who adds or removes, which is a matter of milliseconds.
    pub fn lock_shared(&self) -> Result<Lock, ImageError> {
        self.lock(FlockArg::LockShared)
    }

    /// The right to add and to remove.
    pub fn lock_exclusive(&self) -> Result<Lock, ImageError> {
        self.lock(FlockArg::LockExclusive)
    }

    fn lock(&self, how: FlockArg) -> Result<Lock, ImageError> {
        self.make_directory()?;
        let path = self.directory.join("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("open", &path))?;
        loop {
            match Flock::lock(file, how) {
                Ok(lock) => return Ok(Lock(lock)),
                Err((back, nix::errno::Errno::EINTR)) => file = back,
                Err((_, errno)) => return Err(io_error("lock", &path)(io::Error::from(errno))),
            }
        }
    }
}
