//! One number that a process and its children see alike, until they execute something else.

use super::Result;
use nix::errno::Errno;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module. Its page is given back when the process ends or executes something else.
#[derive(Debug, Clone, Copy)]
pub struct Shared(&'static AtomicU64);

impl Shared {
    /// A new one, zero. Children that are forked from here on share it.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new() -> Result<Self> {
        let (length, none) = (size_of::<AtomicU64>(), std::ptr::null_mut());
        let (access, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new mapping where the kernel likes replaces nothing.
        let page = unsafe { libc::mmap(none, length, access, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        // SAFETY: it is mapped for reading and writing, aligned to a page, zero, and never unmapped by us; all access to it,
        // from whatever process, is atomic.
        Ok(Self(unsafe { AtomicU64::from_ptr(page.cast()) }))
    }

    /// Its value.
    pub fn get(self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Changes it for all.
    pub fn set(self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}
