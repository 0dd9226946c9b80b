//! The api's ends of a command's streams: three pipes, or one terminal.

use crate::warden::terminal::Terminal;
use rustix::io::ioctl_fionread;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::unix::pipe;

/// More than the kernel keeps of what was written to a terminal and is not read (640 KiB, drivers/tty/tty_buffer.c).
const TERMINAL_HOLDS: usize = 1 << 20;

/// What a command talks through.
#[derive(Debug)]
pub struct Streams {
    /// The way to the command, where asked for.
    pub stdin: Option<Inlet>,
    /// The command's stdout; with a terminal, all it writes.
    pub stdout: Outlet,
    /// The command's stderr; none with a terminal.
    pub stderr: Option<Outlet>,
}

/// The writing end.
#[derive(Debug)]
pub enum Inlet {
    /// Dropping it is EOF.
    Pipe(pipe::Sender),
    /// Dropping it means nothing to the command.
    Terminal(Arc<Terminal>),
}

/// A reading end.
#[derive(Debug)]
pub enum Outlet {
    /// EOF comes when the last process of the cell is gone.
    Pipe(pipe::Receiver),
    /// See [`Terminal`] for its end.
    Terminal(Arc<Terminal>),
}

impl Streams {
    /// Pipes in the order that [`Started`](crate::warden::protocol::Reply::Started) names.
    pub(super) fn pipes(fds: Vec<OwnedFd>, stdin: bool) -> io::Result<Self> {
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or_else(missing);
        let stdout = pipe::Receiver::from_owned_fd(next()?)?;
        let stderr = pipe::Receiver::from_owned_fd(next()?)?;
        let stdin = stdin
            .then(|| pipe::Sender::from_owned_fd(next()?))
            .transpose()?;
        Ok(Self {
            stdin: stdin.map(Inlet::Pipe),
            stdout: Outlet::Pipe(stdout),
            stderr: Some(Outlet::Pipe(stderr)),
        })
    }

    /// A terminal's master.
    pub(super) fn of_master(fds: Vec<OwnedFd>) -> io::Result<Self> {
        let master = fds.into_iter().next().ok_or_else(missing)?;
        let terminal = Arc::new(Terminal::new(master)?);
        Ok(Self {
            stdin: Some(Inlet::Terminal(terminal.clone())),
            stdout: Outlet::Terminal(terminal),
            stderr: None,
        })
    }

    /// The pipes: stdin where asked for, stdout, stderr. `None` for a terminal.
    pub fn into_pipes(self) -> Option<(Option<pipe::Sender>, pipe::Receiver, pipe::Receiver)> {
        match (self.stdin, self.stdout, self.stderr) {
            (None, Outlet::Pipe(stdout), Some(Outlet::Pipe(stderr))) => {
                Some((None, stdout, stderr))
            }
            (Some(Inlet::Pipe(stdin)), Outlet::Pipe(stdout), Some(Outlet::Pipe(stderr))) => {
                Some((Some(stdin), stdout, stderr))
            }
            _ => None,
        }
    }

    /// The terminal, where it is one.
    pub fn terminal(&self) -> Option<Arc<Terminal>> {
        match &self.stdout {
            Outlet::Pipe(_) => None,
            Outlet::Terminal(terminal) => Some(terminal.clone()),
        }
    }
}

fn missing() -> io::Error {
    io::Error::other("a stream is missing: this process may open no more")
}

impl Inlet {
    /// Writes all bytes; waits while the command does not read.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.write_all(bytes).await,
            Self::Terminal(terminal) => terminal.write_all(bytes).await,
        }
    }

    /// Ends the input. A terminal stays open: it is told by its end-of-file character, see
    /// [`Terminal::type_end_of_file`].
    pub async fn close(self, in_a_line: bool) -> io::Result<()> {
        match self {
            Self::Pipe(_) => Ok(()),
            Self::Terminal(terminal) => terminal.type_end_of_file(in_a_line).await,
        }
    }
}

impl Outlet {
    /// Waits until [`Outlet::poll_read`] is worth trying.
    pub async fn ready(&self) -> io::Result<()> {
        match self {
            // It waits by itself.
            Self::Pipe(_) => Ok(()),
            Self::Terminal(terminal) => {
                // It would never wait for one that is flooded.
                tokio::task::consume_budget().await;
                terminal.readable().await
            }
        }
    }

    /// Reads what is there; 0 is the end. A pipe that gave less than was asked for is not asked again before more comes: it was
    /// empty (but for packets, O_DIRECT in pipe(2), which a command only gets by asking for them: of these the rest is read when
    /// the next one comes, or the end). A task that always finds something lets others have their turn.
    pub fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Pipe(pipe) => {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(pipe).poll_read(context, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
            Self::Terminal(terminal) => Poll::Ready(terminal.try_read(buffer)),
        }
    }

    /// How many bytes are there now. Of a terminal the kernel does not tell all: more than it can hold.
    pub fn left(&self) -> usize {
        match self {
            Self::Pipe(pipe) => {
                let left = ioctl_fionread(pipe).unwrap_or(0);
                usize::try_from(left).unwrap_or(usize::MAX)
            }
            Self::Terminal(_) => TERMINAL_HOLDS,
        }
    }

    /// As [`Outlet::poll_read`], but asks the kernel itself: the reactor may not have heard of the last bytes yet.
    pub fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => nix::unistd::read(pipe, buffer).map_err(Into::into),
            // Does so by itself when it was told that the cell is gone.
            Self::Terminal(terminal) => terminal.try_read(buffer),
        }
    }
}
