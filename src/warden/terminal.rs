//! A command's terminal as the api process holds it: the master side, non-blocking.
//!
//! A pipe ends when its last writer is gone. A master has no such end: while nobody has the slave open a read fails with
//! EIO, and goes on where somebody opens it again (`exec <&- >&- 2>&-` and then `/dev/tty`). So the end of the output is
//! when the cell is gone, which is for the owner to say ([`Terminal::finish`]), and nothing is left to be read.

use crate::sys::polled::{Polled, register};
use crate::sys::terminal::set_size;
use crate::warden::protocol::TerminalSize;
use nix::errno::Errno;
use nix::sys::termios::{SpecialCharacterIndices, tcgetattr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// How often a terminal is looked at that nobody had open at least once: a hang-up is final for the reactor, which would
/// call the terminal ready for ever.
const LOOK: Duration = Duration::from_millis(20);

/// What ends the input where it is typed, unless the command changed that (termios(3), VEOF).
pub const CTRL_D: u8 = 4;

/// The master of a command's terminal.
#[derive(Debug)]
pub struct Terminal {
    master: AsyncFd<Polled>,
    hung_up: AtomicBool,
    over: AtomicBool,
    wake: Notify,
}

impl Terminal {
    /// Takes over a master.
    ///
    /// # Errors
    /// When it can't be registered with the runtime that this is called in.
    pub fn new(master: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            master: register(master)?,
            hung_up: AtomicBool::new(false),
            over: AtomicBool::new(false),
            wake: Notify::new(),
        })
    }

    /// Waits until a read is worth trying.
    pub async fn readable(&self) -> io::Result<()> {
        let finished = self.wake.notified();
        if self.over.load(Ordering::Acquire) {
            return Ok(());
        }
        tokio::select! {
            ready = self.ready(Interest::READABLE) => ready,
            () = finished => Ok(()),
        }
    }

    /// Reads what is there. 0 is the end: nothing is left and nobody can write any more.
    ///
    /// # Errors
    /// `WouldBlock` where there may be more later.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // Looked at before the read: what was written before the end is then seen by that read, since the kernel moves
        // all of it over before it fails.
        let over = self.over.load(Ordering::Acquire);
        let read = self.master.try_io(Interest::READABLE, |master| {
            nix::unistd::read(master, buffer).map_err(|errno| self.hang_up(errno))
        });
        match read {
            Err(error) if over && error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// Writes all bytes, as if they were typed; waits while the command does not read.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.ready(Interest::WRITABLE).await?;
            let written = self.master.try_io(Interest::WRITABLE, |master| {
                nix::unistd::write(master, bytes).map_err(|errno| self.hang_up(errno))
            });
            match written {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Types the end-of-file character: what it is at the moment, ctrl-D where it was switched off. `line` says that a
    /// line was begun; then the first one only ends that line (termios(3), VEOF), and it is typed twice.
    pub async fn type_end_of_file(&self, line: bool) -> io::Result<()> {
        let termios = tcgetattr(self.master.get_ref())?;
        let character = match termios.control_chars[SpecialCharacterIndices::VEOF as usize] {
            0 => CTRL_D,
            set => set,
        };
        let keys = [character; 2];
        self.write_all(&keys[..if line { 2 } else { 1 }]).await
    }

    /// Changes the size; the foreground process group gets SIGWINCH.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        let master = self.master.get_ref().as_fd();
        set_size(master, size.rows.get(), size.cols.get()).map_err(Into::into)
    }

    /// Says that the cell is gone: what was written can still be read, and then comes the end.
    pub fn finish(&self) {
        self.over.store(true, Ordering::Release);
        self.wake.notify_waiters();
    }

    async fn ready(&self, interest: Interest) -> io::Result<()> {
        if self.hung_up.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
            return Ok(());
        }
        let ready = self.master.ready(interest).await?.ready();
        if ready.is_read_closed() || ready.is_write_closed() {
            self.hung_up.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// EIO is a terminal that nobody has open at the moment, not a failure.
    fn hang_up(&self, errno: Errno) -> io::Error {
        if errno == Errno::EIO {
            self.hung_up.store(true, Ordering::Relaxed);
            return io::ErrorKind::WouldBlock.into();
        }
        errno.into()
    }
}
