//! Unpacking of what strangers packed: a layer of an image (tar, gzip, zstd) into a directory, the user that an image names
//! out of its own `/etc/passwd`, and the outer compression of an archive of images.
//!
//! No byte of an archive is parsed in the calling process. [`Unpacker`] starts our own binary once more, in the role
//! `role:unpack`, and hands it descriptors; the new process gives every right up before it reads:
//!
//! | who | file | does |
//! |---|---|---|
//! | caller | `launch` | starts the role, sends the job, judges the reports, sets what only root may set |
//! | role, host root | `confine` | private mounts of the given directories, idmapped; namespaces |
//! | role, confined | `confine`, `filter` | ids, capabilities, limits, seccomp, then one of: |
//! | | `layer` | `stream` → `tar` → `names` → `tree`, `place`: entries into the directory |
//! | | `user` | `/etc/passwd` and `/etc/group` of some layers |
//! | | `confine` | `stream` into a file |
//!
//! `wire` has the messages between the two. The import and the pull of images call this.

pub mod confine;
mod error;
mod filter;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod header;
mod launch;
mod layer;
mod names;
mod pax;
mod place;
mod stream;
mod tar;
mod tree;
mod trouble;
mod user;
mod wire;
mod zstd;

use super::content::ImageUser;
use super::digest::Digest;
pub use error::UnpackError;
pub(crate) use launch::is_opaque;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
pub(crate) use tree::open_dir;

/// The role's argument.
pub const ROLE: &str = "role:unpack";

/// How many ids an image may use: 0 to 65,534. The last one of a range, 65,535, is "no id" to programs with 16-bit ids.
pub const IDS: u32 = crate::resources::RANGE - 1;

/// What one layer may come to. A caller with several lowers them by what the earlier ones used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Bytes of all files, holes included.
    pub bytes: u64,
    /// Files, directories and links, those directories included that only other entries' names tell of.
    pub entries: u64,
    /// Unpacked bytes per packed byte; counted from 64 MiB unpacked on.
    pub ratio: u64,
    /// Bytes of an entry's name; the kernel takes no more than 4,095.
    pub path: usize,
    /// Bytes of one component of it.
    pub component: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            bytes: 32 << 30,
            entries: 500_000,
            ratio: 200,
            path: 4095,
            component: 255,
        }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpacked {
    /// Digest of the whole uncompressed stream, what follows the last entry included.
    pub diff_id: Digest,
    /// Bytes of all files, holes included.
    pub bytes: u64,
    /// What counts in [`Bounds::entries`].
    pub entries: u64,
    /// Directories that no entry named, but only names below them, in order: of their owner and mode the layer says nothing.
    #[serde(skip)]
    pub implied: BTreeSet<Vec<u8>>,
}

/// Starts confined processes.
#[derive(Debug, Clone)]
pub struct Unpacker {
    /// Our own binary.
    program: PathBuf,
    /// First host uid of the service's block.
    uid_base: u32,
}

impl Unpacker {
    /// For a process that runs our own binary. `uid_base` is the configuration's: the first range of its block is the
    /// service's own, and the confined process lives in it.
    pub fn new(uid_base: u32) -> Unpacker {
        Unpacker::of_program("/proc/self/exe", uid_base)
    }

    /// As [`Unpacker::new`], for a process that runs another binary: a test.
    pub fn of_program(program: impl Into<PathBuf>, uid_base: u32) -> Unpacker {
        Unpacker {
            program: program.into(),
            uid_base,
        }
    }

    /// Unpacks a layer into `target`, an empty directory of root's, and reads its archive to the end.
    ///
    /// `source` is read from its offset on, at most `length` bytes. `progress` hears of the packed bytes read so far. After
    /// a failure `target` holds what was unpacked until then; no process writes to it any more. Nothing is synced.
    pub fn layer(
        &self,
        source: OwnedFd,
        length: Option<u64>,
        target: &Path,
        bounds: &Bounds,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Unpacked, UnpackError> {
        launch::layer(self, source, length, target, bounds, progress)
    }

    /// Who `user`, as an OCI configuration writes it (name or uid, perhaps `:` and a group or gid), is in an image of these
    /// unpacked layers, the uppermost first.
    pub fn user(&self, layers: &[PathBuf], user: &str) -> Result<ImageUser, UnpackError> {
        launch::user(self, layers, user)
    }

    /// Writes `source` (as for [`Unpacker::layer`]), uncompressed, to the empty file `target`: at most
    /// `bounds.bytes`, at most `bounds.ratio` per packed byte. Tells how many bytes it wrote. What is not compressed is copied.
    pub fn expand(
        &self,
        source: OwnedFd,
        length: Option<u64>,
        target: OwnedFd,
        bounds: &Bounds,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64, UnpackError> {
        launch::expand(self, source, length, target, bounds, progress)
    }
}
