//! Imports are done by a child of the command, so that whatever ends them, somebody is left who waits until every process of
//! the import is gone and then removes what it staged. (A `kill -9` of the command itself takes the child along; then whoever
//! comes next does that.)

use crate::cli::image::Shown;
use crate::image::ImageStore;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, getpid, getppid};
use std::process::ExitCode;

type Error = Box<dyn std::error::Error>;

/// Runs `work` in a child and gives its exit code: 1 after an error, which the child tells; 128 and the signal's number after
/// SIGINT, SIGTERM or SIGHUP, and then nothing is left of the work.
///
/// To be called while the process is single-threaded.
pub fn run(
    store: &ImageStore,
    work: impl FnOnce(&Shown) -> Result<(), Error>,
) -> Result<ExitCode, Error> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGCHLD,
    ] {
        signals.add(signal);
    }
    let before = signals.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let listener = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?;
    // The child's own children become ours when it dies, so that they can be waited for.
    prctl::set_child_subreaper(true)?;
    let parent = getpid();
    match crate::sys::fork()? {
        ForkResult::Child => {
            drop(listener);
            let prepared =
                prctl::set_pdeathsig(Signal::SIGKILL).and_then(|()| before.thread_set_mask());
            let done = match prepared {
                Ok(()) if getppid() == parent => work(&Shown::new()),
                Ok(()) => Err("the command ended".into()),
                Err(errno) => Err(errno.into()),
            };
            std::process::exit(match done {
                Ok(()) => 0,
                Err(error) => {
                    crate::log::tell(crate::log::chain(error.as_ref()));
                    1
                }
            })
        }
        ForkResult::Parent { child } => {
            let (ended, signal) = wait(&listener, child)?;
            if ended == WaitStatus::Exited(child, 0) {
                return Ok(ExitCode::SUCCESS);
            }
            store.sweep()?;
            Ok(ExitCode::from(match (ended, signal) {
                (WaitStatus::Exited(_, code), None) => code as u8,
                (_, Some(signal)) => {
                    crate::log::tell("interrupted; nothing was changed");
                    128 + signal
                }
                (_, None) => {
                    crate::log::tell("the import was killed; nothing was changed");
                    1
                }
            }))
        }
    }
}

/// Waits until the child and all that it started is gone: how the child ended, and the first signal that asked for it.
fn wait(listener: &SignalFd, child: Pid) -> Result<(WaitStatus, Option<u8>), Error> {
    let mut ended = None;
    let mut asked = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(status) => {
                if status.pid() == Some(child) {
                    ended = Some(status);
                }
                continue;
            }
            Err(Errno::ECHILD) => {
                return Ok((ended.ok_or("the import's process was lost")?, asked));
            }
            Err(errno) => return Err(errno.into()),
        }
        if let Some(signal) = listener.read_signal()?
            && signal.ssi_signo != Signal::SIGCHLD as u32
        {
            asked = asked.or(Some(signal.ssi_signo as u8));
            // Not SIGKILL: the short moment of the commit blocks the others.
            match kill(child, Signal::SIGTERM) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
