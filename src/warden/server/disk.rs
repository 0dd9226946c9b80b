//! A runtime's own disk: a sparse file with an ext4 in it, attached as a loop device. Its size is the limit, on whatever
//! file system the data directory is.

use crate::cell::error::CellError;
use crate::cell::mounts::{self, NOSUID_NODEV};
use crate::image::ImageError;
use crate::resources::MIB;
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use rustix::fs::FlockOperation;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The smallest disk that holds an ext4 with a journal, in MiB.
pub const MIN_MIB: u64 = 16;

/// Where distributions keep the tool.
const MKFS: [&str; 3] = [
    "/usr/sbin/mkfs.ext4",
    "/sbin/mkfs.ext4",
    "/usr/bin/mkfs.ext4",
];

/// Why a disk can't be made or mounted.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The tool is not installed.
    #[error("{0} was not found; install e2fsprogs")]
    NoTool(&'static str),
    /// The tool said no.
    #[error("{tool} {}: {message}", .path.display())]
    Tool {
        /// Its name.
        tool: &'static str,
        /// The disk's file.
        path: PathBuf,
        /// The tool's own words.
        message: String,
    },
    /// A file operation failed.
    #[error("{operation} {}", .path.display())]
    Io {
        /// What was done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The disk of an earlier mount is still in use.
    #[error("{} is still attached elsewhere", .0.display())]
    Busy(PathBuf),
    /// A mount step failed.
    #[error(transparent)]
    Mount(#[from] CellError),
    /// The images can't be kept as they are.
    #[error(transparent)]
    Images(#[from] ImageError),
}

impl DiskError {
    /// Whether the host's file system is full.
    pub fn is_no_space(&self) -> bool {
        match self {
            DiskError::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            DiskError::Tool { message, .. } => message.contains("No space left"),
            DiskError::Mount(error) => error.source == Errno::ENOSPC,
            _ => false,
        }
    }
}

/// For `map_err`: the operation and path that an I/O error belongs to.
pub(super) fn io<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> DiskError + 'a {
    move |source| DiskError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// The tool's path, where it is installed.
pub fn mkfs() -> Option<&'static str> {
    MKFS.into_iter().find(|path| Path::new(path).exists())
}

/// Makes the file and the file system in it. Takes some 20 ms, so it is a job, not a step of the warden's loop.
pub fn create(path: &Path, size_mib: u64) -> Result<(), DiskError> {
    let tool = mkfs().ok_or(DiskError::NoTool("mkfs.ext4"))?;
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let file = file.map_err(io("create", path))?;
    file.set_len(size_mib * MIB).map_err(io("size", path))?;
    drop(file);
    let output = Command::new(tool)
        // No reserved blocks: the tenant's uid is not root's. Tables are zeroed by being sparse.
        .args([
            "-q",
            "-F",
            "-m",
            "0",
            "-E",
            "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
        ])
        .arg(path)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(io("run mkfs.ext4 on", path))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DiskError::Tool {
        tool: "mkfs.ext4",
        path: path.to_owned(),
        message,
    })
}

/// Attaches the file to a loop device and mounts it, detached. The device frees itself with the last mount.
///
/// The lock on the file lives as long as the loop device holds it open, so that a mount that is still on its way out (an
/// earlier server's, a stopped runtime's) can't be doubled: two mounts of one ext4 would destroy it. Waits up to 10 s.
pub fn mount(path: &Path) -> Result<OwnedFd, DiskError> {
    let locked = open_locked(path)?;
    let attached = sys::loopdev::attach(locked.as_fd());
    let (device, _last_user) = attached.map_err(|e| io("attach", path)(e.into()))?;
    // Closing `locked` does not unlock it: the loop device shares the open file.
    mount_device(&device)
}

/// Mounts what is on a loop device, detached.
pub(super) fn mount_device(device: &Path) -> Result<OwnedFd, DiskError> {
    let device = device.to_str().expect("loop devices are ASCII");
    Ok(mounts::new(c"ext4", &[(c"source", device)], NOSUID_NODEV)?)
}

/// The root directory of a detached mount, open for more than looking things up in it: keeps the mount in use.
pub(super) fn root_of(mount: &OwnedFd) -> Result<OwnedFd, DiskError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(mount, ".", flags, Mode::empty()).map_err(|e| io("open", Path::new("."))(e.into()))
}

/// Opens a disk's file when nothing else uses it any more, and keeps others away until it is closed.
pub(super) fn open_locked(path: &Path) -> Result<File, DiskError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(io("open", path))?;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(DiskError::Busy(path.to_owned())),
            Err(errno) => return Err(io("lock", path)(errno.into())),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
