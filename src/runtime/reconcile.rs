//! Makes store and disk agree when the service starts: after a crash either may know of a runtime or a checkpoint that the
//! other does not.

use super::checkpoint::{Checkpoint, CheckpointState};
use super::error::RuntimeError;
use super::lifecycle::{is_gone, warden};
use super::model::Runtime;
use super::status::Status;
use crate::store::{CheckpointRow, RuntimeRow, Store};
use crate::warden::client::Warden;
use std::collections::HashSet;
use uuid::Uuid;

/// What is to be done about the differences.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Creating or deleting was interrupted: remove disk and row.
    drop: Vec<Uuid>,
    /// On disk without a row: remove.
    stray: Vec<Uuid>,
    /// A row without its disk: mark as broken.
    lost: Vec<Uuid>,
}

fn plan<'a>(rows: impl Iterator<Item = (Uuid, &'a str)>, disk: &HashSet<Uuid>) -> Plan {
    let mut plan = Plan::default();
    let mut known = HashSet::new();
    for (id, status) in rows {
        known.insert(id);
        match Status::parse(status) {
            Some(Status::Creating | Status::Deleting) => plan.drop.push(id),
            _ if !disk.contains(&id) => plan.lost.push(id),
            _ => {}
        }
    }
    plan.stray.extend(disk.difference(&known));
    plan.stray.sort();
    plan
}

/// Carries the plan out and returns the runtimes that are left.
pub(super) async fn runtimes(
    store: &Store,
    server: &Warden,
    rows: Vec<RuntimeRow>,
    now: &str,
) -> Result<Vec<Runtime>, RuntimeError> {
    let disk = server
        .list_runtimes()
        .await
        .map_err(|source| warden("listing the runtimes on disk", source))?
        .into_iter()
        .collect();
    let plan = plan(rows.iter().map(|row| (row.id, row.status.as_str())), &disk);

    for id in plan.stray.iter().chain(&plan.drop) {
        tracing::info!(runtime = %id, "removing what an interrupted operation left");
        if !disk.contains(id) {
            continue;
        }
        // One that can't be removed must not keep the others from working; it is tried again at the next start.
        if let Err(error) = server.delete_runtime(*id).await {
            tracing::error!(runtime = %id, %error, "removing a runtime's disk");
        }
    }
    for id in &plan.drop {
        store
            .delete_runtime(*id)
            .await
            .map_err(RuntimeError::Store)?;
    }
    for id in &plan.lost {
        tracing::error!(runtime = %id, "the runtime's disk is gone");
        store
            .set_status(*id, Status::Error.as_str(), now)
            .await
            .map_err(RuntimeError::Store)?;
    }

    let mut runtimes = Vec::new();
    for row in rows.into_iter().filter(|row| !plan.drop.contains(&row.id)) {
        let id = row.id;
        let runtime =
            Runtime::from_row(row).map_err(|source| RuntimeError::Corrupt { id, source })?;
        if plan.lost.contains(&id) {
            runtime.set(Status::Error, now.to_owned()).await;
        }
        runtimes.push(runtime);
    }
    Ok(runtimes)
}

/// Removes copies that nobody can use, and marks the checkpoints that have none as failed: somebody may wait for one.
pub(super) async fn checkpoints(
    store: &Store,
    server: &Warden,
    rows: Vec<CheckpointRow>,
) -> Result<Vec<Checkpoint>, RuntimeError> {
    let disk: HashSet<Uuid> = server
        .list_checkpoints()
        .await
        .map_err(|source| warden("listing the checkpoints on disk", source))?
        .into_iter()
        .collect();
    let ready = CheckpointState::Ready.as_str();
    let usable: HashSet<Uuid> = rows
        .iter()
        .filter(|row| row.state == ready && disk.contains(&row.id))
        .map(|row| row.id)
        .collect();
    for id in disk.difference(&usable) {
        tracing::info!(checkpoint = %id, "removing what an interrupted operation left");
        match server.delete_checkpoint(*id).await {
            Ok(()) => {}
            Err(error) if is_gone(&error) => {}
            // It is tried again at the next start.
            Err(error) => tracing::error!(checkpoint = %id, %error, "removing a checkpoint's disk"),
        }
    }
    let mut checkpoints = Vec::new();
    for mut row in rows {
        let failed = CheckpointState::Failed.as_str();
        if !usable.contains(&row.id) && row.state != failed {
            if row.state == ready {
                tracing::error!(checkpoint = %row.id, "the checkpoint's disk is gone");
            }
            store
                .set_checkpoint(row.id, failed, None)
                .await
                .map_err(RuntimeError::Store)?;
            (row.state, row.disk_bytes) = (failed.into(), None);
        }
        checkpoints.push(Checkpoint::from_row(row)?);
    }
    Ok(checkpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_has_its_remedy() {
        let [kept, lost, creating, deleting, stray] = [1, 2, 3, 4, 5].map(Uuid::from_u128);
        let rows = [
            (kept, "running"),
            (lost, "running"),
            (creating, "creating"),
            (deleting, "deleting"),
        ];
        let disk = HashSet::from([kept, creating, stray]);
        let expected = Plan {
            drop: vec![creating, deleting],
            stray: vec![stray],
            lost: vec![lost],
        };
        assert_eq!(plan(rows.into_iter(), &disk), expected);
    }

    #[test]
    fn agreement_needs_nothing() {
        let id = Uuid::from_u128(1);
        let disk = HashSet::from([id]);
        assert_eq!(plan([(id, "running")].into_iter(), &disk), Plan::default());
    }
}
