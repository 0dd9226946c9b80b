//! What takes long (making a disk, mounting it, unmounting, removing it, lowering memory) is done by a forked child, so that the loop goes
//! on. A job answers with one packet and ends. Only a few run at a time; the others wait for their turn.

use crate::sys::{self, Cloned, packet};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Why a job failed.
#[derive(Debug, Serialize, Deserialize)]
pub enum JobError {
    /// The host has no room of a kind, and why that is thought.
    NoRoom(String, String),
    /// The image can't be used; the text names the reason.
    BadImage(String),
    /// It ended without an answer: the host killed it.
    Died,
    /// Anything else, with its chain.
    Other(String),
}

/// What a job makes: perhaps descriptors.
pub type JobResult = Result<Vec<OwnedFd>, JobError>;

/// Which jobs wait for which. Building waits for a disk that is still being let go of, so the two don't share a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Makes or mounts something.
    Build,
    /// Unmounts or removes something.
    Release,
    /// Copies a disk, which takes as long as that is large.
    Copy,
    /// Lowers memory limits, which takes seconds where the tenant likes.
    Lower,
}

impl Lane {
    const ALL: [Self; 4] = [Self::Build, Self::Release, Self::Copy, Self::Lower];

    /// How many of its jobs run at the same time.
    fn at_once(self) -> usize {
        match self {
            Self::Build | Self::Release | Self::Lower => 8,
            Self::Copy => 4,
        }
    }
}

/// What a child does with the descriptors that it is handed.
type Work = Box<dyn FnOnce(Vec<OwnedFd>) -> JobResult>;

/// One that waits for its turn.
pub struct Waiting<T> {
    lane: Lane,
    purpose: T,
    held: Vec<OwnedFd>,
    work: Work,
}

impl<T: fmt::Debug> fmt::Debug for Waiting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.purpose.fmt(f)
    }
}

/// A child that runs.
#[derive(Debug)]
struct Running<T> {
    lane: Lane,
    pid: Pid,
    result: OwnedFd,
    purpose: T,
}

/// All jobs; `T` is what the caller wants to remember of one.
#[derive(Debug)]
pub struct Jobs<T = super::purposes::Purpose> {
    waiting: VecDeque<Waiting<T>>,
    running: HashMap<u32, Running<T>>,
    next: u32,
}

impl<T> Default for Jobs<T> {
    fn default() -> Self {
        Jobs {
            waiting: VecDeque::new(),
            running: HashMap::new(),
            next: 0,
        }
    }
}

/// The job's end of its socket, in the child.
const RESULT: i32 = 3;

impl<T> Jobs<T> {
    /// Lets `work` wait for its turn, in which it gets `held` (or, where there is no room for descriptors, nothing). Whoever
    /// closes the last descriptor of a mount namespace unmounts what is in it, and waits for that: so work that is to let
    /// go of something only has to drop it.
    pub fn add(
        &mut self,
        lane: Lane,
        purpose: T,
        held: Vec<OwnedFd>,
        work: impl FnOnce(Vec<OwnedFd>) -> JobResult + 'static,
    ) {
        self.waiting.push_back(Waiting {
            lane,
            purpose,
            held,
            work: Box::new(work),
        });
    }

    /// Takes the next one whose turn it is.
    pub fn next(&mut self) -> Option<Waiting<T>> {
        let full = Lane::ALL.map(|lane| {
            let running = self.running.values().filter(|job| job.lane == lane);
            (lane, running.count() >= lane.at_once())
        });
        let has_room = |job: &Waiting<T>| full.contains(&(job.lane, false));
        let index = self.waiting.iter().position(has_room)?;
        self.waiting.remove(index)
    }

    /// Whether a job that is added now would begin at once.
    pub fn has_room(&self, lane: Lane) -> bool {
        let running = self.running.values().map(|job| job.lane);
        let all = running.chain(self.waiting.iter().map(|job| job.lane));
        all.filter(|of| *of == lane).count() < lane.at_once()
    }

    /// What waiting and running jobs are for.
    pub fn purposes(&self) -> impl Iterator<Item = &T> {
        let running = self.running.values().map(|job| &job.purpose);
        running.chain(self.waiting.iter().map(|job| &job.purpose))
    }

    /// Starts a child and returns its number; gives the purpose back if that fails.
    pub fn start(&mut self, job: Waiting<T>) -> Result<u32, (T, Errno)> {
        let Waiting {
            lane,
            purpose,
            held,
            work,
        } = job;
        match spawn(held, work) {
            Err(errno) => Err((purpose, errno)),
            Ok((pid, result)) => {
                self.next = self.next.wrapping_add(1);
                let job = Running {
                    lane,
                    pid,
                    result,
                    purpose,
                };
                self.running.insert(self.next, job);
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
            ..
        } = self.running.remove(&number)?;
        let outcome = receive(&result);
        // It has answered or died: all that is left of it is its end.
        let end = nix::sys::wait::waitpid(pid, None);
        let outcome = match (outcome, end) {
            // By the alarm that it had set itself.
            (Err(JobError::Died), Ok(WaitStatus::Signaled(_, Signal::SIGALRM, _))) => {
                Err(JobError::Other("it took longer than it may".to_owned()))
            }
            (outcome, _) => outcome,
        };
        Some((purpose, outcome))
    }

    /// Kills the running jobs of a lane and waits for their end.
    pub fn end(&mut self, lane: Lane) {
        let of_lane = |(number, job): (&u32, &Running<T>)| (job.lane == lane).then_some(*number);
        let numbers: Vec<u32> = self.running.iter().filter_map(of_lane).collect();
        for number in numbers {
            self.kill(number);
            self.take(number);
        }
    }

    /// Kills a job, whose result is then that it died.
    pub fn kill(&self, number: u32) {
        if let Some(job) = self.running.get(&number) {
            // Not waited for yet, so the pid is still its own.
            let _ = nix::sys::signal::kill(job.pid, Signal::SIGKILL);
        }
    }
}

fn spawn(held: Vec<OwnedFd>, work: Work) -> Result<(Pid, OwnedFd), Errno> {
    let (ours, theirs) = packet::pair()?;
    let pid = match sys::clone3(0, None)? {
        Cloned::Child => run(theirs, work),
        Cloned::Parent { pid, .. } => pid,
    };
    drop(theirs);
    // What is held goes by the socket, so that at each moment somebody else still has it when we close ours.
    let fds: Vec<_> = held.iter().map(AsFd::as_fd).collect();
    let go = |fds: &[BorrowedFd<'_>]| packet::send(ours.as_fd(), b"go", fds);
    match go(&fds).or_else(|_| go(&[])) {
        Ok(()) => Ok((pid, ours)),
        Err(errno) => {
            // It hears of the closed socket and ends.
            drop(ours);
            let _ = nix::sys::wait::waitpid(pid, None);
            Err(errno)
        }
    }
}

fn receive(socket: &OwnedFd) -> JobResult {
    let mut buffer = [0; 4096];
    let packet = packet::receive(socket.as_fd(), &mut buffer)
        .map_err(|errno| match errno {
            // It died before it had read what it was sent: unix(7).
            Errno::ECONNRESET => JobError::Died,
            errno => JobError::Other(format!("no answer from the job: {errno}")),
        })?
        .ok_or(JobError::Died)?;
    let result: Result<usize, JobError> =
        serde_json::from_slice(&buffer[..packet.length]).map_err(|_| JobError::Died)?;
    if packet.fds.len() < result? {
        let reason = "this process may open no more descriptors";
        return Err(JobError::Other(reason.to_owned()));
    }
    Ok(packet.fds)
}

/// The child: keeps nothing of the warden's but its log, works, answers, ends.
fn run(result: OwnedFd, work: Work) -> ! {
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    let kept = sys::dup_onto(result.as_fd(), RESULT, true)
        .and_then(|()| sys::close_range(RESULT + 1, u32::MAX));
    std::mem::forget(result);
    let Ok(socket) = kept.and_then(|()| sys::inherited_fd(RESULT)) else {
        sys::exit_now(1)
    };
    let held = match packet::receive(socket.as_fd(), &mut [0; 2]) {
        Ok(Some(packet)) => packet.fds,
        _ => sys::exit_now(1),
    };
    let (answer, made) = match work(held) {
        Ok(made) => (Ok(made.len()), made),
        Err(error) => (Err(error), Vec::new()),
    };
    let fds: Vec<_> = made.iter().map(AsFd::as_fd).collect();
    if let Ok(bytes) = serde_json::to_vec::<Result<usize, JobError>>(&answer) {
        let _ = packet::send(socket.as_fd(), &bytes, &fds);
    }
    sys::exit_now(0)
}
