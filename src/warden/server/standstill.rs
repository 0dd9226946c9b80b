//! Holding a runtime still: for a pause, until it is resumed; for a copy of its disk, until that is done.
//!
//! ```text
//! pause ──▶ Freeze ──▶ paused ──▶ resume
//! copy  ──▶ Freeze ──▶ Copy (its disk frozen too) ──▶ thawed, unless it is paused
//! ```
//!
//! While a runtime stands still no cell of it is opened. Those that wait can be killed like all others, and what is frozen
//! can be killed too (see [`crate::cgroup`]).

use crate::cgroup::CgroupError;
use crate::sys;
use crate::warden::protocol::{Busy, Failure, Filesystem, Reply};
use crate::warden::server::Warden;
use crate::warden::server::building::DISK;
use crate::warden::server::catalogue::{Operation, State, Then};
use crate::warden::server::checkpoints::Record;
use crate::warden::server::copying;
use crate::warden::server::jobs::{JobResult, Lane};
use crate::warden::server::purposes::{Purpose, failure, remove};
use crate::warden::server::requests::invalid;
use nix::errno::Errno;
use std::error::Error;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long processes may take to stand still: one that waits for a slow device does so when its call returns.
const PATIENCE: Duration = Duration::from_secs(10);

impl Warden {
    /// Freezes a runtime's cells and answers when the last process stands still.
    pub(super) fn pause_runtime(&mut self, seq: u64, id: Uuid) -> Result<(), Failure> {
        let runtime = self.catalogue.get(id).ok_or(Failure::UnknownRuntime)?;
        if runtime.operation.is_some() {
            return Err(Failure::Busy(Busy::Operation));
        }
        if !runtime.paused {
            runtime.paused = true;
            self.freeze(id, Then::Pause(seq));
        } else {
            self.reply(&Reply::Done { seq }, Vec::new());
        }
        Ok(())
    }

    /// Lets a paused runtime go on.
    pub(super) fn resume_runtime(&mut self, seq: u64, id: Uuid) -> Result<(), Failure> {
        let runtime = self.catalogue.get(id).ok_or(Failure::UnknownRuntime)?;
        if runtime.operation.is_some() {
            return Err(Failure::Busy(Busy::Operation));
        }
        if runtime.paused {
            if let State::Mounted(mounted) = &runtime.state {
                mounted.group.thaw().map_err(|error| logged(&error))?;
            }
            runtime.paused = false;
            self.open_waiting(id);
        }
        self.reply(&Reply::Done { seq }, Vec::new());
        Ok(())
    }

    /// Begins to copy a runtime's disk.
    pub(super) fn create_checkpoint(
        &mut self,
        seq: u64,
        checkpoint: Uuid,
        id: Uuid,
    ) -> Result<(), Failure> {
        let being_made = self.jobs.purposes().any(|purpose| {
            matches!(purpose, Purpose::Copy { checkpoint: record, .. } if record.id == checkpoint)
        });
        let being_made = being_made || self.catalogue.freezes_for(checkpoint);
        let there = self.checkpoints.get(checkpoint).is_some()
            || self.checkpoints.directory.occupied(checkpoint);
        if checkpoint.is_nil() || being_made || there {
            return Err(invalid("id"));
        }
        self.check_copies()?;
        let runtime = self.catalogue.get(id).ok_or(Failure::UnknownRuntime)?;
        if runtime.operation.is_some() {
            return Err(Failure::Busy(Busy::Operation));
        }
        if runtime.record.spec.filesystem != Filesystem::Persistent {
            return Err(invalid("runtime"));
        }
        self.freeze(id, Then::Copy { seq, checkpoint });
        Ok(())
    }

    /// Nothing is frozen, or stays so, for a copy that would have to wait for its turn.
    fn check_copies(&self) -> Result<(), Failure> {
        match self.jobs.has_room(Lane::Copy) {
            true => Ok(()),
            false => Err(Failure::NoRoom("copies at the same time".to_owned())),
        }
    }

    /// Removes a checkpoint's disk.
    pub(super) fn delete_checkpoint(&mut self, seq: u64, id: Uuid) -> Result<(), Failure> {
        self.checkpoints.get(id).ok_or(Failure::UnknownCheckpoint)?;
        // One job for each checkpoint: else an api process that asks again and again would fill the queue, and a late one
        // would remove what was made under the same id meanwhile.
        let under_way = |purpose: &Purpose| matches!(purpose, Purpose::DeleteCheckpoint { id: other, .. } if *other == id);
        if self.jobs.purposes().any(under_way) {
            return Err(Failure::Busy(Busy::Operation));
        }
        let (path, unfinished) = (
            self.checkpoints.directory.path(id),
            self.checkpoints.directory.unfinished_path(id),
        );
        let purpose = Purpose::DeleteCheckpoint { seq, id };
        self.start_job(Lane::Release, purpose, Vec::new(), move |_| {
            remove(&path, &unfinished)
        });
        Ok(())
    }

    /// Begins to freeze; [`Warden::check_still`] goes on.
    fn freeze(&mut self, id: Uuid, then: Then) {
        let now = Instant::now();
        if let Some(runtime) = self.catalogue.get(id) {
            let deadline = now + PATIENCE;
            runtime.operation = Some(Operation::Freeze { deadline, then });
            self.catalogue.freezing.insert(id);
            self.freeze_group(id);
        }
        self.check_still(id, now);
    }

    pub(super) fn freeze_group(&mut self, id: Uuid) {
        let Some(runtime) = self.catalogue.get(id) else {
            return;
        };
        let State::Mounted(mounted) = &runtime.state else {
            return;
        };
        if let Err(error) = mounted.group.freeze() {
            // Checked for below, where it can be answered.
            logged(&error);
        }
        self.cells.kill_again(&runtime.cells);
    }

    /// Goes on with a freeze once everything stands still, or gives up when that takes too long.
    pub(super) fn check_still(&mut self, id: Uuid, now: Instant) {
        let Some(runtime) = self.catalogue.get(id) else {
            return;
        };
        let Some(Operation::Freeze { deadline, then }) = runtime.operation.clone() else {
            return;
        };
        let still = match &runtime.state {
            // Nothing runs in it, and nothing is opened now.
            State::Unmounted => Ok(true),
            // A pause need not wait, but a copy must not meet the mount's own writes.
            State::Mounting => Ok(matches!(then, Then::Pause(_))),
            State::Mounted(mounted) => mounted.group.is_frozen(),
        };
        match still {
            Ok(true) => self.stands_still(id, then),
            Ok(false) if now < deadline => {}
            Ok(false) => self.give_up(id, &then, Failure::Busy(Busy::Processes)),
            Err(error) => {
                let failure = logged(&error);
                self.give_up(id, &then, failure);
            }
        }
    }

    fn stands_still(&mut self, id: Uuid, then: Then) {
        match then {
            Then::Pause(seq) => {
                if let Some(runtime) = self.catalogue.get(id) {
                    runtime.operation = None;
                }
                self.reply(&Reply::Done { seq }, Vec::new());
            }
            Then::Copy { seq, checkpoint } => {
                if let Err(failure) = self.start_copy(seq, checkpoint, id) {
                    self.give_up(id, &Then::Copy { seq, checkpoint }, failure);
                }
            }
        }
    }

    fn give_up(&mut self, id: Uuid, then: &Then, failure: Failure) {
        let seq = match then {
            Then::Pause(seq) => {
                if let Some(runtime) = self.catalogue.get(id) {
                    runtime.paused = false;
                }
                *seq
            }
            Then::Copy { seq, .. } => *seq,
        };
        self.let_go_on(id);
        self.reply(&Reply::Failed { seq, failure }, Vec::new());
    }

    /// Ends what a runtime stood still for.
    fn let_go_on(&mut self, id: Uuid) {
        let Some(runtime) = self.catalogue.get(id) else {
            return;
        };
        runtime.operation = None;
        if !runtime.paused
            && let State::Mounted(mounted) = &mut runtime.state
        {
            mounted.last_used = Instant::now();
            if let Err(error) = mounted.group.thaw() {
                logged(&error);
            }
        }
        self.open_waiting(id);
    }

    fn start_copy(&mut self, seq: u64, checkpoint: Uuid, id: Uuid) -> Result<(), Failure> {
        // Others may have begun while it came to stand still.
        self.check_copies()?;
        let runtime = self.catalogue.get(id).ok_or(Failure::UnknownRuntime)?;
        let spec = &runtime.record.spec;
        let record = Record {
            id: checkpoint,
            image: spec.image.clone(),
            image_id: runtime.record.image_id,
            profile: spec.profile.clone(),
            disk_mib: spec.disk_mib,
            disk_base: runtime.record.disk_base.unwrap_or(runtime.record.uid_base),
        };
        let mut held = Vec::new();
        if let State::Mounted(mounted) = &runtime.state {
            let disk = mounted.disk.as_ref().ok_or(Failure::Internal)?;
            let no_room = |_| Failure::NoRoom("descriptors".to_owned());
            held.push(disk.try_clone().map_err(no_room)?);
        }
        runtime.operation = Some(Operation::Copy);
        let copy = copying::Checkpoint {
            runtime: id,
            source: self.catalogue.directory.path(id).join(DISK),
            directory: self.checkpoints.directory.unfinished_path(checkpoint),
            target: self.checkpoints.directory.path(checkpoint),
            record: record.clone(),
            mounted: !held.is_empty(),
            images: self.images.clone(),
        };
        let purpose = Purpose::Copy {
            seq,
            id,
            checkpoint: record,
        };
        self.start_job(Lane::Copy, purpose, held, move |held| {
            copy.make(held.into_iter().next())
        });
        Ok(())
    }

    /// Takes the result of a copy.
    pub(super) fn copy_ended(&mut self, seq: u64, id: Uuid, record: Record, result: JobResult) {
        // The job may have died before it could, or failed to.
        self.thaw_disk(id);
        let disk = self.checkpoints.directory.path(record.id).join(DISK);
        let reply = match result {
            Ok(_) => {
                self.checkpoints.insert(record);
                let disk_bytes = std::fs::metadata(disk).map_or(0, |disk| disk.blocks() * 512);
                Reply::Checkpointed { seq, disk_bytes }
            }
            Err(error) => {
                self.sweep_made(&self.checkpoints.directory.clone(), record.id);
                let failure = failure(id, &error);
                Reply::Failed { seq, failure }
            }
        };
        self.let_go_on(id);
        self.reply(&reply, Vec::new());
    }

    /// Thaws a runtime's disk, should it be frozen.
    pub(super) fn thaw_disk(&mut self, id: Uuid) {
        if let Some(runtime) = self.catalogue.get(id)
            && let State::Mounted(mounted) = &runtime.state
            && let Some(disk) = &mounted.disk
        {
            match sys::freeze::thaw(disk.as_fd()) {
                Ok(()) => tracing::warn!(%id, "thawed a disk that its copy left frozen"),
                Err(Errno::EINVAL) => {}
                Err(errno) => tracing::error!(%id, %errno, "a disk is not thawed"),
            }
        }
    }
}

pub(super) fn logged(error: &CgroupError) -> Failure {
    tracing::error!(error = error as &dyn Error, "a runtime's group");
    Failure::Internal
}
