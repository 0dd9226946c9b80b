//! Making, mounting, stopping and removing runtimes.
//!
//! A new runtime is built in a hidden directory and renamed when it can run; an interrupted one is removed at the next
//! start. Its mounts live in a template namespace that only a descriptor keeps alive: letting go of the runtime is
//! closing it, and nothing is ever mounted where another process could see or hold it.

use crate::cell::rootfs::Layers;
use crate::image::ImageError;
use crate::log::chain;
use crate::resources::{MIB, RuntimeResources};
use crate::warden::protocol::{Failure, Reply, RuntimeSpec};
use crate::warden::server::catalogue::{Closing, Mounted, Record, State};
use crate::warden::server::cells::Gone;
use crate::warden::server::graves::Grave;
use crate::warden::server::jobs::{JobError, JobResult, Lane};
use crate::warden::server::{Source, Warden, building};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use std::error::Error;
use std::os::fd::OwnedFd;
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
    /// Let go of the mounts of one that is being stopped.
    Stop {
        /// The request to answer.
        seq: u64,
        /// Which.
        id: Uuid,
    },
    /// Let go of mounts that were not used.
    Evict,
    /// Let go of what a cell left in its namespaces.
    Bury(Box<Gone>),
}

/// Creations that may wait for their turn; what else waits is bounded by the runtimes and cells that exist.
const MAX_CREATING: usize = 256;
/// Mounts that nothing used for this long are let go.
const IDLE: Duration = Duration::from_secs(600);

impl Warden {
    /// Begins to make a runtime.
    pub(super) fn create_runtime(&mut self, seq: u64, spec: RuntimeSpec) -> Result<(), Failure> {
        self.check_spec(&spec)?;
        let creating = self.jobs.purposes().filter_map(|purpose| match purpose {
            Purpose::Create { record, .. } => Some(record.spec.id),
            _ => None,
        });
        let creating: Vec<Uuid> = creating.collect();
        if creating.contains(&spec.id) {
            return Err(Failure::Invalid("id".to_owned()));
        }
        if creating.len() >= MAX_CREATING {
            return Err(Failure::NoRoom("runtimes under construction".to_owned()));
        }
        let layers = self.layers(&spec.image)?;
        let room = || Failure::NoRoom("uid ranges".to_owned());
        let uid_base = self.catalogue.reserve().ok_or_else(room)?;
        let directory = self.catalogue.unfinished_path(spec.id);
        let target = self.catalogue.path(spec.id);
        let record = Record { spec, uid_base };
        let (job_record, job_layers) = (record.clone(), layers.clone());
        self.start_job(
            Lane::Build,
            Purpose::Create {
                seq,
                record,
                layers,
            },
            Vec::new(),
            move || {
                let made = building::make(&directory, &target, &job_record, &job_layers);
                if made.is_err() {
                    let _ = std::fs::remove_dir_all(&directory);
                }
                made
            },
        );
        Ok(())
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
        if let Some(runtime) = self.catalogue.get(id) {
            runtime.state = State::Mounting(vec![first_exec]);
        }
        let purpose = Purpose::Mount { id, layers };
        self.start_job(Lane::Build, purpose, Vec::new(), move || {
            building::mount(&directory, &record, &job_layers)
        });
        Ok(())
    }

    /// Does something in a child that first lets go of `held`, now or when it has its turn; its end is told to
    /// [`Warden::job_ended`].
    pub(super) fn start_job(
        &mut self,
        lane: Lane,
        purpose: Purpose,
        held: Vec<OwnedFd>,
        work: impl FnOnce() -> JobResult + 'static,
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
                        let failure = failure(id, &error);
                        for slot in waiting {
                            self.end_unopened(slot, Some(failure.clone()));
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
            // Whatever became of the job: its death let go as well.
            Purpose::Stop { seq, id } => {
                if let Some(runtime) = self.catalogue.get(id) {
                    runtime.closing = None;
                }
                self.reply(&Reply::Done { seq }, Vec::new());
            }
            Purpose::Evict => {}
            Purpose::Bury(gone) => self.finish(*gone),
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
                self.cells.graves.unbury(&group);
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
        let held = self.let_go(id);
        if !delete {
            let purpose = Purpose::Stop { seq, id };
            return self.start_job(Lane::Release, purpose, held, || Ok(None));
        }
        let (path, unfinished) = (self.catalogue.path(id), self.catalogue.unfinished_path(id));
        let purpose = Purpose::Delete { seq, id };
        self.start_job(Lane::Release, purpose, held, move || {
            let absent_is_fine = |result: std::io::Result<()>| match result {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                other => other,
            };
            // An earlier try may have come half way.
            let removed = absent_is_fine(std::fs::rename(&path, &unfinished))
                // Only a disk image and a record: no tenant's tree is walked.
                .and_then(|()| absent_is_fine(std::fs::remove_dir_all(&unfinished)));
            removed
                .map(|()| None)
                .map_err(|error| JobError::Other(chain(&error)))
        });
    }

    /// Takes a runtime's mounts out of use. They go with the last of the returned descriptors, which takes long (an ext4
    /// is written back, a tmpfs freed) and is therefore for a job.
    fn let_go(&mut self, id: Uuid) -> Vec<OwnedFd> {
        let Some(runtime) = self.catalogue.get(id) else {
            return Vec::new();
        };
        let State::Mounted(mounted) = std::mem::replace(&mut runtime.state, State::Unmounted)
        else {
            return Vec::new();
        };
        self.cells.graves.bury(Grave::Runtime(mounted.group));
        self.cells.graves.dig();
        let mut held = self.cells.take_recent(id);
        held.push(mounted.template);
        held
    }

    /// Lets go of the mounts of runtimes that are not in use.
    pub(super) fn evict_idle(&mut self, now: Instant) {
        let Some(before) = now.checked_sub(IDLE) else {
            return;
        };
        for id in self.catalogue.idle_since(before) {
            let held = self.let_go(id);
            self.start_job(Lane::Release, Purpose::Evict, held, || Ok(None));
        }
    }
}

/// Logs a job's failure and says what the api process may know of it.
fn failure(id: Uuid, error: &JobError) -> Failure {
    tracing::error!(%id, ?error, "job failed");
    match error {
        JobError::NoRoom(what, _) => Failure::NoRoom(what.clone()),
        JobError::BadImage(reason) => Failure::BadImage(reason.clone()),
        JobError::Other(_) => Failure::Internal,
    }
}
