//! Makes the base groups, and clears away what lies below them: at start what an earlier server
//! left, at the end our own.

use std::path::Path;

use super::error::CgroupError;
use super::freeze::Freezer;
use super::layout::{Layout, V2Tree};
use super::{discover, enable, files, kill, limits};

/// Base groups in every hierarchy used, with controllers enabled for the groups below.
pub(super) fn make_bases(layout: &Layout) -> Result<(), CgroupError> {
    for tree in &layout.v1 {
        files::make_if_missing(&tree.base)?;
        // Before 5.11 a version 1 memory limit holds for the groups below only where this is on; it
        // is inherited.
        if tree.used.contains(&"memory")
            && files::read_number_if_there(&tree.base, "memory.use_hierarchy")? == Some(0)
        {
            files::write(&tree.base, "memory.use_hierarchy", "1")?;
        }
        if tree.used.contains(&"memory") {
            limits::count_buffers_v1(&tree.base)?;
        }
    }
    if let Some(tree) = &layout.v2 {
        if !tree.anchor_is_root && !tree.controllers.is_empty() {
            vacate(tree)?;
        }
        enable(&tree.anchor, &tree.controllers)?;
        files::make_if_missing(&tree.base)?;
        enable(&tree.base, &tree.controllers)?;
    }
    Ok(())
}

// No group but the root may hold processes and enable controllers for groups below (cgroups(7), "no
// internal processes"). Those in the anchor are ours (the service's, or the container's): they move
// into a leaf.
fn vacate(tree: &V2Tree) -> Result<(), CgroupError> {
    const ROUNDS: usize = 16;
    let leaf = tree.anchor.join(discover::SUPERVISOR);
    for _ in 0..ROUNDS {
        let processes = files::processes(&tree.anchor)?;
        if processes.is_empty() {
            return Ok(());
        }
        files::make_if_missing(&leaf)?;
        for pid in processes {
            match files::write(&leaf, "cgroup.procs", &pid.to_string()) {
                // It ended meanwhile.
                Err(CgroupError::Io { source, .. })
                    if source.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
    }
    // Something forks faster than it is moved; enabling controllers will now say EBUSY.
    Ok(())
}

/// Kills all processes below the bases and removes the groups, the bases themselves only if asked.
pub(super) fn clear(layout: &Layout, with_bases: bool) -> Result<(), CgroupError> {
    if let Some(tree) = &layout.v2
        && tree.base.exists()
    {
        // Whatever was paused must be able to end, wherever the kernel looks for it.
        Freezer::V2.set(&tree.base, false)?;
        kill::kill_v2(&tree.base)?;
    }
    // The freezer first: nothing in the other hierarchies dies while it is frozen there.
    let freezes = |carried: &[&str]| carried.contains(&"freezer");
    let (first, rest): (Vec<_>, Vec<_>) = layout.v1.iter().partition(|tree| freezes(&tree.used));
    for tree in first.into_iter().chain(rest) {
        let freezer = freezes(&tree.used).then_some(Freezer::V1);
        kill_below(&tree.base, freezer)?;
    }
    for base in layout.bases() {
        kill::remove_tree(base, with_bases)?;
    }
    Ok(())
}

fn kill_below(base: &Path, freezer: Option<Freezer>) -> Result<(), CgroupError> {
    for group in kill::tree(base)? {
        kill::kill_loop(&group, freezer)?;
    }
    Ok(())
}
