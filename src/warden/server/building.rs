//! What the jobs do that make and mount a runtime, in their child.

use crate::cell::devices;
use crate::cell::error::CellError;
use crate::cell::mounts;
use crate::cell::rootfs::{self, Layers, Writable};
use crate::image::{ImageError, ImageStore};
use crate::log::chain;
use crate::warden::protocol::Filesystem;
use crate::warden::server::catalogue::Record;
use crate::warden::server::copying;
use crate::warden::server::disk::{self, DiskError};
use crate::warden::server::jobs::{JobError, JobResult};
use crate::warden::server::records;
use nix::errno::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

pub(super) const DISK: &str = "disk.img";

/// The create job.
#[derive(Debug)]
pub(super) struct Building {
    /// Where it is made.
    pub directory: PathBuf,
    /// Where it is when it is whole.
    pub target: PathBuf,
    /// What is written beside the disk.
    pub record: Record,
    /// What it is mounted from.
    pub layers: Layers,
    /// The checkpoint's disk that its own is a copy of.
    pub source: Option<Source>,
    /// Where the layers are.
    pub images: ImageStore,
}

impl Building {
    /// The record, the disk, the final name, then a first mount that proves that it works; on failure nothing is left.
    pub(super) fn make(&self) -> JobResult {
        self.fill().inspect_err(|_| {
            let _ = std::fs::remove_dir_all(&self.directory);
        })?;
        // In a mount namespace of its own the child can't see the host's tree any more: a failed mount takes the directory
        // away again through a handle on its parent.
        let parent = mounts::host_dir(self.target.parent().unwrap_or(Path::new("/")))
            .map_err(|error| JobError::Other(chain(&error)))?;
        let name = self.target.file_name().map(PathBuf::from);
        mount(&self.target, &self.record, &self.layers).inspect_err(|_| {
            let _ = remove_beneath(&parent, &name.unwrap_or_default());
        })
    }

    fn fill(&self) -> Result<(), JobError> {
        let directory = self.directory.as_path();
        std::fs::create_dir(directory).map_err(no_room)?;
        {
            // What is seen now stays: from here on the record keeps it.
            let _kept = self.images.lock_shared().map_err(other)?;
            self.check_image()?;
            records::write(directory, &self.record).map_err(no_room)?;
        }
        if self.record.spec.filesystem == Filesystem::Persistent {
            self.make_disk().map_err(|error| disk_failed(&error))?;
        }
        // Whoever looks for images that nothing refers to must not look between the two names.
        let _kept = self.images.lock_shared().map_err(other)?;
        std::fs::rename(directory, &self.target).map_err(no_room)
    }

    /// Looked at again: since the warden chose it, it may have been removed.
    fn check_image(&self) -> Result<(), JobError> {
        let Some(id) = &self.record.image_id else {
            return Ok(());
        };
        let there = self.images.content(id);
        match there.and_then(|content| self.images.layers_of(&content)) {
            Ok(_) => Ok(()),
            Err(ImageError::Missing(_)) => {
                Err(JobError::BadImage("it has just been removed".to_owned()))
            }
            Err(error) => Err(other(error)),
        }
    }

    fn make_disk(&self) -> Result<(), DiskError> {
        let (disk, size) = (self.directory.join(DISK), self.record.spec.disk_mib);
        match &self.source {
            None => disk::create(&disk, size),
            Some(source) => {
                copying::copy(&source.disk, &disk)?;
                match size > source.disk_mib {
                    true => copying::grow(&disk, size),
                    false => Ok(()),
                }
            }
        }
    }
}

fn no_room(error: std::io::Error) -> JobError {
    match error.kind() {
        std::io::ErrorKind::StorageFull => JobError::NoRoom("disk".to_owned(), chain(&error)),
        _ => JobError::Other(chain(&error)),
    }
}

fn other(error: ImageError) -> JobError {
    JobError::Other(chain(&error))
}

/// Removes a runtime's directory (files only) through its parent's descriptor.
fn remove_beneath(parent: &OwnedFd, name: &Path) -> Result<(), Errno> {
    use nix::unistd::{UnlinkatFlags, unlinkat};
    use std::os::unix::ffi::OsStrExt;
    let name_c = std::ffi::CString::new(name.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let directory = mounts::beneath(parent.as_fd(), &name_c)?;
    for file in [DISK, <Record as records::Record>::FILE] {
        let _ = unlinkat(&directory, file, UnlinkatFlags::NoRemoveDir);
    }
    unlinkat(parent, name, UnlinkatFlags::RemoveDir)
}

/// The disk that a new one is a copy of.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Its file.
    pub disk: PathBuf,
    /// Its size in MiB.
    pub disk_mib: u64,
}

/// The mount job: returns the template's mount namespace and, where there is a disk, its root directory.
pub(super) fn mount(directory: &Path, record: &Record, layers: &Layers) -> JobResult {
    let base = record.uid_base;
    let other = |error: CellError| JobError::Other(chain(&error));
    let disk = match record.spec.filesystem {
        Filesystem::Persistent => {
            let disk = disk::mount(&directory.join(DISK)).map_err(|error| disk_failed(&error))?;
            if let Some(from) = record.disk_base.filter(|from| *from != base) {
                rootfs::shift(&disk, from, base).map_err(other)?;
            }
            rootfs::prepare_upper(&disk, base).map_err(other)?;
            rootfs::keep_spares(disk.as_fd(), base, false);
            Some(disk)
        }
        Filesystem::Ephemeral | Filesystem::ReadOnly => None,
    };
    let (writable, disk_root) = match &disk {
        Some(disk) => {
            let root = disk::root_of(disk).map_err(|error| disk_failed(&error))?;
            (Writable::Disk, Some(root))
        }
        None => (Writable::None, None),
    };
    let template = rootfs::scaffold(layers, disk, base, directory).map_err(|error| {
        if error.source == Errno::EINVAL && error.step.starts_with("idmap") {
            // No host path in it: this text reaches the client.
            let reason =
                "its file system does not support idmapped mounts; copy it to ext4, xfs or btrfs";
            return JobError::BadImage(reason.to_owned());
        }
        JobError::Other(chain(&error))
    })?;
    // An ephemeral runtime assembles in each cell, but what can't be assembled shall not be created.
    if record.spec.filesystem == Filesystem::Ephemeral {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
            .map_err(|errno| JobError::Other(chain(&errno)))?;
    }
    rootfs::assemble(layers, &writable, base).map_err(other)?;
    if let Some(disk) = &disk_root {
        rootfs::keep_spares(disk.as_fd(), base, true);
    }
    let root = mounts::root().map_err(other)?;
    // In a persistent runtime /tmp is the tenant's own, to remove as well; nothing is mounted there.
    let fresh_tmp = record.spec.filesystem != Filesystem::Persistent;
    let places = [c"proc", c"dev"].into_iter();
    for place in places.chain(fresh_tmp.then_some(c"tmp")) {
        if let Err(errno) = mounts::beneath_dir(root.as_fd(), place) {
            let place = place.to_string_lossy();
            return Err(JobError::BadImage(format!(
                "/{place} in it can't be mounted on: {errno}"
            )));
        }
    }
    devices::mount_dev(root.as_fd(), base).map_err(other)?;
    Ok([template].into_iter().chain(disk_root).collect())
}

/// What became of a disk, for the warden.
pub(super) fn disk_failed(error: &DiskError) -> JobError {
    let text = chain(error);
    if error.is_no_space() {
        JobError::NoRoom("disk".to_owned(), text)
    } else {
        JobError::Other(text)
    }
}
