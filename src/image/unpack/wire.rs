//! What the caller and the confined process tell each other over a packet socket: one order with descriptors, then reports.
//!
//! The caller takes reports for what they are: the words of a process that an archive may have taken over. They are
//! bounded, every text is escaped again, and a path in them is only followed as an entry's name would be.

use super::{Bounds, Unpacked};
use crate::image::content::ImageUser;
use crate::sys::packet;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::os::fd::{BorrowedFd, OwnedFd};

/// The longest message either way in bytes.
pub const MAX: usize = 16 << 10;

/// Begins a report that is a directory's name in raw bytes; no JSON begins with it.
const OPAQUE: u8 = 0;
/// Begins another one.
const IMPLIED: u8 = 1;

/// What is to be done, and in which ids.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// First host uid of the service's block.
    pub uid_base: u32,
    /// See there.
    pub job: Job,
}

/// The three jobs. With each come descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub enum Job {
    /// The archive, the directory to fill.
    Layer {
        /// Packed bytes to read at most.
        length: Option<u64>,
        /// What it may come to.
        bounds: Bounds,
    },
    /// Directories of layers, the uppermost first.
    User {
        /// As an image writes it.
        user: String,
    },
    /// The archive, the file to write.
    Expand {
        /// Packed bytes to read at most.
        length: Option<u64>,
        /// What it may come to.
        bounds: Bounds,
    },
}

/// What the confined process says. All but the first three are its last word.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// Packed bytes read so far.
    Progress(u64),
    /// A directory that hides what lower layers have in it; said before [`Report::Unpacked`].
    #[serde(skip)]
    Opaque(Vec<u8>),
    /// A directory that no entry named; said before [`Report::Unpacked`].
    #[serde(skip)]
    Implied(Vec<u8>),
    /// A layer is unpacked.
    Unpacked(Unpacked),
    /// A user was found.
    User(ImageUser),
    /// A file is written: its bytes.
    Expanded(u64),
    /// The archive, or the user, is not taken.
    Refused {
        /// The name of the entry that is at fault, escaped and cut.
        entry: Option<String>,
        /// Why not.
        reason: String,
    },
    /// Something else failed.
    Failed(String),
}

impl Report {
    /// Sends it. A caller that is gone wants no report.
    pub fn send(&self, control: &OwnedFd) -> Result<(), Errno> {
        use std::os::fd::AsFd;
        let bytes = match self {
            Report::Opaque(path) => [&[OPAQUE], path.as_slice()].concat(),
            Report::Implied(path) => [&[IMPLIED], path.as_slice()].concat(),
            other => serde_json::to_vec(other).map_err(|_| Errno::EINVAL)?,
        };
        packet::send(control.as_fd(), &bytes, &[])
    }

    /// The next one; none when the other end is closed.
    ///
    /// # Errors
    /// EMSGSIZE for one that is too long, EBADMSG for one that is none.
    pub fn receive(control: BorrowedFd<'_>) -> Result<Option<Report>, Errno> {
        let mut buffer = vec![0; MAX];
        let packet = loop {
            match packet::receive(control, &mut buffer) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        let Some(packet) = packet else {
            return Ok(None);
        };
        match &buffer[..packet.length] {
            [OPAQUE, path @ ..] => Ok(Some(Report::Opaque(path.to_vec()))),
            [IMPLIED, path @ ..] => Ok(Some(Report::Implied(path.to_vec()))),
            bytes => serde_json::from_slice(bytes)
                .map(Some)
                .map_err(|_| Errno::EBADMSG),
        }
    }
}
