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
use crate::resources::{CellResources, RuntimeResources};
use crate::sys;
use crate::warden::protocol::{Busy, Failure, Filesystem, Reply};
use crate::warden::server::Warden;
use crate::warden::server::building::DISK;
use crate::warden::server::catalogue::{Operation, State, Then};
use crate::warden::server::checkpoints::Record;
use crate::warden::server::copying;
use crate::warden::server::jobs::{JobResult, Lane};
use crate::warden::server::requests::{check_runtime_resources, invalid};
use crate::warden::server::runtimes::{Purpose, failure, remove};
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
        if checkpoint.is_nil() || being_made || self.checkpoints.get(checkpoint).is_some() {
            return Err(invalid("id"));
        }
        // Nothing is frozen for a copy that would have to wait for its turn.
        if !self.jobs.has_room(Lane::Copy) {
            return Err(Failure::NoRoom("copies at the same time".to_owned()));
        }
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

    /// Removes a checkpoint's disk.
    pub(super) fn delete_checkpoint(&mut self, seq: u64, id: Uuid) -> Result<(), Failure> {
        self.checkpoints.get(id).ok_or(Failure::UnknownCheckpoint)?;
        let (path, unfinished) = (
            self.checkpoints.path(id),
            self.checkpoints.unfinished_path(id),
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
            self.freeze_group(id);
        }
        self.check_still(id, now);
    }

    pub(super) fn freeze_group(&mut self, id: Uuid) {
        if let Some(runtime) = self.catalogue.get(id)
            && let State::Mounted(mounted) = &runtime.state
            && let Err(error) = mounted.group.freeze()
        {
            // Checked for below, where it can be answered.
            logged(&error);
        }
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
        let runtime = self.catalogue.get(id).ok_or(Failure::UnknownRuntime)?;
        let spec = &runtime.record.spec;
        let record = Record {
            id: checkpoint,
            image: spec.image.clone(),
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
            source: self.catalogue.path(id).join(DISK),
            directory: self.checkpoints.unfinished_path(checkpoint),
            target: self.checkpoints.path(checkpoint),
            record: record.clone(),
            mounted: !held.is_empty(),
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
        let disk = self.checkpoints.path(record.id).join(DISK);
        let reply = match result {
            Ok(_) => {
                self.checkpoints.insert(record);
                let disk_bytes = std::fs::metadata(disk).map_or(0, |disk| disk.blocks() * 512);
                Reply::Checkpointed { seq, disk_bytes }
            }
            Err(error) => {
                // The job may have died before it could thaw the disk and take away what it had made.
                self.thaw_disk(id);
                let left = self.checkpoints.unfinished_path(record.id);
                self.start_job(Lane::Release, Purpose::Release, Vec::new(), move |_| {
                    let _ = std::fs::remove_dir_all(left);
                    Ok(Vec::new())
                });
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

    /// Changes a runtime's limits, and those of its cells that had no narrower ones.
    pub(super) fn set_resources(
        &mut self,
        seq: u64,
        id: Uuid,
        resources: RuntimeResources,
    ) -> Result<(), Failure> {
        let runtime = self.catalogue.get(id).ok_or(Failure::UnknownRuntime)?;
        let policy = self.policies.get(&runtime.record.spec.profile);
        check_runtime_resources(&resources, policy.ok_or(Failure::UnknownProfile)?)?;
        if let State::Mounted(mounted) = &mut runtime.state {
            mounted.group.set(&resources).map_err(|error| match error {
                CgroupError::InUse { .. } => Failure::Busy(Busy::Memory),
                other => logged(&other),
            })?;
            mounted.resources = Some(resources);
        }
        for slot in runtime.cells.iter().copied().collect::<Vec<_>>() {
            let Some(cell) = self.cells.get_mut(slot) else {
                continue;
            };
            let request = &mut cell.request;
            let before = std::mem::replace(&mut request.runtime_resources, resources);
            let own = follow(request.cell_resources, &before, &resources);
            request.cell_resources = own;
            if let Some(opened) = &cell.opened
                && let Err(error) = opened.group.set(&own)
            {
                // The runtime's own limit holds all the same.
                logged(&error);
            }
        }
        self.reply(&Reply::Done { seq }, Vec::new());
        Ok(())
    }
}

/// A cell's limits after its runtime's have changed: where it had all of the runtime's, it has all of the new ones, and
/// never more.
fn follow(
    cell: CellResources,
    before: &RuntimeResources,
    after: &RuntimeResources,
) -> CellResources {
    let one =
        |own: u64, before: u64, after: u64| if own >= before { after } else { own.min(after) };
    CellResources {
        memory_bytes: one(cell.memory_bytes, before.memory_bytes, after.memory_bytes),
        pids: one(cell.pids, before.pids, after.pids),
        ..cell
    }
}

fn logged(error: &CgroupError) -> Failure {
    tracing::error!(error = error as &dyn Error, "a runtime's group");
    Failure::Internal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_follows_the_limits_it_had_in_common_with_its_runtime() {
        let runtime = |memory_bytes, pids| RuntimeResources {
            memory_bytes,
            pids,
            cpu_millis: 1000,
        };
        let cell = |memory_bytes, pids| CellResources {
            memory_bytes,
            pids,
            cpu_secs: Some(3),
        };
        let (before, larger, smaller) = (runtime(100, 10), runtime(200, 20), runtime(50, 5));
        assert_eq!(follow(cell(100, 10), &before, &larger), cell(200, 20));
        assert_eq!(follow(cell(100, 7), &before, &larger), cell(200, 7));
        assert_eq!(follow(cell(60, 10), &before, &smaller), cell(50, 5));
        assert_eq!(follow(cell(40, 3), &before, &smaller), cell(40, 3));
    }
}
