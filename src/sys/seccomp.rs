//! Filters that ask (seccomp_unotify(2)).

use super::check;
use nix::Result;
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Installs a filter for this thread and all that it starts, and gives the descriptor that its questions come to. Needs
/// no_new_privs.
///
/// # Errors
/// EINVAL for a program that the kernel does not take; EBUSY where an earlier filter has such a descriptor.
pub fn listen(program: &[libc::sock_filter]) -> Result<OwnedFd> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?,
        // The kernel copies it; the type is not const for other uses.
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the program and what it points to outlive the call, which only reads them.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    })?;
    // SAFETY: a new descriptor that nothing else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Takes a question, when poll(2) says that there is one.
///
/// # Errors
/// ENOENT where whoever asked has ended, or was interrupted.
pub fn take(listener: BorrowedFd<'_>) -> Result<u64> {
    // SAFETY: plain integers; the kernel wants all zero.
    let mut question: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the kernel writes no more than the structure that the number stands for.
    check(unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV as _,
            &raw mut question,
        )
    } as libc::c_long)?;
    Ok(question.id)
}

/// Answers one: the call fails with an errno, or goes on as if nobody had asked (Linux 5.5). In that case its arguments may
/// have been changed since the question, where they are in memory.
///
/// # Errors
/// ENOENT as [`take`].
pub fn answer(listener: BorrowedFd<'_>, id: u64, refused: Option<Errno>) -> Result<()> {
    let mut answer = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: refused.map_or(0, |errno| -(errno as i32)),
        flags: match refused {
            Some(_) => 0,
            None => libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        },
    };
    // SAFETY: as above; the kernel only reads it.
    check(unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND as _,
            &raw mut answer,
        )
    } as libc::c_long)
    .map(drop)
}
