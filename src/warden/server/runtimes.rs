//! Making, mounting, stopping and removing runtimes.
//!
//! A new runtime is built in a hidden directory and renamed when it can run; an interrupted one is removed at the next
//! start. Its mounts live in a template namespace that only a descriptor keeps alive: letting go of the runtime is
//! closing it, and nothing is ever mounted where another process could see or hold it.

use crate::cell::rootfs::Layers;
use crate::image::applied;
use crate::image::digest::Digest;
use crate::resources::{MIB, RuntimeResources};
use crate::warden::protocol::{Busy, Failure, Filesystem, Reply, RuntimeSpec};
use crate::warden::server::building::{Building, DISK, Source as Disk};
use crate::warden::server::catalogue::{Mounted, Operation, Record, State};
use crate::warden::server::graves::Grave;
use crate::warden::server::images::Chosen;
use crate::warden::server::jobs::{JobResult, Lane};
use crate::warden::server::purposes::{Purpose, failure, release, remove};
use crate::warden::server::{Warden, building};
use std::error::Error;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Creations that may wait for their turn; what else waits is bounded by the runtimes and cells that exist.
const MAX_CREATING: usize = 256;
/// Mounts that nothing used for this long are let go.
const IDLE: Duration = Duration::from_secs(600);

/// What a runtime is made of that is made of a checkpoint.
struct Source {
    disk: Disk,
    /// First uid of the range that the files on the disk belong to.
    disk_base: u32,
    image_id: Option<Digest>,
}

impl Warden {
    /// Begins to make a runtime, of a checkpoint where one is named.
    pub(super) fn create_runtime(
        &mut self,
        seq: u64,
        spec: RuntimeSpec,
        checkpoint: Option<Uuid>,
    ) -> Result<(), Failure> {
        self.check_spec(&spec)?;
        let source = match checkpoint {
            Some(id) => Some(self.source(id, &spec)?),
            None => None,
        };
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
        let policy = self.policies.get(&spec.profile);
        let profile = policy.ok_or(Failure::UnknownProfile)?.ids;
        let restored = source.as_ref().map(|source| source.image_id);
        let Chosen { layers, imported } = self.choose(&spec.image, restored, profile)?;
        let (image_id, config) = imported.unzip();
        let room = || Failure::NoRoom("uid ranges".to_owned());
        let uid_base = self.catalogue.reserve().ok_or_else(room)?;
        let directory = self.catalogue.directory.unfinished_path(spec.id);
        let target = self.catalogue.directory.path(spec.id);
        let lane = source.as_ref().map_or(Lane::Build, |_| Lane::Copy);
        let record = Record {
            spec,
            uid_base,
            disk_base: source.as_ref().map(|source| source.disk_base),
            image_id,
            ids: config.as_ref().and_then(applied::ids),
        };
        let building = Building {
            directory,
            target,
            record: record.clone(),
            layers: layers.clone(),
            source: source.map(|source| source.disk),
            images: self.images.clone(),
        };
        let purpose = Purpose::Create {
            seq,
            record,
            layers,
            config,
        };
        self.start_job(lane, purpose, Vec::new(), move |_| building.make());
        Ok(())
    }

    /// What of a checkpoint that fits a new runtime becomes that one's.
    fn source(&self, id: Uuid, spec: &RuntimeSpec) -> Result<Source, Failure> {
        let found = self.checkpoints.get(id).ok_or(Failure::UnknownCheckpoint)?;
        let fits = spec.filesystem == Filesystem::Persistent
            && spec.disk_mib >= found.disk_mib
            && (&spec.image, &spec.profile) == (&found.image, &found.profile);
        if !fits {
            return Err(Failure::Invalid("checkpoint".to_owned()));
        }
        let disk = Disk {
            disk: self.checkpoints.directory.path(id).join(DISK),
            disk_mib: found.disk_mib,
        };
        Ok(Source {
            disk,
            disk_base: found.disk_base,
            image_id: found.image_id,
        })
    }

    /// Mounts a runtime, or tells that it is.
    pub(super) fn start_runtime(&mut self, seq: u64, id: Uuid) -> Result<(), Failure> {
        let runtime = self.catalogue.get(id).ok_or(Failure::UnknownRuntime)?;
        if runtime.operation.is_some() {
            return Err(Failure::Busy(Busy::Operation));
        }
        match runtime.state {
            State::Mounted(_) => self.reply(&Reply::Done { seq }, Vec::new()),
            State::Mounting => runtime.operation = Some(Operation::Start(seq)),
            State::Unmounted => {
                // First, since a job that can't even be started has ended when that returns.
                runtime.operation = Some(Operation::Start(seq));
                let mounting = self.mount_runtime(id);
                if mounting.is_err()
                    && let Some(runtime) = self.catalogue.get(id)
                {
                    runtime.operation = None;
                }
                return mounting;
            }
        }
        Ok(())
    }

    /// Begins to mount a runtime.
    fn mount_runtime(&mut self, id: Uuid) -> Result<(), Failure> {
        let runtime = self.catalogue.get(id).ok_or(Failure::UnknownRuntime)?;
        let record = runtime.record.clone();
        let layers = self.layers(&record)?;
        let (directory, job_layers) = (self.catalogue.directory.path(id), layers.clone());
        if let Some(runtime) = self.catalogue.get(id) {
            runtime.state = State::Mounting;
        }
        let purpose = Purpose::Mount { id, layers };
        self.start_job(Lane::Build, purpose, Vec::new(), move |_| {
            building::mount(&directory, &record, &job_layers)
        });
        Ok(())
    }

    /// Opens the cells that wait, if that can be done now, or begins to mount what they wait for.
    pub(super) fn open_waiting(&mut self, id: Uuid) {
        let Some(runtime) = self.catalogue.get(id) else {
            return;
        };
        if !runtime.may_open() || runtime.waiting.is_empty() {
            return;
        }
        match runtime.state {
            State::Mounting => {}
            State::Mounted(_) => {
                for slot in std::mem::take(&mut runtime.waiting) {
                    self.open_cell(slot);
                }
            }
            State::Unmounted => {
                if let Err(failure) = self.mount_runtime(id) {
                    tracing::error!(%id, ?failure, "the runtime can't be mounted");
                    self.fail_waiting(id, &failure);
                }
            }
        }
    }

    fn fail_waiting(&mut self, id: Uuid, failure: &Failure) {
        let waiting = self
            .catalogue
            .get(id)
            .map(|r| std::mem::take(&mut r.waiting));
        for slot in waiting.into_iter().flatten() {
            self.end_unopened(slot, Some(failure.clone()));
        }
    }

    /// Goes on with whatever waited for a mount.
    pub(super) fn mount_ended(&mut self, id: Uuid, layers: Layers, result: JobResult) {
        let Some(runtime) = self.catalogue.get(id) else {
            return;
        };
        runtime.state = State::Unmounted;
        let failed = match result {
            Ok(mounts) => self.mounted(id, mounts, layers).err(),
            Err(error) => Some(failure(id, &error)),
        };
        let Some(runtime) = self.catalogue.get(id) else {
            return;
        };
        if matches!(runtime.operation, Some(Operation::Freeze { .. })) {
            self.freeze_group(id);
        } else if let Some(Operation::Start(seq)) = runtime.operation {
            runtime.operation = None;
            let reply = match &failed {
                None => Reply::Done { seq },
                Some(failure) => Reply::Failed {
                    seq,
                    failure: failure.clone(),
                },
            };
            self.reply(&reply, Vec::new());
        }
        match failed {
            None => self.open_waiting(id),
            Some(failure) => self.fail_waiting(id, &failure),
        }
        self.check_still(id, Instant::now());
        self.finish_closing(id);
    }

    /// Takes over what a job has mounted.
    pub(super) fn mounted(
        &mut self,
        id: Uuid,
        mounts: Vec<OwnedFd>,
        layers: Layers,
    ) -> Result<(), Failure> {
        // Real limits come with each exec; until the first one there is nothing in the group.
        let none_yet = RuntimeResources {
            memory_bytes: 64 * MIB,
            pids: 64,
            cpu_millis: 1000,
        };
        let group = self.cgroups.runtime(&id.simple().to_string(), &none_yet);
        let mut mounts = mounts.into_iter();
        let (Some(template), Some(runtime)) = (mounts.next(), self.catalogue.get(id)) else {
            return Err(Failure::Internal);
        };
        match group {
            Ok(group) => {
                self.cells.graves.unbury(&group);
                let last_used = Instant::now();
                runtime.state = State::Mounted(Mounted {
                    template,
                    disk: mounts.next(),
                    layers,
                    group,
                    resources: None,
                    last_used,
                });
                Ok(())
            }
            Err(error) => {
                tracing::error!(%id, error = &error as &dyn Error, "no cgroup for the runtime");
                Err(Failure::Internal)
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
        if runtime.operation.is_some() {
            return Err(Failure::Busy(Busy::Operation));
        }
        let seq = Some(seq);
        runtime.operation = Some(Operation::Close { seq, delete });
        runtime.paused = false;
        for slot in runtime.cells.iter().copied().collect::<Vec<_>>() {
            self.kill_slot(slot);
        }
        self.cells.parking.forget(id);
        self.finish_closing(id);
        Ok(())
    }

    /// Goes on with a close once no cell and no mount job is left.
    pub(super) fn finish_closing(&mut self, id: Uuid) {
        let Some(runtime) = self.catalogue.get(id) else {
            return;
        };
        if !runtime.cells.is_empty() || matches!(runtime.state, State::Mounting) {
            return;
        }
        let Some(Operation::Close { seq, delete }) = &mut runtime.operation else {
            return;
        };
        let delete = *delete;
        let Some(seq) = seq.take() else {
            return;
        };
        let held = self.let_go(id);
        if !delete {
            let purpose = Purpose::Stop { seq, id };
            return self.start_job(Lane::Release, purpose, held, release);
        }
        let (path, unfinished) = (
            self.catalogue.directory.path(id),
            self.catalogue.directory.unfinished_path(id),
        );
        let purpose = Purpose::Delete { seq, id };
        self.start_job(Lane::Release, purpose, held, move |held| {
            drop(held);
            remove(&path, &unfinished)
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
        held.extend(mounted.disk);
        held
    }

    /// Lets go of the mounts of runtimes that are not in use.
    pub(super) fn evict_idle(&mut self, now: Instant) {
        let Some(before) = now.checked_sub(IDLE) else {
            return;
        };
        for id in self.catalogue.idle_since(before) {
            let held = self.let_go(id);
            self.start_job(Lane::Release, Purpose::Release, held, release);
        }
    }
}
