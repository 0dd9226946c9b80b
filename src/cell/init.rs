//! PID 1 of a cell: forks the payload, gives up every right but one, reaps, passes signals on, reports how the payload
//! ended, and ends; with it the kernel ends every process of the cell (pid_namespaces(7)). It holds nothing but its
//! control socket, a signalfd(2) and what the payload's questions come to ([`netlink`](crate::cell::netlink)).
//!
//! The right it keeps is CAP_KILL in the cell's own user namespace. It runs as another uid than the payload (which so can
//! neither signal nor trace it), and only with that right can it pass on a signal that a client sent. It is worth little
//! to whoever took init over: kill(2) reaches the processes of its own pid namespace, which end with init anyway.

use crate::cell::error::{Result, Step};
use crate::cell::netlink::Gate;
use crate::cell::report::{FromCell, SignalSet, report_failure, tell};
use crate::cell::{Spec, identity, payload};
use crate::landlock::Domain;
use crate::resources::INIT_ID;
use crate::sys::shared::Shared;
use crate::sys::{self, ChildEnd, packet};
use crate::warden::protocol::CellEnd;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use nix::unistd::{ForkResult, Pid};
use std::os::fd::{AsFd, OwnedFd};

/// Runs the payload to its end and reports it. An error is of what comes before the payload: nothing has run then.
pub fn run(
    spec: &Spec<'_>,
    control: &OwnedFd,
    order: OwnedFd,
    domain: Option<Domain>,
) -> Result<()> {
    // The warden ignores some, which would be inherited: a client's signal to a command that has just been forked would be
    // lost. Init itself stays deaf to them as the first process of its pid namespace (pid_namespaces(7)).
    sys::reset_signals().step("reset the signals")?;
    if !cfg!(cellblock_without = "capabilities") {
        // Once for both.
        identity::drop_bounding_set()?;
    }
    let began = Shared::new().step("share a clock")?;
    let (gate, asker) = packet::pair().step("make the way for questions")?;
    let main = match sys::fork().step("fork the payload")? {
        ForkResult::Child => {
            drop(gate);
            payload::run(spec, control, order, asker, domain, began)
        }
        ForkResult::Parent { child } => child,
    };
    drop(asker);
    // Init itself stays outside of the domain, out of reach of the payload's signals and within its own.
    drop((order, domain));
    if let Err(error) = stand_over(main, control, gate, &began) {
        report_failure(control, &error, CellEnd::Unseen);
    }
    Ok(())
}

/// Gives up what rights are left, waits until the payload has ended, and tells how.
fn stand_over(main: Pid, control: &OwnedFd, gate: OwnedFd, began: &Shared) -> Result<()> {
    // Until here they were the host's /dev/null: nothing of the host stays open in the cell.
    sys::close_range(0, 2).step("close the standard streams")?;
    identity::become_ids_with_kill(INIT_ID, INIT_ID)?;
    nix::sys::prctl::set_dumpable(false).step("become not dumpable")?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("set the parent death signal")?;
    if peer_is_gone(control)? {
        return Ok(());
    }
    let end = watch_over(main, control, Gate::Channel(gate))?;
    end_all_others()?;
    tell(control, &FromCell::End(end, began.get()), &[]);
    // To end is work for the kernel, which would keep this processor from whoever waits for that word. Who has this ends init.
    if tell(control, &FromCell::Namespaces, &namespaces()) {
        let _ = packet::receive_trusted(control.as_fd(), &mut [0; 16]);
    }
    Ok(())
}

/// Descriptors of the cell's namespaces, for the warden to hold for a moment, see its `recent`. Those that can't be
/// opened are not worth an error.
fn namespaces() -> Vec<OwnedFd> {
    // Of a process that is not dumpable the directory is root's, and others may only pass through it.
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(own) = open("/proc/self/ns", flags, Mode::empty()) else {
        return Vec::new();
    };
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]
        .into_iter()
        .filter_map(|name| openat(&own, name, flags, Mode::empty()).ok())
        .collect()
}

/// Ends whatever else is in the cell, so that nothing of it does anything any more when its end is told: that need not
/// wait for the kernel to take the cell itself apart. Nobody can start another process beside this: fork(2) fails with a
/// fatal signal pending.
fn end_all_others() -> Result<()> {
    let step = "end all other processes";
    match kill(Pid::from_raw(-1), Signal::SIGKILL) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return Ok(()),
        Err(errno) => return Err(errno).step(step),
    }
    loop {
        match sys::wait_any() {
            Ok(()) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(errno) => return Err(errno).step(step),
        }
    }
}

/// Whether the warden ended before its death signal was asked for.
fn peer_is_gone(control: &OwnedFd) -> Result<bool> {
    let mut fds = [PollFd::new(control.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).step("look at the control socket")?;
    Ok(fds[0]
        .revents()
        .is_some_and(|events| events.contains(PollFlags::POLLHUP)))
}

/// Reaps whatever ends (orphans of the payload become ours) and passes signals on, until the payload itself has ended.
fn watch_over(main: Pid, control: &OwnedFd, mut gate: Gate) -> Result<CellEnd> {
    let step = "wait for the payload";
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    // Blocked before the first look, so that no child can end unheard between a look and the wait.
    mask.thread_block().step(step)?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let children = SignalFd::with_flags(&mask, flags).step(step)?;
    loop {
        while let Some((pid, end)) = sys::reap_any().step(step)? {
            if pid == main {
                return Ok(match end {
                    ChildEnd::Exited(code) => CellEnd::Exited(code),
                    ChildEnd::Signaled(number) => CellEnd::Signaled(number),
                });
            }
        }
        let mut fds = vec![
            PollFd::new(children.as_fd(), PollFlags::POLLIN),
            PollFd::new(control.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(gate.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.step(step)?,
        };
        // A bit that is not known is no reason to wait.
        let events = |fd: Option<&PollFd<'_>>| {
            fd.map_or(PollFlags::empty(), |fd| {
                fd.revents().unwrap_or(PollFlags::POLLERR)
            })
        };
        let [child, message, asked] = [0, 1, 2].map(|index| events(fds.get(index)));
        if !asked.is_empty() {
            gate = gate.attend(asked);
        }
        if !child.is_empty() {
            children.read_signal().step(step)?;
        }
        if !message.is_empty() {
            let mut buffer = [0; 16];
            match packet::receive_trusted(control.as_fd(), &mut buffer) {
                Ok(Some(packet)) => pass_on(main, &buffer[..packet.length]),
                Err(Errno::EINTR) => {}
                // The warden is gone, and its end is ours too: the death signal is on its way.
                Ok(None) | Err(_) => return Ok(CellEnd::Killed),
            }
        }
    }
}

/// Sends signals to the payload's process group. Before the payload leads one (it has just been forked) it gets them
/// alone, which is the same: it has no children yet.
fn pass_on(main: Pid, message: &[u8]) {
    for signal in SignalSet::decode(message).unwrap_or_default().signals() {
        let signal = signal.signal();
        if killpg(main, signal) == Err(Errno::ESRCH) {
            let _ = kill(main, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a process of its own, which gives its rights up as init does.
    #[test]
    fn init_can_hand_its_namespaces_over() {
        let child = sys::fork().unwrap();
        let ForkResult::Parent { child } = child else {
            let root = nix::unistd::geteuid().is_root();
            if root && identity::become_ids_with_kill(1000, 1000).is_err() {
                sys::exit_now(100);
            }
            match nix::sys::prctl::set_dumpable(false) {
                Ok(()) => sys::exit_now(namespaces().len() as i32),
                Err(_) => sys::exit_now(101),
            }
        };
        let end = nix::sys::wait::waitpid(child, None).unwrap();
        let exited = nix::sys::wait::WaitStatus::Exited(child, 8);
        assert_eq!(end, exited);
    }
}
