//! Starting our own binary again in another role, and waiting for it.

use crate::roles::fds;
use crate::sys::{self, Cloned, packet};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::CString;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A killed process may still have to finish what it does in the kernel.
const KILL_WAIT: Duration = Duration::from_secs(30);

/// Our own binary in a memfd that nobody can change.
#[derive(Debug)]
pub struct Program {
    image: OwnedFd,
}

/// A child in a role.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    /// Our end of its control socket.
    pub control: OwnedFd,
    /// Once it was waited for.
    code: Option<u8>,
}

impl Program {
    /// Copies the running binary.
    pub fn new() -> std::io::Result<Program> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut image = std::fs::File::from(memfd_create(c"cellblock", flags)?);
        std::io::copy(&mut std::fs::File::open("/proc/self/exe")?, &mut image)?;
        fcntl(&image, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
        // Root's alone: a command that names it by a link of /proc's can neither run nor read it.
        nix::sys::stat::fchmod(&image, Mode::S_IRUSR | Mode::S_IXUSR)?;
        Ok(Program {
            image: image.into(),
        })
    }

    /// Starts a role with `settings` and its end of the socket between the two roles.
    pub fn start(
        &self,
        role: &str,
        settings: &[u8],
        link: &OwnedFd,
        lock: &OwnedFd,
    ) -> Result<Child, Box<dyn std::error::Error>> {
        let (control, theirs) = packet::pair()?;
        let mut memfd = std::fs::File::from(memfd_create(c"settings", MFdFlags::MFD_CLOEXEC)?);
        memfd.write_all(settings)?;
        memfd.rewind()?;
        let role = CString::new(role)?;
        match sys::clone3(0, None)? {
            Cloned::Parent { pid, pidfd } => Ok(Child {
                pid,
                pidfd,
                control,
                code: None,
            }),
            Cloned::Child => {
                let given = [theirs.as_fd(), link.as_fd(), memfd.as_fd(), lock.as_fd()];
                let error = self.become_role(&role, given);
                crate::log::tell(format!("starting {}: {error}", role.to_string_lossy()));
                sys::exit_now(1)
            }
        }
    }

    /// In the child: nothing is inherited but the log and the given descriptors, no environment either.
    fn become_role(&self, role: &CString, given: [BorrowedFd<'_>; 4]) -> Errno {
        let prepared = (|| {
            // Away from the terminal's process group: only the supervisor hears a ctrl-C.
            nix::unistd::setsid()?;
            sys::reset_signals()?;
            let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
            sys::dup_onto(null.as_fd(), 0, false)?;
            if role.as_c_str() == crate::roles::WARDEN_C {
                sys::dup_onto(null.as_fd(), 1, false)?;
            }
            drop(null);
            // First out of the way of the numbers that they are to have.
            let mut high = Vec::new();
            for fd in given.into_iter().chain([self.image.as_fd()]) {
                high.push(sys::dup_above(fd, 32)?);
            }
            for (number, from) in (fds::CONTROL..=fds::LOCK).zip(&high) {
                sys::dup_onto(from.as_fd(), number, false)?;
            }
            let image = high[4].as_raw_fd();
            sys::close_range(fds::LOCK + 1, image as u32 - 1)?;
            sys::close_range(image + 1, u32::MAX)?;
            std::mem::forget(high);
            Ok(image)
        })();
        match prepared {
            Err(errno) => errno,
            Ok(image) => {
                let path = CString::new(format!("/proc/self/fd/{image}")).expect("digits");
                let environment: [&std::ffi::CStr; 0] = [];
                match nix::unistd::execve(&path, &[c"cellblock", role.as_c_str()], &environment) {
                    Err(errno) => errno,
                    Ok(never) => match never {},
                }
            }
        }
    }
}

impl Child {
    /// Asks it to end.
    pub fn terminate(&self) {
        if self.code.is_none() {
            let _ = kill(self.pid, Signal::SIGTERM);
        }
    }

    /// Its exit code, if it has ended (128 + N when a signal ended it).
    pub fn ended(&mut self) -> Option<u8> {
        if self.code.is_none() {
            self.code = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => Some(code as u8),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32 as u8),
                _ => None,
            };
        }
        self.code
    }

    /// Waits for its end and tells its exit code. None when `limit` passes first: it is killed then, and waited for as
    /// long as the kernel may take.
    pub fn end_within(&mut self, limit: Duration) -> Option<u8> {
        if self.ended().is_none() && !self.gone_within(limit) {
            let _ = sys::pidfd_kill(self.pidfd.as_fd());
            self.gone_within(KILL_WAIT);
            self.ended();
            return None;
        }
        self.ended()
    }

    fn gone_within(&self, limit: Duration) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, timeout(Some(limit))) {
                Err(Errno::EINTR) => {}
                gone => return gone == Ok(1),
            }
        }
    }

    /// Closes the control socket, which tells it to end.
    pub fn hang_up(&mut self) {
        let _ = nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&self.control),
            nix::sys::socket::Shutdown::Both,
        );
    }
}

/// As poll(2) wants it.
pub fn timeout(limit: Option<Duration>) -> PollTimeout {
    limit.map_or(PollTimeout::NONE, |limit| {
        PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)
    })
}
