//! What takes long (making a disk, mounting it, removing it) is done by a forked child, so that the loop goes on. A job
//! answers with one packet and ends.

use crate::sys::{self, Cloned, packet};
use nix::errno::Errno;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Why a job failed.
#[derive(Debug, Serialize, Deserialize)]
pub enum JobError {
    /// The host's disk is full.
    NoRoom(String),
    /// The image can't be used; the text names the reason.
    BadImage(String),
    /// Anything else, with its chain.
    Other(String),
}

/// What a job makes: perhaps a descriptor.
pub type JobResult = Result<Option<OwnedFd>, JobError>;

/// A child that runs.
#[derive(Debug)]
struct Running<T> {
    pid: Pid,
    result: OwnedFd,
    purpose: T,
}

/// All running jobs; `T` is what the caller wants to remember of one.
#[derive(Debug)]
pub struct Jobs<T = super::runtimes::Purpose> {
    running: HashMap<u32, Running<T>>,
    next: u32,
}

impl<T> Default for Jobs<T> {
    fn default() -> Self {
        Jobs {
            running: HashMap::new(),
            next: 0,
        }
    }
}

/// The job's end of its socket, in the child.
const RESULT: i32 = 3;

impl<T> Jobs<T> {
    /// Starts `work` in a child and returns its number.
    pub fn start(&mut self, purpose: T, work: impl FnOnce() -> JobResult) -> Result<u32, Errno> {
        let (ours, theirs) = packet::pair()?;
        match sys::clone3(0, None)? {
            Cloned::Child => run(theirs, work),
            Cloned::Parent { pid, .. } => {
                self.next = self.next.wrapping_add(1);
                self.running.insert(
                    self.next,
                    Running {
                        pid,
                        result: ours,
                        purpose,
                    },
                );
                Ok(self.next)
            }
        }
    }

    /// What becomes readable when the job is done.
    pub fn socket(&self, number: u32) -> Option<BorrowedFd<'_>> {
        self.running.get(&number).map(|job| job.result.as_fd())
    }

    /// Takes the result of a job whose socket is readable.
    pub fn take(&mut self, number: u32) -> Option<(T, JobResult)> {
        let Running {
            pid,
            result,
            purpose,
        } = self.running.remove(&number)?;
        let outcome = receive(&result);
        // It has answered or died: its end is a matter of microseconds.
        let _ = nix::sys::wait::waitpid(pid, None);
        Some((purpose, outcome))
    }
}

fn receive(socket: &OwnedFd) -> JobResult {
    let mut buffer = [0; 4096];
    let died = || JobError::Other("the job died".to_owned());
    let packet = packet::receive(socket.as_fd(), &mut buffer)
        .map_err(|errno| JobError::Other(format!("no answer from the job: {errno}")))?
        .ok_or_else(died)?;
    let result: Result<bool, JobError> =
        serde_json::from_slice(&buffer[..packet.length]).map_err(|_| died())?;
    let fd = packet.fds.into_iter().next();
    match result? {
        true if fd.is_none() => Err(JobError::Other(
            "this process may open no more descriptors".to_owned(),
        )),
        _ => Ok(fd),
    }
}

/// The child: keeps nothing of the warden's but its log, works, answers, ends.
fn run(result: OwnedFd, work: impl FnOnce() -> JobResult) -> ! {
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    let kept = sys::dup_onto(result.as_fd(), RESULT, true)
        .and_then(|()| sys::close_range(RESULT + 1, u32::MAX));
    std::mem::forget(result);
    let Ok(socket) = kept.and_then(|()| sys::inherited_fd(RESULT)) else {
        sys::exit_now(1)
    };
    let outcome = work();
    let (answer, fd) = match outcome {
        Ok(fd) => (Ok(fd.is_some()), fd),
        Err(error) => (Err(error), None),
    };
    let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
    if let Ok(bytes) = serde_json::to_vec::<Result<bool, JobError>>(&answer) {
        let _ = packet::send(socket.as_fd(), &bytes, &fds);
    }
    sys::exit_now(0)
}
