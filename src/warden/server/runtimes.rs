//! Making, mounting, stopping and removing runtimes.
//!
//! A new runtime is built in a hidden directory and renamed when it can run; an interrupted one is removed at the next
//! start. Its mounts live in a template namespace that only a descriptor keeps alive: letting go of the runtime is
//! closing it, and nothing is ever mounted where another process could see or hold it.

use crate::cell::error::CellError;
use crate::cell::mounts;
use crate::cell::rootfs::{self, Layers, Writable};
use crate::image::ImageError;
use crate::log::chain;
use crate::resources::{MIB, RuntimeResources};
use crate::warden::protocol::{CellEnd, Failure, Filesystem, Reply, RuntimeSpec};
use crate::warden::server::catalogue::{self, Closing, Mounted, Record, State};
use crate::warden::server::disk::{self, DiskError};
use crate::warden::server::jobs::{JobError, JobResult};
use crate::warden::server::{Source, Warden};
use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// What a job was started for.
#[derive(Debug)]
pub enum Purpose {
    /// Make a runtime.
    Create {
        /// The request to answer.
        seq: u64,
        /// Its record.
        record: Record,
        /// What it is mounted from.
        layers: Layers,
    },
    /// Mount one that is on disk.
    Mount {
        /// Which.
        id: Uuid,
        /// What it is mounted from.
        layers: Layers,
    },
    /// Remove one from disk.
    Delete {
        /// The request to answer.
        seq: u64,
        /// Which.
        id: Uuid,
    },
}

/// Mounts that nothing used for this long are let go.
const IDLE: Duration = Duration::from_secs(600);
const DISK: &str = "disk.img";

impl Warden {
    /// Begins to make a runtime.
    pub(super) fn create_runtime(&mut self, seq: u64, spec: RuntimeSpec) -> Result<(), Failure> {
        self.check_spec(&spec)?;
        let layers = self.layers(&spec.image)?;
        let room = || Failure::NoRoom("uid ranges".to_owned());
        let uid_base = self.catalogue.reserve().ok_or_else(room)?;
        let directory = self.catalogue.unfinished_path(spec.id);
        let target = self.catalogue.path(spec.id);
        let record = Record { spec, uid_base };
        let (job_record, job_layers) = (record.clone(), layers.clone());
        self.start_job(
            Purpose::Create {
                seq,
                record,
                layers,
            },
            move || {
                let made = make(&directory, &target, &job_record, &job_layers);
                if made.is_err() {
                    let _ = std::fs::remove_dir_all(&directory);
                }
                made
            },
        )
        .inspect_err(|_| self.catalogue.release(uid_base))
    }

    fn layers(&self, image: &str) -> Result<Layers, Failure> {
        self.images.layers(image).map_err(|error| match error {
            ImageError::Unknown(_) | ImageError::Name(_) => Failure::UnknownImage,
            other => {
                tracing::error!(image, error = &other as &dyn Error, "image can't be used");
                Failure::BadImage("its directory can't be used as a root file system".to_owned())
            }
        })
    }

    /// Begins to mount a runtime; execs that wait for it are in its state.
    pub(super) fn mount_runtime(&mut self, id: Uuid, first_exec: u32) -> Result<(), Failure> {
        let runtime = self.catalogue.get(id).ok_or(Failure::UnknownRuntime)?;
        let record = runtime.record.clone();
        let layers = self.layers(&record.spec.image)?;
        let (directory, job_layers) = (self.catalogue.path(id), layers.clone());
        self.start_job(Purpose::Mount { id, layers }, move || {
            mount(&directory, &record, &job_layers)
        })?;
        if let Some(runtime) = self.catalogue.get(id) {
            runtime.state = State::Mounting(vec![first_exec]);
        }
        Ok(())
    }

    fn start_job(
        &mut self,
        purpose: Purpose,
        work: impl FnOnce() -> JobResult,
    ) -> Result<(), Failure> {
        let no_room = |errno: Errno| Failure::NoRoom(format!("processes ({errno})"));
        let number = self.jobs.start(purpose, work).map_err(no_room)?;
        if let Some(socket) = self.jobs.socket(number) {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, Source::Job(number).pack());
            self.epoll.add(socket, event).map_err(no_room)?;
        }
        Ok(())
    }

    /// Takes a job's result and answers whoever waits for it.
    pub(super) fn job_is_done(&mut self, number: u32) {
        if let Some(socket) = self.jobs.socket(number) {
            let _ = self.epoll.delete(socket);
        }
        let Some((purpose, result)) = self.jobs.take(number) else {
            return;
        };
        match purpose {
            Purpose::Create {
                seq,
                record,
                layers,
            } => {
                let (id, uid_base) = (record.spec.id, record.uid_base);
                match result {
                    Ok(template) => {
                        self.catalogue.insert(record);
                        self.mounted(id, template, layers);
                        self.reply(&Reply::Done { seq }, Vec::new());
                    }
                    Err(error) => {
                        self.catalogue.release(uid_base);
                        let failure = failure(id, &error);
                        self.reply(&Reply::Failed { seq, failure }, Vec::new());
                    }
                }
            }
            Purpose::Mount { id, layers } => {
                let Some(runtime) = self.catalogue.get(id) else {
                    return;
                };
                let State::Mounting(waiting) =
                    std::mem::replace(&mut runtime.state, State::Unmounted)
                else {
                    return;
                };
                match result {
                    Ok(template) => {
                        self.mounted(id, template, layers);
                        waiting.into_iter().for_each(|slot| self.open_cell(slot));
                    }
                    Err(error) => {
                        failure(id, &error);
                        for slot in waiting {
                            self.end_unopened(slot, CellEnd::SetupFailed);
                        }
                    }
                }
                self.finish_closing(id);
            }
            Purpose::Delete { seq, id } => match result {
                Ok(_) => {
                    self.catalogue.remove(id);
                    self.reply(&Reply::Done { seq }, Vec::new());
                }
                Err(error) => {
                    if let Some(runtime) = self.catalogue.get(id) {
                        runtime.closing = None;
                    }
                    let failure = failure(id, &error);
                    self.reply(&Reply::Failed { seq, failure }, Vec::new());
                }
            },
        }
    }

    fn mounted(&mut self, id: Uuid, template: Option<OwnedFd>, layers: Layers) {
        // Real limits come with each exec; until the first one there is nothing in the group.
        let none_yet = RuntimeResources {
            memory_bytes: 64 * MIB,
            pids: 64,
            cpu_millis: 1000,
        };
        let group = self.cgroups.runtime(&id.simple().to_string(), &none_yet);
        let (Some(template), Some(runtime)) = (template, self.catalogue.get(id)) else {
            return;
        };
        match group {
            Ok(group) => {
                let last_used = Instant::now();
                runtime.state = State::Mounted(Mounted {
                    template,
                    layers,
                    group,
                    resources: None,
                    last_used,
                });
            }
            Err(error) => {
                tracing::error!(%id, error = &error as &dyn Error, "no cgroup for the runtime");
            }
        }
    }

    /// Kills a runtime's cells and, when the last is gone, lets go of its mounts (and of its disk).
    pub(super) fn close_runtime(
        &mut self,
        seq: u64,
        id: Uuid,
        delete: bool,
    ) -> Result<(), Failure> {
        let runtime = self.catalogue.get(id).ok_or(Failure::UnknownRuntime)?;
        if runtime.closing.is_some() {
            return Err(Failure::Invalid(
                "id: the runtime is being closed already".to_owned(),
            ));
        }
        runtime.closing = Some(Closing { seq, delete });
        for slot in runtime.cells.iter().copied().collect::<Vec<_>>() {
            self.kill_slot(slot);
        }
        self.finish_closing(id);
        Ok(())
    }

    /// Goes on with a close once no cell and no mount job is left.
    pub(super) fn finish_closing(&mut self, id: Uuid) {
        let Some(runtime) = self.catalogue.get(id) else {
            return;
        };
        let Some(Closing { seq, delete }) = runtime.closing else {
            return;
        };
        if !runtime.cells.is_empty() || matches!(runtime.state, State::Mounting(_)) {
            return;
        }
        self.let_go(id);
        if !delete {
            if let Some(runtime) = self.catalogue.get(id) {
                runtime.closing = None;
            }
            self.reply(&Reply::Done { seq }, Vec::new());
            return;
        }
        let (path, unfinished) = (self.catalogue.path(id), self.catalogue.unfinished_path(id));
        let started = self.start_job(Purpose::Delete { seq, id }, move || {
            let removed = std::fs::rename(&path, &unfinished)
                // Only a disk image and a record: no tenant's tree is walked.
                .and_then(|()| std::fs::remove_dir_all(&unfinished));
            removed
                .map(|()| None)
                .map_err(|error| JobError::Other(chain(&error)))
        });
        if let Err(failure) = started {
            if let Some(runtime) = self.catalogue.get(id) {
                runtime.closing = None;
            }
            self.reply(&Reply::Failed { seq, failure }, Vec::new());
        }
    }

    fn let_go(&mut self, id: Uuid) {
        let Some(runtime) = self.catalogue.get(id) else {
            return;
        };
        if let State::Mounted(mounted) = std::mem::replace(&mut runtime.state, State::Unmounted) {
            self.cells.bury_runtime(mounted.group);
        }
    }

    /// Lets go of the mounts of runtimes that are not in use.
    pub(super) fn evict_idle(&mut self, now: Instant) {
        let Some(before) = now.checked_sub(IDLE) else {
            return;
        };
        for id in self.catalogue.idle_since(before) {
            self.let_go(id);
        }
    }
}

/// Logs a job's failure and says what the api process may know of it.
fn failure(id: Uuid, error: &JobError) -> Failure {
    tracing::error!(%id, ?error, "job failed");
    match error {
        JobError::NoRoom(_) => Failure::NoRoom("disk".to_owned()),
        JobError::BadImage(reason) => Failure::BadImage(reason.clone()),
        JobError::Other(_) => Failure::Internal,
    }
}

/// The create job: the disk, the record, a first mount that proves that it works, then the final name.
fn make(directory: &Path, target: &Path, record: &Record, layers: &Layers) -> JobResult {
    let no_room = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull => JobError::NoRoom(chain(&error)),
        _ => JobError::Other(chain(&error)),
    };
    std::fs::create_dir(directory).map_err(no_room)?;
    if record.spec.filesystem == Filesystem::Persistent {
        let disk = directory.join(DISK);
        disk::create(&disk, record.spec.disk_mib).map_err(|error| disk_failed(&error))?;
    }
    catalogue::write(directory, record).map_err(no_room)?;
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
    for file in [DISK, "runtime.json"] {
        let _ = unlinkat(&directory, file, UnlinkatFlags::NoRemoveDir);
    }
    unlinkat(parent, name, UnlinkatFlags::RemoveDir)
}

/// The mount job: returns the template's mount namespace.
fn mount(directory: &Path, record: &Record, layers: &Layers) -> JobResult {
    let base = record.uid_base;
    let other = |error: CellError| JobError::Other(chain(&error));
    let disk = match record.spec.filesystem {
        Filesystem::Persistent => {
            let disk = disk::mount(&directory.join(DISK)).map_err(|error| disk_failed(&error))?;
            rootfs::prepare_upper(&disk, base).map_err(other)?;
            Some(disk)
        }
        Filesystem::Ephemeral | Filesystem::ReadOnly => None,
    };
    let writable = if disk.is_some() {
        Writable::Disk
    } else {
        Writable::None
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
    Ok(Some(template))
}

fn disk_failed(error: &DiskError) -> JobError {
    let text = chain(error);
    if error.is_no_space() {
        JobError::NoRoom(text)
    } else {
        JobError::Other(text)
    }
}
