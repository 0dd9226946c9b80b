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

/// How often a terminal is looked at that nobody had open at least once.
const LOOK: Duration = Duration::from_millis(20);

/// What ends the input where it is typed, unless the command changed that (termios(3), VEOF).
pub const CTRL_D: u8 = 4;

/// The master of a command's terminal.
#[derive(Debug)]
pub struct Terminal {
    master: AsyncFd<Polled>,
    /// The reactor has seen a hang-up, and calls it ready for ever.
    hung_up: AtomicBool,
    /// The last try had to be given up.
    blocked: AtomicBool,
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
            blocked: AtomicBool::new(false),
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
        if !self.over.load(Ordering::Acquire) {
            return self.try_io(Interest::READABLE, |master| {
                nix::unistd::read(master, buffer)
            });
        }
        // Asked of the kernel itself, since the reactor may not have heard of the last bytes yet. Before the kernel fails
        // it moves over all that was written (n_tty_read).
        match nix::unistd::read(self.master.get_ref(), buffer) {
            Err(Errno::EIO | Errno::EAGAIN) => Ok(0),
            other => other.map_err(Into::into),
        }
    }

    /// Writes all bytes, as if they were typed; waits while the command does not read.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.ready(Interest::WRITABLE).await?;
            let written = self.try_io(Interest::WRITABLE, |master| {
                nix::unistd::write(master, bytes)
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
        let presses = if line { 2 } else { 1 };
        self.write_all(&[character; 2][..presses]).await
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
            if self.blocked.swap(false, Ordering::Relaxed) {
                tokio::time::sleep(LOOK).await;
            }
            return Ok(());
        }
        let ready = self.master.ready(interest).await?.ready();
        if ready.is_read_closed() || ready.is_write_closed() {
            self.hung_up.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// EIO is a terminal that nobody has open at the moment, not a failure.
    fn try_io(
        &self,
        interest: Interest,
        call: impl FnOnce(&Polled) -> nix::Result<usize>,
    ) -> io::Result<usize> {
        let done = self.master.try_io(interest, |master| match call(master) {
            Err(Errno::EIO) => {
                self.hung_up.store(true, Ordering::Relaxed);
                Err(io::ErrorKind::WouldBlock.into())
            }
            other => other.map_err(Into::into),
        });
        if let Err(error) = &done
            && error.kind() == io::ErrorKind::WouldBlock
        {
            self.blocked.store(true, Ordering::Relaxed);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::terminal::open_pair;
    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;

    /// A terminal of the machine's own instance, which any process may have.
    fn pair() -> (Terminal, OwnedFd) {
        let devpts = open("/dev/pts", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        let (master, slave) = open_pair(devpts.as_fd()).unwrap();
        (Terminal::new(master).unwrap(), slave)
    }

    async fn read_to_end(terminal: &Terminal) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), [0; 1000]);
        loop {
            terminal.readable().await.unwrap();
            match terminal.try_read(&mut buffer) {
                Ok(0) => return all,
                Ok(count) => all.extend_from_slice(&buffer[..count]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }

    #[tokio::test]
    async fn what_was_written_last_is_read_before_the_end() {
        // The reactor gets no turn between the write and the end.
        for _ in 0..100 {
            let (terminal, slave) = pair();
            nix::unistd::write(&slave, b"last words").unwrap();
            drop(slave);
            terminal.finish();
            assert_eq!(read_to_end(&terminal).await, b"last words");
        }
    }

    #[tokio::test]
    async fn there_is_no_end_before_it_is_said() {
        let (terminal, slave) = pair();
        let terminal = std::sync::Arc::new(terminal);
        let name = nix::unistd::ttyname(&slave).unwrap();
        let reader = tokio::spawn({
            let terminal = terminal.clone();
            async move { read_to_end(&terminal).await }
        });
        nix::unistd::write(&slave, b"one").unwrap();
        drop(slave);
        tokio::time::sleep(3 * LOOK).await;
        let again = open(&name, OFlag::O_RDWR | OFlag::O_NOCTTY, Mode::empty()).unwrap();
        nix::unistd::write(&again, b"two").unwrap();
        drop(again);
        tokio::time::sleep(3 * LOOK).await;
        assert!(!reader.is_finished());
        terminal.finish();
        assert_eq!(reader.await.unwrap(), b"onetwo");
    }

    #[tokio::test]
    async fn writing_waits_for_who_reads_and_the_end_is_typed() {
        let (terminal, slave) = pair();
        let terminal = std::sync::Arc::new(terminal);
        let mut termios = tcgetattr(&slave).unwrap();
        nix::sys::termios::cfmakeraw(&mut termios);
        let now = nix::sys::termios::SetArg::TCSANOW;
        nix::sys::termios::tcsetattr(&slave, now, &termios).unwrap();
        let writer = tokio::spawn({
            let terminal = terminal.clone();
            async move {
                terminal.write_all(&[b'x'; 300_000]).await.unwrap();
                terminal.type_end_of_file(true).await.unwrap();
            }
        });
        let read = tokio::task::spawn_blocking(move || {
            let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
            while all.len() < 300_002 {
                let count = nix::unistd::read(&slave, &mut buffer).unwrap();
                all.extend_from_slice(&buffer[..count]);
            }
            all
        });
        writer.await.unwrap();
        let read = read.await.unwrap();
        assert!(read[..300_000].iter().all(|byte| *byte == b'x'));
        assert_eq!(read[300_000..], [CTRL_D; 2]);
    }
}
