//! What the jobs do that copy disks, in their child: a runtime's to a checkpoint, a checkpoint's to a new runtime.
//!
//! A disk that is mounted is copied while its file system is frozen; that freeze is the file system's own and outlives
//! whoever asked for it. Three thaw it: this job, else the warden when the job has died ([`super::standstill`]), else the
//! next warden at its start ([`thaw_leftovers`]).

use crate::image::ImageStore;
use crate::log::chain;
use crate::resources::MIB;
use crate::sys;
use crate::warden::server::building::{DISK, disk_failed};
use crate::warden::server::checkpoints::Record;
use crate::warden::server::disk::{self, DiskError, io};
use crate::warden::server::jobs::{JobError, JobResult};
use crate::warden::server::records;
use nix::errno::Errno;
use rustix::fs::SeekFrom;
use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Names, in an unfinished copy, the runtime whose disk may be frozen for it.
const SOURCE: &str = "source";

/// The checkpoint job: the copy, the record, then the final name.
#[derive(Debug)]
pub(super) struct Checkpoint {
    /// Whose disk is copied.
    pub runtime: Uuid,
    /// That disk.
    pub source: PathBuf,
    /// Where the checkpoint is made.
    pub directory: PathBuf,
    /// Where it is when it is whole.
    pub target: PathBuf,
    /// What is written beside the copy.
    pub record: Record,
    /// Whether the disk is mounted.
    pub mounted: bool,
    /// Where the image below the disk is.
    pub images: ImageStore,
}

impl Checkpoint {
    /// Makes it; on failure nothing is left. `disk` is the root directory of the disk where it is mounted.
    pub(super) fn make(&self, disk: Option<OwnedFd>) -> JobResult {
        if self.mounted && disk.is_none() {
            let reason = "more descriptors than this process may open".to_owned();
            return Err(JobError::NoRoom("descriptors".to_owned(), reason));
        }
        // What is there already is not this job's to remove.
        let directory = self.directory.as_path();
        let made = std::fs::create_dir(directory)
            .map_err(io("create", directory))
            .and_then(|()| {
                self.fill(disk).inspect_err(|_| {
                    let _ = std::fs::remove_dir_all(directory);
                })
            });
        made.map(|()| Vec::new())
            .map_err(|error| disk_failed(&error))
    }

    fn fill(&self, disk: Option<OwnedFd>) -> Result<(), DiskError> {
        let (source, directory) = (self.source.as_path(), self.directory.as_path());
        let note = directory.join(SOURCE);
        std::fs::write(&note, self.runtime.to_string()).map_err(io("write", &note))?;
        let target = directory.join(DISK);
        match disk {
            Some(disk) => {
                let frozen = Frozen::new(disk).map_err(|e| io("freeze", source)(e.into()))?;
                copy(source, &target)?;
                drop(frozen);
            }
            // The lock keeps away the last writes of a mount that is still on its way out.
            None => {
                let _locked = disk::open_locked(source)?;
                copy(source, &target)?;
            }
        }
        std::fs::remove_file(&note).map_err(io("remove", &note))?;
        // Whoever looks for images that nothing refers to sees the runtime or the checkpoint, also in between.
        let _kept = self.images.lock_shared()?;
        records::write(directory, &self.record).map_err(io("write the record in", directory))?;
        sync(directory)?;
        std::fs::rename(directory, &self.target).map_err(io("rename", directory))?;
        sync(self.target.parent().unwrap_or(Path::new("/")))
    }
}

/// A file system that is held still until this is dropped.
struct Frozen(OwnedFd);

impl Frozen {
    fn new(dir: OwnedFd) -> Result<Self, Errno> {
        sys::freeze::freeze(dir.as_fd()).map(|()| Self(dir))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(errno) = sys::freeze::thaw(self.0.as_fd()) {
            tracing::error!(%errno, "a disk is not thawed");
        }
    }
}

fn sync(directory: &Path) -> Result<(), DiskError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io("sync", directory))
}

/// Copies a disk to a new file, on the same file system: shares its blocks where that can be done, else copies what is no
/// hole. The copy is on disk when this returns.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), DiskError> {
    let source = File::open(from).map_err(io("open", from))?;
    let target = File::create_new(to).map_err(io("create", to))?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
        // ext4 and tmpfs can't; whatever else it was, the copy meets it again.
        check_room(&source, from, to)?;
        copy_data(&source, &target).map_err(|errno| io("copy", from)(errno.into()))?;
    }
    target.sync_all().map_err(io("sync", to))
}

fn check_room(source: &File, from: &Path, to: &Path) -> Result<(), DiskError> {
    let bytes = source.metadata().map_err(io("look at", from))?.blocks() * 512;
    let parent = to.parent().unwrap_or(Path::new("/"));
    let stat = nix::sys::statvfs::statvfs(parent).map_err(|e| io("look at", parent)(e.into()))?;
    if bytes > stat.blocks_available().saturating_mul(stat.fragment_size()) {
        return Err(io("copy", from)(Errno::ENOSPC.into()));
    }
    Ok(())
}

/// The data between the holes, in pieces: a job that is to die does so between two.
fn copy_data(source: &File, target: &File) -> rustix::io::Result<()> {
    const PIECE: u64 = 16 * MIB;
    let size = rustix::fs::fstat(source)?.st_size as u64;
    rustix::fs::ftruncate(target, size)?;
    let mut at = 0;
    loop {
        // ENXIO: no data from here to the end (lseek(2)).
        let start = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            other => other?,
        };
        let end = rustix::fs::seek(source, SeekFrom::Hole(start))?.min(size);
        at = start;
        while at < end {
            let length = PIECE.min(end - at) as usize;
            let (mut read, mut write) = (at, at);
            match rustix::fs::copy_file_range(
                source,
                Some(&mut read),
                target,
                Some(&mut write),
                length,
            )? {
                // It became shorter, which nobody does.
                0 => return Err(rustix::io::Errno::IO),
                copied => at += copied as u64,
            }
        }
    }
}

const RESIZE: [&str; 3] = [
    "/usr/sbin/resize2fs",
    "/sbin/resize2fs",
    "/usr/bin/resize2fs",
];

/// Makes a disk that is not attached larger, clean or not.
pub(super) fn grow(path: &Path, size_mib: u64) -> Result<(), DiskError> {
    let tool = RESIZE.into_iter().find(|path| Path::new(path).exists());
    let tool = tool.ok_or(DiskError::NoTool("resize2fs"))?;
    // Its journal may hold what is not in place yet, where the machine failed while it was mounted: to resize it so would
    // destroy it. The kernel puts that in place when it mounts.
    drop(disk::mount(path)?);
    // Taken when that mount is gone.
    let file = disk::open_locked(path)?;
    file.set_len(size_mib * MIB).map_err(io("size", path))?;
    // -f: so it is clean; the tool would ask for a check all the same.
    let output = Command::new(tool)
        .arg("-f")
        .arg(path)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(io("run resize2fs on", path))?;
    if output.status.success() {
        return Ok(());
    }
    Err(DiskError::Tool {
        tool: "resize2fs",
        path: path.to_owned(),
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Thaws what a killed server left frozen. Such a file system exists without a mount, keeps its loop device and holds every
/// process that writes to it. Must come before anything that waits for such a process. Returns how many disks that were
/// being copied are still attached.
pub(super) fn thaw_leftovers(data_dir: &Path) -> usize {
    let disks = half_copied(data_dir);
    if disks.is_empty() {
        return 0;
    }
    let loops = std::fs::read_dir("/sys/block").into_iter().flatten();
    let attached = |entry: &std::fs::DirEntry| entry.path().join("loop/backing_file").exists();
    let mut found = 0;
    for entry in loops.flatten().filter(attached) {
        let device = Path::new("/dev").join(entry.file_name());
        match thaw_if_in(&device, &disks) {
            Ok(is_in) => found += usize::from(is_in),
            Err(error) => {
                tracing::warn!(device = %device.display(), error = chain(&error), "a leftover disk");
                found += 1;
            }
        }
    }
    found
}

/// Waits until no disk that was being copied is attached any more: a job of a killed server may have been about to freeze
/// it. Must come when no process of a cell is left, and before [`super::checkpoints::Checkpoints::load`] forgets the copies.
pub(super) fn settle_leftovers(data_dir: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while thaw_leftovers(data_dir) > 0 {
        if Instant::now() > deadline {
            tracing::error!("disks of an earlier server are still in use");
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Device and inode numbers of the disks that were being copied when a server ended.
fn half_copied(data_dir: &Path) -> HashSet<(u64, u64)> {
    let disk = |copy: &Path| {
        let source = std::fs::read_to_string(copy.join(SOURCE)).ok()?;
        let runtime = Uuid::parse_str(&source).ok()?;
        let runtimes = data_dir.join("runtimes");
        let disk = runtimes.join(runtime.to_string()).join(DISK);
        let status = std::fs::symlink_metadata(disk).ok()?;
        Some((status.dev(), status.ino()))
    };
    let copies = std::fs::read_dir(data_dir.join("checkpoints"));
    let copies = copies.into_iter().flatten().flatten();
    copies.filter_map(|copy| disk(&copy.path())).collect()
}

/// Whether one of the disks is behind the device.
fn thaw_if_in(device: &Path, disks: &HashSet<(u64, u64)>) -> Result<bool, DiskError> {
    let open = File::open(device).map_err(io("open", device))?;
    // As long as it is open, the same file is behind it.
    let is_in = sys::loopdev::backing(open.as_fd()).is_ok_and(|file| disks.contains(&file));
    if !is_in {
        return Ok(false);
    }
    let mount = disk::mount_device(device)?;
    let root = disk::root_of(&mount)?;
    match sys::freeze::thaw(root.as_fd()) {
        Ok(()) => tracing::info!(device = %device.display(), "thawed what a killed server froze"),
        // It was not frozen: a mount on its way out.
        Err(Errno::EINVAL) => {}
        Err(errno) => return Err(io("thaw", device)(errno.into())),
    }
    Ok(true)
}
