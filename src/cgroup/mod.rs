//! Cgroups: what limits, counts and ends the processes of runtimes and cells, on version 2, version
//! 1 and hosts with both.
//!
//! ```text
//! <hierarchy>/cellblock-<instance>/          base, one per hierarchy used; swept at start
//!             └─ <runtime>/                  RuntimeGroup: memory, pids, cpu of all cells
//!                 └─ <cell>/                 CellGroup: memory, pids, usage, kill
//! ```
//!
//! The warden calls all of it, from one thread; `doctor` calls [`CgroupHost::discover`] and
//! [`CgroupHost::facilities`], which change nothing. Version 1 groups lie at the root of their
//! hierarchy, like those of container engines. In the version 2 tree they lie below our own group
//! if systemd has delegated it to us, else at the root too.
//!
//! Parts: `hierarchy` parses what is mounted, `discover` looks, `layout` decides; `limits`
//! writes limits (with cgroups-rs), `lowering` knows which of them take long, `oom`, `usage`, `freeze` and `kill` do what that crate lacks;
//! `sweep` makes and clears the bases.

mod cell;
mod discover;
mod error;
mod facility;
mod files;
mod freeze;
mod hierarchy;
mod kill;
mod layout;
mod limits;
mod lowering;
mod oom;
mod runtime;
mod sockets;
mod sweep;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use cell::CellGroup;
pub use error::CgroupError;
pub use facility::{Facility, State};
pub use layout::Mode;
pub use lowering::Lowering;
pub use runtime::RuntimeGroup;

use crate::resources::RuntimeResources;
use layout::Layout;

/// Processes in a cell's groups that are ours, not the payload's: the init.
const INIT_PIDS: u64 = 1;

/// The host's cgroups, as found once.
#[derive(Debug, Clone)]
pub struct CgroupHost {
    layout: Arc<Layout>,
    found: Arc<Vec<hierarchy::Hierarchy>>,
}

impl CgroupHost {
    /// Looks at what is mounted and plans where groups go. Creates nothing.
    ///
    /// `instance` is a short id of the data directory that stays the same, so that a later server
    /// finds what an earlier one left.
    ///
    /// # Errors /proc or the version 2 tree can't be read, or `instance` is no good as a directory
    /// name. A host without cgroups is no error: see [`Self::facilities`].
    pub fn discover(instance: &str) -> Result<Self, CgroupError> {
        let (found, facts) = discover::look()?;
        Self::planned(instance, found, facts)
    }

    /// As [`Self::discover`], but blind to version 2 trees: on a host that has both kinds, groups
    /// are made and used as on one that has only version 1.
    ///
    /// # Errors
    /// As for `discover`.
    pub fn discover_v1(instance: &str) -> Result<Self, CgroupError> {
        let (mut found, _) = discover::look()?;
        found.retain(|hierarchy| hierarchy.version != hierarchy::Version::V2);
        Self::planned(instance, found, None)
    }

    fn planned(
        instance: &str,
        found: Vec<hierarchy::Hierarchy>,
        facts: Option<layout::V2Facts>,
    ) -> Result<Self, CgroupError> {
        check_name(instance)?;
        let layout = Layout::plan(&found, facts, &format!("cellblock-{instance}"));
        Ok(Self {
            layout: Arc::new(layout),
            found: Arc::new(found),
        })
    }

    /// How cgroups are mounted.
    pub fn mode(&self) -> Mode {
        self.layout.mode()
    }

    /// Every limit and ability that the product promises, present or missing with a remedy:
    /// `memory`, `swap`, `pids`, `cpu`, `kill`, `freeze`, `oom`, `usage`, in this order.
    pub fn facilities(&self) -> Vec<Facility> {
        facility::all(&self.layout, &self.found)
    }

    /// Whether the kernel lets sockets hold more than a memory limit: [`RuntimeGroup::sockets_beyond_limit`].
    pub fn charges_sockets_late(&self) -> bool {
        matches!(self.layout.place("memory"), Some(layout::Place::V2))
    }

    /// The base groups' directories.
    pub fn bases(&self) -> Vec<PathBuf> {
        self.layout.bases().map(Path::to_path_buf).collect()
    }

    /// Clears away what an earlier server left, makes the base groups and enables controllers. If
    /// the version 2 group we run in was delegated to us, its processes move into its leaf
    /// `supervisor` first.
    ///
    /// # Errors What the kernel answers; [`CgroupError::Busy`] if a leftover process can't be ended
    /// within seconds.
    pub fn prepare(&self) -> Result<(), CgroupError> {
        self.sweep()?;
        sweep::make_bases(&self.layout)
    }

    /// Ends every process below the bases and removes every group there; the bases stay. Waits for
    /// the processes, so it may take seconds when one of them is stuck in the kernel.
    ///
    /// # Errors
    /// As for [`Self::prepare`].
    pub fn sweep(&self) -> Result<(), CgroupError> {
        sweep::clear(&self.layout, false)
    }

    /// As [`Self::sweep`], and removes the bases too: the last thing at shutdown.
    ///
    /// # Errors
    /// As for [`Self::prepare`].
    pub fn remove_base(&self) -> Result<(), CgroupError> {
        sweep::clear(&self.layout, true)
    }

    /// Makes the groups of a runtime, or takes over existing ones, and sets its limits.
    ///
    /// # Errors
    /// What the kernel refuses; the bases must have been [prepared](Self::prepare).
    pub fn runtime(
        &self,
        id: &str,
        resources: &RuntimeResources,
    ) -> Result<RuntimeGroup, CgroupError> {
        check_name(id)?;
        RuntimeGroup::create(self.layout.clone(), id, resources)
    }
}

/// Ids become directory names: nothing that could leave the directory, or clash with a kernel file
/// (those have a dot).
fn check_name(name: &str) -> Result<(), CgroupError> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    let good = !name.is_empty() && name.len() <= 128 && name.bytes().all(plain) && name != "tasks";
    if good {
        Ok(())
    } else {
        Err(CgroupError::Name {
            name: name.to_owned(),
        })
    }
}

/// Enables controllers for the groups below a version 2 group, writing only if one is missing
/// there.
fn enable(dir: &Path, controllers: &[&str]) -> Result<(), CgroupError> {
    const FILE: &str = "cgroup.subtree_control";
    if controllers.is_empty() {
        return Ok(());
    }
    let enabled = files::read(dir, FILE)?;
    let missing: Vec<_> = controllers
        .iter()
        .filter(|name| !enabled.split_whitespace().any(|given| given == **name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        files::write(dir, FILE, &missing.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_the_directory_and_off_kernel_files() {
        for good in ["a", "0197-ab_C", &"x".repeat(128)] {
            check_name(good).unwrap();
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "cgroup.procs",
            "tasks",
            "ü",
            &"x".repeat(129),
        ] {
            assert!(
                matches!(check_name(bad), Err(CgroupError::Name { .. })),
                "{bad}"
            );
        }
    }
}
