//! Writing to a log that perhaps nobody takes. A write to a full pipe waits for its reader, and with it would every request
//! that logs something, and the warden. So a line waits for a moment, and is lost when that is over.

use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, sendmsg};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How long a line waits, in milliseconds, unless the one before was lost.
const PATIENCE_MS: u16 = 100;

/// Lines that were lost since the last one that was not.
static LOST: AtomicU64 = AtomicU64::new(0);

/// The last one was lost in its middle.
static CUT: AtomicBool = AtomicBool::new(false);

/// Makes stdout and stderr of this process, and of all that it starts, such that no write waits. A pipe or a terminal is
/// opened anew for that, since others may have it open too and rely on its waiting; a socket is asked each time; files
/// don't wait but for the disk.
pub fn never_wait() {
    for (fd, number) in [
        (io::stdout().as_fd(), libc::STDOUT_FILENO),
        (io::stderr().as_fd(), libc::STDERR_FILENO),
    ] {
        // Where it can't be had, all is as without this.
        if waits(fd) {
            let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
            let path = format!("/proc/self/fd/{number}");
            let _ = open(path.as_str(), flags, Mode::empty())
                .and_then(|own| sys::dup_onto(own.as_fd(), number, false));
        }
    }
}

fn kind(fd: BorrowedFd<'_>) -> Option<SFlag> {
    let mode = fstat(fd).ok()?.st_mode;
    Some(SFlag::from_bits_truncate(mode) & SFlag::S_IFMT)
}

fn waits(fd: BorrowedFd<'_>) -> bool {
    match kind(fd) {
        Some(SFlag::S_IFIFO) => true,
        Some(SFlag::S_IFCHR) => nix::unistd::isatty(fd).unwrap_or(false),
        _ => false,
    }
}

/// A standard stream, without ever an error and without a wait that has no end.
#[derive(Debug, Clone, Copy)]
pub enum Stream {
    /// stdout.
    Stdout,
    /// stderr.
    Stderr,
}

impl Write for Stream {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        static SOCKETS: [OnceLock<bool>; 2] = [OnceLock::new(), OnceLock::new()];
        // One line at a time.
        match self {
            Self::Stdout => put(io::stdout().lock().as_fd(), &SOCKETS[0], line),
            Self::Stderr => put(io::stderr().lock().as_fd(), &SOCKETS[1], line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a line, after a word on those that are missing before it; or counts it as lost.
fn put(fd: BorrowedFd<'_>, socket: &OnceLock<bool>, line: &[u8]) {
    let socket = *socket.get_or_init(|| kind(fd) == Some(SFlag::S_IFSOCK));
    let lost = LOST.swap(0, Ordering::Relaxed);
    if lost > 0 {
        let end = if CUT.load(Ordering::Relaxed) {
            "\n"
        } else {
            ""
        };
        let note = format!("{end}cellblock: {lost} log lines are missing here: nobody took them\n");
        if written(fd, socket, note.as_bytes(), 0) < note.len() {
            LOST.fetch_add(lost + 1, Ordering::Relaxed);
            return;
        }
        CUT.store(false, Ordering::Relaxed);
    }
    let patience = if lost > 0 { 0 } else { PATIENCE_MS };
    let count = written(fd, socket, line, patience);
    if count < line.len() {
        LOST.fetch_add(1, Ordering::Relaxed);
        CUT.store(count > 0, Ordering::Relaxed);
    }
}

/// Writes as much as is taken, and gives how much that was.
fn written(fd: BorrowedFd<'_>, socket: bool, bytes: &[u8], patience: u16) -> usize {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &bytes[done..];
        let result = match socket {
            false => nix::unistd::write(fd, rest),
            true => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                sendmsg::<()>(fd.as_raw_fd(), &[IoSlice::new(rest)], &[], flags, None)
            }
        };
        match result {
            Ok(count) => done += count,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if patience > 0 && room(fd, patience) => {}
            Err(_) => break,
        }
    }
    done
}

fn room(fd: BorrowedFd<'_>, patience: u16) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::from(patience)) == Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_nobody_takes_is_lost_and_counted() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let socket = OnceLock::new();
        let mut line = vec![b'x'; 4095];
        line.push(b'\n');
        // Far more than any socket holds.
        (0..10_000).for_each(|_| put(writer.as_fd(), &socket, &line));
        assert!(LOST.load(Ordering::Relaxed) > 0);
        reader.set_nonblocking(true).unwrap();
        let mut taken = Vec::new();
        let _ = reader.read_to_end(&mut taken);
        put(writer.as_fd(), &socket, b"again\n");
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest);
        let rest = String::from_utf8(rest).unwrap();
        assert!(rest.ends_with("nobody took them\nagain\n"), "{rest}");
        assert_eq!(LOST.load(Ordering::Relaxed), 0);
    }
}
