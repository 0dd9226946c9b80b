//! What a command and the api process talk through: three pipes or a terminal, owned by the command.

use crate::cell::error::Step;
use crate::cell::terminal::{self, Terminal};
use crate::warden::protocol::{Failure, TerminalSize};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid, fchown, pipe2};
use std::error::Error;
use std::os::fd::OwnedFd;

/// Both sides of it.
pub(super) struct Channels {
    /// The command's.
    pub(super) streams: [OwnedFd; 3],
    /// The api's, in the order of [`Started`](crate::warden::protocol::Reply::Started).
    pub(super) ends: Vec<OwnedFd>,
    /// See [`Terminal::pts`].
    pub(super) pts: Option<OwnedFd>,
}

impl Channels {
    /// Pipes that belong to the host ids `owner`.
    pub(super) fn pipes(owner: (u32, u32), stdin: bool) -> Result<Self, Failure> {
        let no_room = |errno: Errno| Failure::NoRoom(format!("descriptors ({errno})"));
        let (stdin_read, stdin_write) = pipe(owner).map_err(no_room)?;
        let (stdout_read, stdout_write) = pipe(owner).map_err(no_room)?;
        let (stderr_read, stderr_write) = pipe(owner).map_err(no_room)?;
        let mut ends = vec![stdout_read, stderr_read];
        ends.extend(stdin.then_some(stdin_write));
        Ok(Self {
            streams: [stdin_read, stdout_write, stderr_write],
            ends,
            pts: None,
        })
    }

    /// A terminal that belongs to the host uid `owner`, for the cell whose root is `uid_base`.
    pub(super) fn terminal(uid_base: u32, owner: u32, size: TerminalSize) -> Result<Self, Failure> {
        let made = terminal::make(uid_base, owner, size).and_then(|terminal| {
            let Terminal { master, slave, pts } = terminal;
            let copy = || slave.try_clone().step("copy the terminal's descriptor");
            Ok(Self {
                streams: [copy()?, copy()?, slave],
                ends: vec![master],
                pts: Some(pts),
            })
        });
        made.map_err(|error| {
            tracing::error!(error = &error as &dyn Error, "a terminal could not be made");
            match error.source {
                Errno::ENOSPC | Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => {
                    Failure::NoRoom("terminals".to_owned())
                }
                _ => Failure::Internal,
            }
        })
    }
}

/// A pipe that belongs to the command, so that it can open `/dev/stdout` again (pipes have an owner and mode 0600).
fn pipe((uid, gid): (u32, u32)) -> Result<(OwnedFd, OwnedFd), Errno> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fchown(&read, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    Ok((read, write))
}
