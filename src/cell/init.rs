//! PID 1 of a cell: forks the payload, gives up every right it has, reaps, reports how the payload ended, and ends; with
//! it the kernel ends every process of the cell (pid_namespaces(7)). It holds nothing but its control socket.

use crate::cell::error::{Result, Step};
use crate::cell::report::FromCell;
use crate::cell::report::{Stdio, tell};
use crate::cell::{Sandbox, identity, payload};
use crate::resources::INIT_ID;
use crate::sys::{self, ChildEnd};
use crate::warden::protocol::CellEnd;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid};
use std::os::fd::{AsFd, OwnedFd};

/// Runs the payload to its end and reports it.
pub fn run(sandbox: &Sandbox, control: &OwnedFd, stdio: Stdio) -> Result<()> {
    let main = match sys::fork().step("fork the payload")? {
        ForkResult::Child => payload::run(sandbox, control, stdio),
        ForkResult::Parent { child } => child,
    };
    drop(stdio);
    // Until here they were the host's /dev/null: nothing of the host stays open in the cell.
    sys::close_range(0, 2).step("close the standard streams")?;
    identity::drop_bounding_set()?;
    identity::become_ids(INIT_ID, INIT_ID)?;
    identity::drop_capabilities()?;
    nix::sys::prctl::set_dumpable(false).step("become not dumpable")?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("set the parent death signal")?;
    if peer_is_gone(control)? {
        return Ok(());
    }
    let end = reap_until(main)?;
    tell(control, &FromCell::End(end), &namespaces());
    Ok(())
}

/// Descriptors of the cell's namespaces, for the warden to hold for a moment, see its `recent`. Those that can't be
/// opened are not worth an error.
fn namespaces() -> Vec<OwnedFd> {
    ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]
        .into_iter()
        .filter_map(|name| std::fs::File::open(format!("/proc/self/ns/{name}")).ok())
        .map(OwnedFd::from)
        .collect()
}

/// Whether the warden ended before its death signal was asked for.
fn peer_is_gone(control: &OwnedFd) -> Result<bool> {
    let mut fds = [PollFd::new(control.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).step("look at the control socket")?;
    Ok(fds[0]
        .revents()
        .is_some_and(|events| events.contains(PollFlags::POLLHUP)))
}

/// Reaps whatever ends (orphans of the payload become ours) until the payload itself has ended.
fn reap_until(main: Pid) -> Result<CellEnd> {
    loop {
        let (pid, end) = sys::wait_any().step("wait for the payload")?;
        if pid == main {
            return Ok(match end {
                ChildEnd::Exited(code) => CellEnd::Exited(code),
                ChildEnd::Signaled(number) => CellEnd::Signaled(number),
            });
        }
    }
}
