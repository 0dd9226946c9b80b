//! What the jobs do that make and mount a runtime, in their child.

use crate::cell::error::CellError;
use crate::cell::mounts;
use crate::cell::rootfs::{self, Layers, Writable};
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

/// The create job: the disk (a checkpoint's, where one is given), the record, a first mount that proves that it works, then
/// the final name.
pub(super) fn make(
    directory: &Path,
    target: &Path,
    record: &Record,
    layers: &Layers,
    checkpoint: Option<&Source>,
) -> JobResult {
    let no_room = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull => JobError::NoRoom("disk".to_owned(), chain(&error)),
        _ => JobError::Other(chain(&error)),
    };
    std::fs::create_dir(directory).map_err(no_room)?;
    if record.spec.filesystem == Filesystem::Persistent {
        let disk = directory.join(DISK);
        let size = record.spec.disk_mib;
        let made = match checkpoint {
            None => disk::create(&disk, size),
            Some(source) => copying::copy(&source.disk, &disk).and_then(|()| {
                if size > source.disk_mib {
                    copying::grow(&disk, size)?;
                }
                Ok(())
            }),
        };
        made.map_err(|error| disk_failed(&error))?;
    }
    records::write(directory, record).map_err(no_room)?;
    // In a mount namespace of its own the child can't see the host's tree any more, so the rename comes first; a failed
    // mount takes the directory away again through a handle on its parent.
    let parent = mounts::host_dir(target.parent().unwrap_or(Path::new("/")))
        .map_err(|error| JobError::Other(chain(&error)))?;
    let name = |path: &Path| path.file_name().map(PathBuf::from).unwrap_or_default();
    nix::fcntl::renameat(&parent, &name(directory), &parent, &name(target))
        .map_err(|errno| JobError::Other(chain(&errno)))?;
    mount(target, record, layers).inspect_err(|_| {
        let _ = remove_beneath(&parent, &name(target));
    })
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
