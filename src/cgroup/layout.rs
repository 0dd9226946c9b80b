//! Which hierarchy does which job on this host, and where our groups lie in it: pure decisions over
//! facts that [`super::discover`] collects.
//!
//! | job | version 2 tree with the controller | else version 1 |
//! |---|---|---|
//! | memory, pids, cpu | its base | the hierarchy that carries it |
//! | kill, freeze | any version 2 tree (`cgroup.kill` 5.14, `cgroup.freeze` 5.2) | freezer |
//! | CPU time used | any version 2 tree (`cpu.stat` needs no controller) | cpuacct |
//!
//! So on a hybrid host a cell has a group in memory, pids and the version 2 tree and no more. It
//! needs no cpu group of its own anywhere: the quota is the runtime's, and on version 1 the cell
//! joins the runtime's cpu group.
//!
//! Names: `<base>/cellblock-<instance>/<runtime>/<cell>` in each hierarchy used.

use std::path::{Path, PathBuf};

use super::hierarchy::{Hierarchy, Version};

/// What limits need of a version 2 tree.
pub(super) const V2_CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// How cgroups are mounted on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only version 1 hierarchies.
    V1,
    /// Only the version 2 tree.
    V2,
    /// Controllers on version 1 and a version 2 tree beside them.
    Hybrid,
}

/// What was seen in the version 2 tree.
#[derive(Debug, Clone)]
pub(super) struct V2Facts {
    /// The group below which ours go: the own one if it is delegated, else what is mounted.
    pub(super) anchor: PathBuf,
    /// Whether the anchor is the host's root group, which may hold processes and groups with
    /// controllers at once.
    pub(super) anchor_is_root: bool,
    /// cgroup.controllers of the anchor.
    pub(super) controllers: Vec<String>,
    /// Whether the kernel has cgroup.freeze.
    pub(super) freeze: bool,
}

/// A version 1 hierarchy that is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct V1Tree {
    /// Our base group in it.
    pub(super) base: PathBuf,
    /// The controllers of it that are used; a hierarchy may carry more.
    pub(super) used: Vec<&'static str>,
    /// Whether each cell gets a group of its own; else it joins its runtime's.
    pub(super) per_cell: bool,
}

/// The version 2 tree, if it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct V2Tree {
    pub(super) anchor: PathBuf,
    pub(super) anchor_is_root: bool,
    /// Our base group in it.
    pub(super) base: PathBuf,
    /// Those of [`V2_CONTROLLERS`] that it can give us.
    pub(super) controllers: Vec<&'static str>,
}

/// Where a controller is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Index into [`Layout::v1`].
    V1(usize),
    V2,
}

/// The plan for one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) v1: Vec<V1Tree>,
    pub(super) v2: Option<V2Tree>,
}

impl Layout {
    /// Decides. `base` is the directory name of the base groups.
    pub(super) fn plan(hierarchies: &[Hierarchy], facts: Option<V2Facts>, base: &str) -> Self {
        let v2 = facts.and_then(|facts| {
            let offered = |name: &&str| facts.controllers.iter().any(|given| given == name);
            let controllers: Vec<_> = V2_CONTROLLERS.into_iter().filter(offered).collect();
            // Without controllers and without cgroup.freeze (before 5.2) a tree is of no use.
            let useful = facts.freeze || !controllers.is_empty();
            useful.then(|| V2Tree {
                base: facts.anchor.join(base),
                anchor: facts.anchor,
                anchor_is_root: facts.anchor_is_root,
                controllers,
            })
        });
        let has_freeze = v2.is_some();
        let on_v2 = |name: &str| {
            v2.as_ref()
                .is_some_and(|tree| tree.controllers.contains(&name))
        };
        let wanted = |name: &str| match name {
            "freezer" | "cpuacct" => !has_freeze,
            _ => !on_v2(name),
        };
        let v1 = hierarchies
            .iter()
            .filter(|hierarchy| !hierarchy.read_only)
            .filter_map(|hierarchy| {
                let Version::V1(carried) = &hierarchy.version else {
                    return None;
                };
                let used: Vec<_> = carried
                    .iter()
                    .copied()
                    .filter(|name| wanted(name))
                    .collect();
                (!used.is_empty()).then(|| V1Tree {
                    base: hierarchy.mount.join(base),
                    per_cell: used.iter().any(|name| *name != "cpu"),
                    used,
                })
            })
            .collect();
        Self { v1, v2 }
    }

    pub(super) fn mode(&self) -> Mode {
        match (&self.v2, self.v1.is_empty()) {
            (None, _) => Mode::V1,
            (Some(_), true) => Mode::V2,
            (Some(_), false) => Mode::Hybrid,
        }
    }

    /// Where `controller` is; none where this host does not have it, or not for us.
    pub(super) fn place(&self, controller: &str) -> Option<Place> {
        if self
            .v2
            .as_ref()
            .is_some_and(|tree| tree.controllers.contains(&controller))
        {
            return Some(Place::V2);
        }
        self.v1
            .iter()
            .position(|tree| tree.used.contains(&controller))
            .map(Place::V1)
    }

    /// All base groups.
    pub(super) fn bases(&self) -> impl Iterator<Item = &Path> {
        let v1 = self.v1.iter().map(|tree| tree.base.as_path());
        v1.chain(self.v2.iter().map(|tree| tree.base.as_path()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::hierarchy::parse_mountinfo;
    use super::*;

    fn facts(anchor: &str, controllers: &[&str], freeze: bool) -> Option<V2Facts> {
        Some(V2Facts {
            anchor: anchor.into(),
            anchor_is_root: true,
            controllers: controllers.iter().map(|name| name.to_string()).collect(),
            freeze,
        })
    }

    fn mounts(list: &[(&str, &str)]) -> Vec<Hierarchy> {
        let line = |(mount, options): &(&str, &str)| {
            let kind = if options.is_empty() {
                "cgroup2"
            } else {
                "cgroup"
            };
            format!("30 23 0:26 / {mount} rw - {kind} none rw,{options}\n")
        };
        parse_mountinfo(&list.iter().map(line).collect::<String>())
    }

    #[test]
    fn pure_v2_puts_everything_in_one_group() {
        let layout = Layout::plan(
            &mounts(&[("/cg", "")]),
            facts("/cg/svc", &["cpuset", "cpu", "io", "memory", "pids"], true),
            "cellblock-t",
        );
        assert_eq!(layout.mode(), Mode::V2);
        assert_eq!(
            layout.bases().collect::<Vec<_>>(),
            [Path::new("/cg/svc/cellblock-t")]
        );
        for controller in V2_CONTROLLERS {
            assert_eq!(layout.place(controller), Some(Place::V2));
        }
    }

    #[test]
    fn pure_v1_uses_freezer_and_cpuacct_and_gives_cells_no_cpu_group() {
        let hosts = mounts(&[
            ("/cg/memory", "memory"),
            ("/cg/pids", "pids"),
            ("/cg/cpu", "cpu"),
            ("/cg/cpuacct", "cpuacct"),
            ("/cg/freezer", "freezer"),
            ("/cg/blkio", "blkio"),
        ]);
        let layout = Layout::plan(&hosts, None, "cellblock-t");
        assert_eq!(layout.mode(), Mode::V1);
        assert_eq!(layout.bases().count(), 5);
        let own: Vec<_> = layout
            .v1
            .iter()
            .map(|tree| (tree.used[0], tree.per_cell))
            .collect();
        assert_eq!(
            own,
            [
                ("memory", true),
                ("pids", true),
                ("cpu", false),
                ("cpuacct", true),
                ("freezer", true)
            ]
        );
    }

    #[test]
    fn cpu_and_cpuacct_together_are_one_group_per_cell_on_v1_and_none_on_hybrid() {
        let hosts = mounts(&[("/cg/cpu,cpuacct", "cpu,cpuacct"), ("/cg/memory", "memory")]);
        let v1 = Layout::plan(&hosts, None, "b");
        assert_eq!(v1.place("cpu"), v1.place("cpuacct"));
        assert!(v1.v1[0].per_cell);
        let hybrid = Layout::plan(&hosts, facts("/cg/unified", &[], true), "b");
        assert_eq!(hybrid.mode(), Mode::Hybrid);
        assert!(!hybrid.v1[0].per_cell);
        assert_eq!(hybrid.place("cpuacct"), None);
    }

    #[test]
    fn a_controller_that_v2_has_is_not_looked_for_on_v1() {
        let hosts = mounts(&[("/cg/memory", "memory"), ("/cg/pids", "pids")]);
        let layout = Layout::plan(&hosts, facts("/cg/unified", &["pids"], true), "b");
        assert_eq!(layout.place("pids"), Some(Place::V2));
        assert_eq!(layout.place("memory"), Some(Place::V1(0)));
        assert_eq!(layout.place("cpu"), None);
        assert_eq!(layout.v1.len(), 1);
    }

    #[test]
    fn a_v2_tree_without_freeze_and_controllers_is_left_alone() {
        let hosts = mounts(&[("/cg/freezer", "freezer")]);
        let layout = Layout::plan(&hosts, facts("/cg/unified", &["io"], false), "b");
        assert_eq!(layout.mode(), Mode::V1);
        assert_eq!(layout.place("freezer"), Some(Place::V1(0)));
    }

    #[test]
    fn read_only_hierarchies_are_not_used() {
        let hosts = parse_mountinfo("30 23 0:26 / /cg/memory ro - cgroup none rw,memory\n");
        assert_eq!(Layout::plan(&hosts, None, "b").place("memory"), None);
    }
}
