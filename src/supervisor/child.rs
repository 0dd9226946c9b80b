//! Starting our own binary again in another role, and waiting for it.

use super::pulse::{Beat, Pulse};
use crate::roles::{PING, PONG, READY, fds};
use crate::sys::{self, Cloned, packet, pages};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::CString;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// A killed process may still have to finish what it does in the kernel.
const KILL_WAIT: Duration = Duration::from_secs(30);
/// How often a process that is to end is looked at: it may have been stopped instead.
const LOOK: Duration = Duration::from_millis(200);

/// Our own binary in a memfd that nobody can change.
#[derive(Debug)]
pub struct Program {
    image: OwnedFd,
}

/// A child in a role.
#[derive(Debug)]
pub struct Child {
    /// What messages call it.
    name: &'static str,
    pid: Pid,
    pidfd: OwnedFd,
    /// Our end of its control socket.
    pub control: OwnedFd,
    /// Whether it still has its own.
    listens: bool,
    /// Once it was waited for.
    code: Option<u8>,
    pulse: Pulse,
}

/// What a role says over its control socket.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// It can serve.
    Ready,
    /// It lives, or what it says is not known here.
    Other,
    /// It has closed the socket.
    Nothing,
}

impl Program {
    /// Copies the running binary.
    pub fn new() -> std::io::Result<Program> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        // Where vm.memfd_noexec is 1, only one that is asked for so can be executed; before Linux 6.3 the flag is unknown.
        let exec = MFdFlags::from_bits_retain(libc::MFD_EXEC);
        let image = match memfd_create(c"cellblock", flags | exec) {
            Err(Errno::EINVAL) => memfd_create(c"cellblock", flags)?,
            other => other?,
        };
        let mut image = std::fs::File::from(image);
        let length = std::io::copy(&mut std::fs::File::open("/proc/self/exe")?, &mut image)?;
        // Each cell begins and ends with two processes that map this program; in huge pages that takes less time. Where the
        // kernel can't, it works as well.
        let whole = length.next_multiple_of(pages::HUGE as u64);
        image.set_len(whole)?;
        let gathered = pages::gather(image.as_fd(), usize::try_from(whole).unwrap_or_default());
        if let Err(errno) = gathered {
            tracing::debug!(%errno, "the program stays in small pages");
        }
        crate::warden::memfd::add_seals(&image)?;
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
                name: match role.as_c_str() == crate::roles::WARDEN_C {
                    true => "warden",
                    false => "api process",
                },
                pid,
                pidfd,
                control,
                listens: true,
                code: None,
                pulse: Pulse::new(Instant::now()),
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

    /// Its exit code, if it has ended (128 + N when a signal ended it). If it has been stopped instead, it goes on: whoever
    /// waits for it would wait for ever.
    pub fn ended(&mut self) -> Option<u8> {
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED;
        while self.code.is_none() {
            match waitpid(self.pid, Some(flags)) {
                Ok(WaitStatus::Exited(_, code)) => self.code = Some(code as u8),
                Ok(WaitStatus::Signaled(_, signal, _)) => {
                    self.code = Some(128 + signal as i32 as u8);
                }
                Ok(WaitStatus::Stopped(_, signal)) => {
                    let name = self.name;
                    crate::log::tell(format!("the {name} was stopped ({signal}); it goes on"));
                    let _ = kill(self.pid, Signal::SIGCONT);
                }
                _ => break,
            }
        }
        self.code
    }

    /// When [`Child::look_after`] is to be called again.
    pub fn next_look(&self) -> Instant {
        self.pulse.next()
    }

    /// Asks whether it lives, when it is time to; kills it when it has not answered for too long. Its end shows by
    /// [`Child::ended`], as any other.
    pub fn look_after(&mut self, now: Instant) {
        match self.pulse.beat(now) {
            Beat::Wait => {}
            // One at a time, so there is room for it, unless a taken-over api process answers what it does not read: that, and
            // a socket without another end, is silence too.
            Beat::Ask => match packet::offer(self.control.as_fd(), PING, &[]) {
                // It was not asked, which is no fault of its own.
                Err(errno) if packet::is_shortage(errno) => self.pulse.answered(),
                _ => {}
            },
            Beat::Hangs => {
                let name = self.name;
                crate::log::tell(format!("the {name} does not answer and was killed"));
                let _ = sys::pidfd_kill(self.pidfd.as_fd());
            }
        }
    }

    /// Whether it may still say something.
    pub fn listens(&self) -> bool {
        self.listens
    }

    /// Takes what it says. Waits for that, so poll(2) comes first.
    pub fn said(&mut self) -> Said {
        let mut buffer = [0; 16];
        match packet::receive(self.control.as_fd(), &mut buffer) {
            Ok(Some(packet)) if &buffer[..packet.length] == READY => Said::Ready,
            Ok(Some(packet)) if &buffer[..packet.length] == PONG => {
                self.pulse.answered();
                Said::Other
            }
            Ok(Some(_)) | Err(Errno::EMSGSIZE | Errno::EINTR | Errno::ENOMEM) => Said::Other,
            Ok(None) | Err(_) => {
                self.listens = false;
                Said::Nothing
            }
        }
    }

    /// Waits for its end and tells its exit code. None when `limit` passes first: it is killed then, and waited for as
    /// long as the kernel may take. Stopped, it goes on, and so does `other`, which it may wait for.
    pub fn end_within(&mut self, limit: Duration, mut other: Option<&mut Child>) -> Option<u8> {
        if !self.gone_within(limit, &mut other) {
            let _ = sys::pidfd_kill(self.pidfd.as_fd());
            self.gone_within(KILL_WAIT, &mut other);
            return None;
        }
        self.code
    }

    fn gone_within(&mut self, limit: Duration, other: &mut Option<&mut Child>) -> bool {
        let until = Instant::now() + limit;
        loop {
            if self.ended().is_some() {
                return true;
            }
            if let Some(other) = other {
                other.ended();
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, timeout(Some(left.min(LOOK)))) == Ok(1) && self.ended().is_none() {
                // Dead, but a tracer has to take note of it before its parent may.
                std::thread::sleep(LOOK.min(left) / 10);
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
