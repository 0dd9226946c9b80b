//! What jobs are for, and what follows from their end.

use crate::cell::rootfs::Layers;
use crate::cgroup::Lowering;
use crate::image::content::ImageConfig;
use crate::log::chain;
use crate::resources::RuntimeResources;
use crate::warden::protocol::{Failure, Reply};
use crate::warden::server::building::DISK;
use crate::warden::server::catalogue::Record;
use crate::warden::server::checkpoints;
use crate::warden::server::ending::Gone;
use crate::warden::server::jobs::{JobError, JobResult, Lane};
use crate::warden::server::records::Directory;
use crate::warden::server::{Source, Warden, images};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// How often the removal of a directory is begun before it is left to the next start.
const SWEEPS: u8 = 3;

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
        /// What of an imported image's configuration holds in it.
        config: Option<ImageConfig>,
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
    /// Let go of the mounts of one that is being stopped.
    Stop {
        /// The request to answer.
        seq: u64,
        /// Which.
        id: Uuid,
    },
    /// Copy the disk of one.
    Copy {
        /// The request to answer.
        seq: u64,
        /// Which.
        id: Uuid,
        /// What the copy is recorded as.
        checkpoint: checkpoints::Record,
    },
    /// Remove a checkpoint from disk.
    DeleteCheckpoint {
        /// The request to answer.
        seq: u64,
        /// Which.
        id: Uuid,
    },
    /// Bring one under a lower memory limit.
    Lower {
        /// The request to answer.
        seq: u64,
        /// Which.
        id: Uuid,
        /// All its new limits.
        resources: RuntimeResources,
        /// What the job does.
        lowerings: Vec<Lowering>,
    },
    /// Let go of something that nobody waits for.
    Release,
    /// Remove what a job has left that was killed.
    Sweep {
        left: PathBuf,
        /// How often it is tried, this time included: it may be what can't live here that kills the job.
        tries: u8,
    },
    /// Let go of what a cell left in its namespaces.
    Bury(Box<Gone>),
}

impl Warden {
    /// Does something with `held` in a child, now or when it has its turn; its end is told to [`Warden::job_ended`].
    pub(super) fn start_job(
        &mut self,
        lane: Lane,
        purpose: Purpose,
        held: Vec<OwnedFd>,
        work: impl FnOnce(Vec<OwnedFd>) -> JobResult + 'static,
    ) {
        self.jobs.add(lane, purpose, held, work);
        self.start_jobs();
    }

    fn start_jobs(&mut self) {
        while let Some(job) = self.jobs.next() {
            let number = match self.jobs.start(job) {
                Ok(number) => number,
                Err((purpose, errno)) => {
                    let error = JobError::NoRoom("processes".to_owned(), chain(&errno));
                    self.job_ended(purpose, Err(error));
                    continue;
                }
            };
            let event = EpollEvent::new(EpollFlags::EPOLLIN, Source::Job(number).pack());
            let watched = self.jobs.socket(number).map(|s| self.epoll.add(s, event));
            if let Some(Err(errno)) = watched {
                tracing::error!(%errno, "a job can't be watched");
                self.jobs.kill(number);
                if let Some((purpose, result)) = self.jobs.take(number) {
                    self.job_ended(purpose, result);
                }
            }
        }
    }

    /// Takes a job's result.
    pub(super) fn job_is_done(&mut self, number: u32) {
        if let Some(socket) = self.jobs.socket(number) {
            let _ = self.epoll.delete(socket);
        }
        if let Some((purpose, result)) = self.jobs.take(number) {
            self.job_ended(purpose, result);
        }
        self.start_jobs();
    }

    /// Answers whoever waits for a job.
    fn job_ended(&mut self, purpose: Purpose, result: JobResult) {
        match purpose {
            Purpose::Create {
                seq,
                record,
                layers,
                config,
            } => {
                let (id, uid_base, image_id) = (record.spec.id, record.uid_base, record.image_id);
                match result {
                    Ok(mounts) => {
                        self.catalogue.insert(record);
                        // Where that fails, the first command tries again.
                        let _ = self.mounted(id, mounts, layers);
                        // Who gets none for a content that is named removes the runtime again.
                        let config =
                            config.and_then(|config| images::sealed(c"image", &config).ok());
                        let reply = Reply::Created { seq, image_id };
                        self.reply(&reply, config.into_iter().collect());
                    }
                    Err(error) => {
                        self.sweep_made(&self.catalogue.directory.clone(), id);
                        self.catalogue.release(uid_base);
                        let failure = failure(id, &error);
                        self.reply(&Reply::Failed { seq, failure }, Vec::new());
                    }
                }
            }
            Purpose::Mount { id, layers } => self.mount_ended(id, layers, result),
            Purpose::Copy {
                seq,
                id,
                checkpoint,
            } => self.copy_ended(seq, id, checkpoint, result),
            Purpose::DeleteCheckpoint { seq, id } => match result {
                Ok(_) => {
                    self.checkpoints.remove(id);
                    self.reply(&Reply::Done { seq }, Vec::new());
                }
                Err(error) => {
                    let failure = failure(id, &error);
                    self.reply(&Reply::Failed { seq, failure }, Vec::new());
                }
            },
            Purpose::Delete { seq, id } => match result {
                Ok(_) => {
                    self.catalogue.remove(id);
                    self.reply(&Reply::Done { seq }, Vec::new());
                }
                Err(error) => {
                    if let Some(runtime) = self.catalogue.get(id) {
                        runtime.operation = None;
                    }
                    let failure = failure(id, &error);
                    self.reply(&Reply::Failed { seq, failure }, Vec::new());
                }
            },
            // Whatever became of the job: its death let go as well.
            Purpose::Stop { seq, id } => {
                if let Some(runtime) = self.catalogue.get(id) {
                    runtime.operation = None;
                }
                self.reply(&Reply::Done { seq }, Vec::new());
            }
            Purpose::Lower {
                seq,
                id,
                resources,
                lowerings,
            } => self.lowering_ended(seq, id, resources, &lowerings, result),
            Purpose::Release => {}
            Purpose::Sweep { left, tries } => match result {
                Err(JobError::Died) if tries > 1 => self.sweep(left, tries - 1),
                Err(JobError::Died) => {
                    tracing::error!(path = %left.display(), "stays until the next start");
                }
                _ => {}
            },
            Purpose::Bury(gone) => self.finish(*gone),
        }
    }
}

impl Warden {
    /// Removes what a job has made that failed or was killed: half of it or all, so with either name. Nothing else has them,
    /// see [`Directory::occupied`]. It is out of the way at once: the id is free from here on.
    pub(super) fn sweep_made(&mut self, directory: &Directory, id: Uuid) {
        for from in [directory.path(id), directory.unfinished_path(id)] {
            let left = directory.unfinished_path(Uuid::now_v7());
            if std::fs::rename(from, &left).is_ok() {
                self.sweep(left, SWEEPS);
            }
        }
    }

    fn sweep(&mut self, left: PathBuf, tries: u8) {
        let path = left.clone();
        let purpose = Purpose::Sweep { left, tries };
        self.start_job(Lane::Release, purpose, Vec::new(), move |_| {
            let _ = std::fs::remove_dir_all(path);
            Ok(Vec::new())
        });
    }
}

/// The job that only lets go of what it is handed.
pub(super) fn release(held: Vec<OwnedFd>) -> JobResult {
    drop(held);
    Ok(Vec::new())
}

/// The job that removes the directory of a runtime or a checkpoint.
pub(super) fn remove(path: &Path, unfinished: &Path) -> JobResult {
    let absent_is_fine = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    // An earlier try may have come half way.
    let renamed = match absent_is_fine(std::fs::rename(path, unfinished)) {
        // A full disk may have no room for one more name, but has when the disk image is gone.
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            absent_is_fine(std::fs::remove_file(path.join(DISK)))
                .and_then(|()| absent_is_fine(std::fs::remove_dir_all(path)))
        }
        renamed => renamed,
    };
    let removed = renamed
        // Only a disk image and a record: no tenant's tree is walked.
        .and_then(|()| absent_is_fine(std::fs::remove_dir_all(unfinished)));
    removed
        .map(|()| Vec::new())
        .map_err(|error| JobError::Other(chain(&error)))
}

/// Logs a job's failure and says what the api process may know of it.
pub(super) fn failure(id: Uuid, error: &JobError) -> Failure {
    tracing::error!(%id, ?error, "job failed");
    match error {
        JobError::NoRoom(what, _) => Failure::NoRoom(what.clone()),
        JobError::BadImage(reason) => Failure::BadImage(reason.clone()),
        JobError::Died => Failure::Killed,
        JobError::Other(_) => Failure::Internal,
    }
}
