//! Tells at once when the kernel runs out of memory for a cell, and counts whom it killed.
//!
//! Version 1: an eventfd registered in `cgroup.event_control` (memory.rst, "OOM Control"). It fires
//! for an OOM of the cell and of any group above it, *before* the victim is chosen and counted, so
//! a wake-up may find the count unchanged. Version 2: poll(2) with POLLPRI on an open
//! `memory.events`, after each read of it; it fires for every change in that file, also for a mere
//! brush with the limit, and the kernel holds such news back to one in 10 ms.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::sys::epoll::EpollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::error::CgroupError;
use super::files;

/// The out-of-memory events of one group.
#[derive(Debug)]
pub(super) enum OomWatch {
    V1 {
        dir: PathBuf,
        /// None where the kernel has no `cgroup.event_control` (PREEMPT_RT): the count still works.
        event: Option<EventFd>,
    },
    V2 {
        path: PathBuf,
        events: File,
    },
}

impl OomWatch {
    /// Starts to watch the version 1 memory group `dir`.
    pub(super) fn v1(dir: &Path) -> Result<Self, CgroupError> {
        let path = dir.join("memory.oom_control");
        let control = File::open(&path).map_err(CgroupError::io("open", &path))?;
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| CgroupError::io("create an eventfd for", &path)(errno.into()))?;
        // The kernel keeps its own reference to the eventfd and none to the control file.
        let order = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
        let there = files::write_if_there(dir, "cgroup.event_control", &order);
        let there = match there {
            Err(CgroupError::Io { source, .. })
                if source.raw_os_error() == Some(libc::EOPNOTSUPP) =>
            {
                false
            }
            other => other?,
        };
        Ok(Self::V1 {
            dir: dir.to_path_buf(),
            event: there.then_some(event),
        })
    }

    /// Starts to watch the version 2 group `dir`.
    pub(super) fn v2(dir: &Path) -> Result<Self, CgroupError> {
        let path = dir.join("memory.events");
        let events = File::open(&path).map_err(CgroupError::io("open", &path))?;
        let watch = Self::V2 { path, events };
        // An unread file counts as changed.
        watch.kills()?;
        Ok(watch)
    }

    /// What to wait on, and for which events. `EPOLLERR` comes with the version 2 kind and means
    /// nothing.
    pub(super) fn source(&self) -> Option<(BorrowedFd<'_>, EpollFlags)> {
        match self {
            Self::V1 { event, .. } => event.as_ref().map(|fd| (fd.as_fd(), EpollFlags::EPOLLIN)),
            Self::V2 { events, .. } => Some((events.as_fd(), EpollFlags::EPOLLPRI)),
        }
    }

    /// Kills so far (with memory.oom.group the first victim counts twice). Waits for news again from
    /// here on.
    pub(super) fn kills(&self) -> Result<u64, CgroupError> {
        let (path, text) = match self {
            Self::V1 { dir, event } => {
                // Before the count is read, so that what comes in between wakes again. EAGAIN:
                // nothing was there.
                let _ = event.as_ref().map(EventFd::read);
                (
                    dir.join("memory.oom_control"),
                    files::read(dir, "memory.oom_control")?,
                )
            }
            Self::V2 { path, events } => {
                let mut text = [0u8; 512];
                let length = events
                    .read_at(&mut text, 0)
                    .map_err(CgroupError::io("read", path))?;
                (
                    path.clone(),
                    String::from_utf8_lossy(&text[..length]).into_owned(),
                )
            }
        };
        // Since 4.13 on both versions.
        files::value_of(&text, "oom_kill").ok_or(CgroupError::Format { path, found: text })
    }
}
