//! Changing the limits of a runtime in which commands run.
//!
//! All of it takes no time but lowering memory, which takes as long as the commands like ([`crate::cgroup::Lowering`]).
//! So that is done by a job, with a bound, and no cell of the runtime is opened meanwhile. Should the job fail or be
//! killed, the warden puts back the limits that held before.

use crate::cgroup::Lowering;
use crate::log::chain;
use crate::resources::{CellResources, RuntimeResources};
use crate::warden::protocol::{Busy, Failure, Reply};
use crate::warden::server::Warden;
use crate::warden::server::catalogue::{Operation, State};
use crate::warden::server::jobs::{JobError, JobResult, Lane};
use crate::warden::server::purposes::Purpose;
use crate::warden::server::requests::{check_runtime_resources, clamp};
use crate::warden::server::standstill::logged;
use uuid::Uuid;

/// How many seconds the kernel may look for memory to reclaim: gigabytes of page cache that nobody refills.
const PATIENCE: u32 = 5;

impl Warden {
    /// Changes a runtime's limits, and those of its cells that had no narrower ones.
    pub(super) fn set_resources(
        &mut self,
        seq: u64,
        id: Uuid,
        mut resources: RuntimeResources,
    ) -> Result<(), Failure> {
        let runtime = self.catalogue.get(id).ok_or(Failure::UnknownRuntime)?;
        if runtime.operation.is_some() {
            return Err(Failure::Busy(Busy::Operation));
        }
        let policy = self.policies.get(&runtime.record.spec.profile);
        check_runtime_resources(&resources, policy.ok_or(Failure::UnknownProfile)?)?;
        clamp(&mut resources, self.host);
        let mut lowerings = Vec::new();
        if let State::Mounted(mounted) = &runtime.state {
            // The runtime's own first: what fits under that fits under the same limit of a cell.
            let own = mounted.group.lowering(resources.memory_bytes);
            lowerings.extend(own.map_err(|error| logged(&error))?);
            for slot in &runtime.cells {
                let Some(cell) = self.cells.get_mut(*slot) else {
                    continue;
                };
                let after = follow(
                    &cell.request.cell_resources,
                    &cell.request.runtime_resources,
                    &resources,
                );
                let lowering = cell
                    .opened
                    .as_ref()
                    .map(|o| o.group.lowering(after.memory_bytes));
                // A cell that can't be asked is one that is gone.
                lowerings.extend(lowering.and_then(Result::ok).flatten());
            }
        }
        if lowerings.is_empty() {
            self.apply(id, &resources)?;
            self.reply(&Reply::Done { seq }, Vec::new());
            return Ok(());
        }
        runtime.operation = Some(Operation::Lower);
        let work = lowerings.clone();
        let purpose = Purpose::Lower {
            seq,
            id,
            resources,
            lowerings,
        };
        self.start_job(Lane::Lower, purpose, Vec::new(), move |_| lower(&work));
        Ok(())
    }

    /// Takes the result of a job that was to lower memory limits.
    pub(super) fn lowering_ended(
        &mut self,
        seq: u64,
        id: Uuid,
        resources: RuntimeResources,
        lowerings: &[Lowering],
        result: JobResult,
    ) {
        let result = result.map_err(|error| match error {
            JobError::NoRoom(what, _) => Failure::NoRoom(what),
            JobError::Died => Failure::Killed,
            error => {
                tracing::info!(%id, ?error, "memory is not lowered");
                Failure::Busy(Busy::Memory)
            }
        });
        let result = result.and_then(|_| self.apply(id, &resources));
        if result.is_err() {
            for lowering in lowerings {
                if let Err(error) = lowering.undo() {
                    // Of a cell that is gone.
                    tracing::debug!(%id, error = chain(&error), "a memory limit is not put back");
                }
            }
        }
        if let Some(runtime) = self.catalogue.get(id) {
            runtime.operation = None;
        }
        let reply = match result {
            Ok(()) => Reply::Done { seq },
            Err(failure) => Reply::Failed { seq, failure },
        };
        self.reply(&reply, Vec::new());
        self.open_waiting(id);
    }

    /// Sets everything that takes no time: where memory is less than before, that has been lowered.
    fn apply(&mut self, id: Uuid, resources: &RuntimeResources) -> Result<(), Failure> {
        let runtime = self.catalogue.get(id).ok_or(Failure::UnknownRuntime)?;
        if let State::Mounted(mounted) = &mut runtime.state {
            let set = mounted.group.set(resources);
            set.map_err(|error| logged(&error))?;
            mounted.resources = Some(*resources);
        }
        for slot in &runtime.cells {
            let Some(cell) = self.cells.get_mut(*slot) else {
                continue;
            };
            let request = &mut cell.request;
            let before = std::mem::replace(&mut request.runtime_resources, *resources);
            let own = follow(&request.cell_resources, &before, resources);
            request.cell_resources = own;
            if let Some(opened) = &cell.opened
                && let Err(error) = opened.group.set(&own)
            {
                // The runtime's own limit holds all the same.
                logged(&error);
            }
        }
        Ok(())
    }
}

/// The job.
fn lower(lowerings: &[Lowering]) -> JobResult {
    // Nobody else has to watch it: SIGALRM ends it wherever it is (alarm(2)).
    nix::unistd::alarm::set(PATIENCE);
    for lowering in lowerings {
        lowering
            .run()
            .map_err(|error| JobError::Other(chain(&error)))?;
    }
    Ok(Vec::new())
}

/// A cell's limits after its runtime's have changed: where it had all of the runtime's, it has all of the new ones, and
/// never more.
fn follow(
    cell: &CellResources,
    before: &RuntimeResources,
    after: &RuntimeResources,
) -> CellResources {
    let one =
        |own: u64, before: u64, after: u64| if own >= before { after } else { own.min(after) };
    CellResources {
        memory_bytes: one(cell.memory_bytes, before.memory_bytes, after.memory_bytes),
        pids: one(cell.pids, before.pids, after.pids),
        ..*cell
    }
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
        assert_eq!(follow(&cell(100, 10), &before, &larger), cell(200, 20));
        assert_eq!(follow(&cell(100, 7), &before, &larger), cell(200, 7));
        assert_eq!(follow(&cell(60, 10), &before, &smaller), cell(50, 5));
        assert_eq!(follow(&cell(40, 3), &before, &smaller), cell(40, 3));
    }
}
