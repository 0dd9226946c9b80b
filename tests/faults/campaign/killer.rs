//! Chooses a process of the server at random and kills it. Nobody is hit who only got the number of a process that ended:
//! it is looked at again once a descriptor holds it (pidfd_open(2)).

use super::random::Random;
use crate::support::Server;
use crate::support::procs::{self, children};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// What may be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The api process.
    Api,
    /// The warden.
    Warden,
    /// The first process of a cell.
    Init,
    /// The command of a cell.
    Payload,
    /// A child of the warden's that makes, removes or copies a disk.
    Job,
    /// The supervisor; the service is started again then.
    Supervisor,
}

impl Victim {
    /// For the totals.
    pub fn name(self) -> &'static str {
        match self {
            Victim::Api => "api",
            Victim::Warden => "warden",
            Victim::Init => "init",
            Victim::Payload => "payload",
            Victim::Job => "job",
            Victim::Supervisor => "supervisor",
        }
    }

    /// As often as they are in here. Cells come and go on their own, the rest has to be started again.
    const LOTS: [Victim; 20] = [
        Victim::Api,
        Victim::Api,
        Victim::Api,
        Victim::Warden,
        Victim::Warden,
        Victim::Warden,
        Victim::Warden,
        Victim::Init,
        Victim::Init,
        Victim::Init,
        Victim::Init,
        Victim::Init,
        Victim::Payload,
        Victim::Payload,
        Victim::Payload,
        Victim::Job,
        Victim::Job,
        Victim::Job,
        Victim::Supervisor,
        Victim::Supervisor,
    ];

    /// One by lot.
    pub fn choose(random: &mut Random) -> Victim {
        *random.pick(&Victim::LOTS).expect("some")
    }
}

/// Ends of a role in a row, soon after its start: the supervisor gives up at the fifth.
#[derive(Debug)]
pub struct Row {
    last: Option<Instant>,
    count: u32,
}

impl Row {
    /// None yet.
    pub fn new() -> Row {
        Row {
            last: None,
            count: 0,
        }
    }

    /// Whether one more is far from too many; counts it then.
    pub fn bears_one_more(&mut self) -> bool {
        // Twice what the supervisor takes for a short life.
        let short = self
            .last
            .is_some_and(|last| last.elapsed() < Duration::from_secs(10));
        let count = if short { self.count + 1 } else { 1 };
        let bears = count <= 2;
        if bears {
            (self.last, self.count) = (Some(Instant::now()), count);
        }
        bears
    }
}

fn role(pid: u32, name: &str) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .any(|word| word == name.as_bytes())
}

/// Whether it is the first process of a pid namespace.
fn is_init(pid: u32) -> bool {
    let numbers = procs::status(pid, "NSpid").unwrap_or_default();
    numbers.split_whitespace().count() == 2 && numbers.ends_with("\t1")
}

/// Kills one of that kind; false when there is none now.
pub fn strike(server: &Server, victim: Victim, random: &mut Random) -> bool {
    let named = |name: &'static str| {
        let found = children(server.pid);
        found.into_iter().filter(move |pid| role(*pid, name))
    };
    let of_warden = || named("role:warden").flat_map(children).collect::<Vec<_>>();
    let found: Vec<u32> = match victim {
        Victim::Supervisor => {
            server.signal(libc::SIGKILL);
            return true;
        }
        Victim::Api => named("role:api").collect(),
        Victim::Warden => named("role:warden").collect(),
        Victim::Init => of_warden()
            .into_iter()
            .filter(|pid| is_init(*pid))
            .collect(),
        Victim::Job => of_warden()
            .into_iter()
            .filter(|pid| !is_init(*pid))
            .collect(),
        Victim::Payload => {
            let inits = of_warden().into_iter().filter(|pid| is_init(*pid));
            inits.flat_map(children).collect()
        }
    };
    let Some(pid) = random.pick(&found) else {
        return false;
    };
    let parent = procs::parent(*pid);
    // SAFETY: takes numbers only; what it gives is a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, *pid, 0) } as i32;
    if fd < 0 {
        return false;
    }
    // SAFETY: the descriptor was just opened and is nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let ours = procs::tree(server.pid).contains(pid) && procs::parent(*pid) == parent;
    let nothing: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the descriptor is a pidfd, and no information goes with the signal.
    ours && unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd.as_raw_fd(),
            libc::SIGKILL,
            nothing,
            0,
        ) == 0
    }
}
