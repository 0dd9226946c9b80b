//! Reading or writing one file of a runtime. The payload does it itself in place of becoming a command: in the same
//! namespaces, with the same ids, without a capability and behind the same filters as any command, so that a link or a
//! device leads no further than it leads a command. Nobody else touches a path of the runtime's tree.
//!
//! | stream | carries |
//! |---|---|
//! | the sealed memfd | the [`Operation`] |
//! | stderr | [`Report`]s: `Ready`, then for a write `Done`; in place of either the reason why not. Nothing else |
//! | stdout | read: as many bytes as `Ready` announced, fewer if the file shrinks meanwhile |
//! | stdin | write: frames, each a little-endian u32 and so many bytes; an empty frame is the end of the file |
//!
//! The end of stdin alone does not complete a write: whoever sends may have died in the middle.

mod place;
pub mod read;
pub mod write;

use crate::sys;
use nix::errno::Errno;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

/// Bytes moved at once: what a pipe holds by default, pipe(7).
const CHUNK: usize = 64 * 1024;

/// First number of an encoded operation. An encoded command begins with flags, of which none is that high.
const READ: u32 = 0x8000_0001;
const WRITE: u32 = 0x8000_0002;

/// What to do, with which absolute path inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Send a regular file, links followed.
    Read(CString),
    /// Make or replace a regular file, and the directories above it. A link as the last part is kept; what it names is
    /// written.
    Write(CString),
}

impl Operation {
    /// The bytes that [`Operation::decode`] reads.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, path) = match self {
            Operation::Read(path) => (READ, path),
            Operation::Write(path) => (WRITE, path),
        };
        [&kind.to_le_bytes(), path.as_bytes_with_nul()].concat()
    }

    /// Reads what [`Operation::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Operation> {
        let (kind, path) = bytes.split_first_chunk()?;
        let path = CStr::from_bytes_with_nul(path).ok()?.to_owned();
        match u32::from_le_bytes(*kind) {
            READ => Some(Operation::Read(path)),
            WRITE => Some(Operation::Write(path)),
            _ => None,
        }
    }
}

/// Why a file can't be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The kernel said so.
    Kernel(Errno),
    /// It is a FIFO, a socket or a device.
    NotRegular,
    /// It does not lie on the runtime's own disk but on something that comes and goes with each cell, or that is shown
    /// read-only: `/proc`, `/dev`, a directory of the host image.
    Elsewhere,
    /// The runtime's own disk has room for it, but the host's, which that one is a file on, has not.
    HostFull,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Refusal::Kernel(errno)
    }
}

/// What the payload says on its stderr. The reader must take it for what it is: bytes out of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// A read: the file is open and has this size. A write (0): the bytes may come.
    Ready(u64),
    /// The new file is complete, stored, and in its place.
    Done,
    /// It can't be done; nothing has changed.
    Refused(Refusal),
}

impl Report {
    /// Bytes of every encoded report: a tag and a little-endian u64.
    pub const LENGTH: usize = 9;

    /// The bytes that [`Report::decode`] reads.
    pub fn encode(self) -> [u8; Self::LENGTH] {
        let (tag, value) = match self {
            Report::Ready(size) => (1, size),
            Report::Done => (2, 0),
            Report::Refused(Refusal::Kernel(errno)) => (3, errno as u64),
            Report::Refused(Refusal::NotRegular) => (4, 0),
            Report::Refused(Refusal::Elsewhere) => (5, 0),
            Report::Refused(Refusal::HostFull) => (6, 0),
        };
        let mut bytes = [tag; Self::LENGTH];
        bytes[1..].copy_from_slice(&value.to_le_bytes());
        bytes
    }

    /// Reads what [`Report::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: [u8; Self::LENGTH]) -> Option<Report> {
        let [tag, value @ ..] = bytes;
        match (tag, u64::from_le_bytes(value)) {
            (1, size) => Some(Report::Ready(size)),
            (2, 0) => Some(Report::Done),
            (3, number @ 1..4096) => Some(Report::Refused(Errno::from_raw(number as i32).into())),
            (4, 0) => Some(Report::Refused(Refusal::NotRegular)),
            (5, 0) => Some(Report::Refused(Refusal::Elsewhere)),
            (6, 0) => Some(Report::Refused(Refusal::HostFull)),
            _ => None,
        }
    }
}

/// Carries the operation out with what rights are left, and ends.
pub fn run(operation: &Operation) -> ! {
    let done = match operation {
        Operation::Read(path) => read::run(path),
        Operation::Write(path) => write::run(path),
    };
    match done {
        Ok(()) => sys::exit_now(0),
        Err(refusal) => {
            // Whoever asked may be gone.
            let _ = tell(Report::Refused(refusal));
            sys::exit_now(1)
        }
    }
}

/// Whether it lies in `/proc`, whose files and links are about this process and not about whoever asked.
fn in_proc(place: &OwnedFd) -> Result<bool, Errno> {
    Ok(fstatfs(place)?.filesystem_type() == PROC_SUPER_MAGIC)
}

/// A write of so few bytes to a pipe is atomic, pipe(7).
fn tell(report: Report) -> Result<(), Errno> {
    nix::unistd::write(std::io::stderr(), &report.encode()).map(drop)
}

/// Where a descriptor can be opened again or linked from without looking its path up a second time, proc_pid_fd(5).
/// Each process may follow its own of these links, even one that is not dumpable.
fn by_descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reports_survive_their_encoding() {
        for report in [
            Report::Ready(0),
            Report::Ready(u64::MAX),
            Report::Done,
            Report::Refused(Errno::ENOENT.into()),
            Report::Refused(Refusal::NotRegular),
            Report::Refused(Refusal::Elsewhere),
            Report::Refused(Refusal::HostFull),
        ] {
            assert_eq!(Report::decode(report.encode()), Some(report));
        }
    }

    #[test]
    fn an_operation_is_no_command_and_the_other_way_round() {
        use crate::cell::command::{Command, Decoded};
        let command = Command {
            cwd: "/".into(),
            instead: Vec::new(),
            command: "true".into(),
            args: Vec::new(),
            env: Vec::new(),
            shell_fallback: true,
        };
        assert_eq!(Operation::decode(&command.encode()), None);
        for operation in [
            Operation::Read(c"/x".into()),
            Operation::Write(c"/x".into()),
        ] {
            assert_eq!(
                Operation::decode(&operation.encode()),
                Some(operation.clone())
            );
            assert_eq!(Decoded::decode(&operation.encode()), None);
        }
    }

    proptest! {
        #[test]
        fn never_panics_on_foreign_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64), report: [u8; 9]) {
            let _ = Operation::decode(&bytes);
            let _ = Report::decode(report);
        }
    }
}
