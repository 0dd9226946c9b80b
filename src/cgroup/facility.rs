//! Which of the product's promises about resources this host can keep, and what an operator can do
//! about the others.
//!
//! `serve` refuses to start while one is missing (unless told that it may), `doctor` prints them.

use std::fs;
use std::path::Path;

use super::discover;
use super::files;
use super::hierarchy::{Hierarchy, Version};
use super::layout::{Layout, Place, V2Tree};

/// A limit or an ability, and whether the host has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facility {
    /// `memory`, `swap`, `pids`, `cpu`, `kill`, `freeze`, `oom` or `usage`.
    pub name: &'static str,
    /// Whether it is there.
    pub state: State,
}

/// Whether a facility is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It works, and by what.
    Available(String),
    /// It does not.
    Missing {
        /// What to do about it, in one sentence.
        remedy: String,
    },
}

fn available(how: impl Into<String>) -> State {
    State::Available(how.into())
}

fn missing(remedy: impl Into<String>) -> State {
    State::Missing {
        remedy: remedy.into(),
    }
}

pub(super) fn all(layout: &Layout, found: &[Hierarchy]) -> Vec<Facility> {
    let cgroups = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let host = Host {
        layout,
        found,
        cgroups: &cgroups,
        swap_active: has_swap(&swaps),
    };
    [
        ("memory", host.controller("memory")),
        ("swap", host.swap()),
        ("pids", host.controller("pids")),
        ("cpu", host.controller("cpu")),
        ("kill", host.kill()),
        ("freeze", host.freeze()),
        ("oom", host.oom()),
        ("usage", host.usage()),
    ]
    .map(|(name, state)| Facility { name, state })
    .to_vec()
}

// A heading, then a line for each.
fn has_swap(swaps: &str) -> bool {
    swaps.lines().count() > 1
}

struct Host<'a> {
    layout: &'a Layout,
    found: &'a [Hierarchy],
    /// /proc/cgroups.
    cgroups: &'a str,
    swap_active: bool,
}

impl Host<'_> {
    fn controller(&self, name: &str) -> State {
        match self.layout.place(name) {
            Some(Place::V1(index)) => available(format!(
                "version 1, {}",
                root_of(&self.layout.v1[index].base).display()
            )),
            Some(Place::V2) => available("version 2"),
            None => missing(self.why_not(name)),
        }
    }

    fn why_not(&self, name: &str) -> String {
        let carries = |h: &&Hierarchy| matches!(&h.version, Version::V1(c) if c.contains(&name));
        if let Some(read_only) = self.found.iter().find(carries) {
            let mount = read_only.mount.display();
            return format!("{mount} is mounted read-only: make it writable for this container");
        }
        if disabled(self.cgroups, name) {
            return format!(
                "the kernel was told not to use it: boot with cgroup_enable={name} and without \
                 cgroup_disable={name}"
            );
        }
        if let Some(tree) = &self.layout.v2
            && !tree.anchor_is_root
        {
            let anchor = tree.anchor.display();
            return format!(
                "it is not enabled for {anchor}: put Delegate=yes into the service's unit, or \
                 enable it in the cgroup.subtree_control of the groups above"
            );
        }
        let v2 = self.found.iter().find(|h| h.version == Version::V2);
        match v2 {
            Some(tree) if tree.read_only => {
                let mount = tree.mount.display();
                format!("{mount} is mounted read-only: make it writable for this container")
            }
            Some(_) => format!(
                "mount its version 1 hierarchy (mount -t cgroup -o {name} cgroup \
                 /sys/fs/cgroup/{name}), or boot with systemd.unified_cgroup_hierarchy=1"
            ),
            None => "mount -t cgroup2 cgroup2 /sys/fs/cgroup".to_owned(),
        }
    }

    fn swap(&self) -> State {
        let accounted = match self.layout.place("memory") {
            None => return missing("it needs the memory controller, which is missing"),
            Some(Place::V1(index)) => {
                let root = root_of(&self.layout.v1[index].base);
                root.join("memory.memsw.limit_in_bytes").exists()
            }
            Some(Place::V2) => self.layout.v2.as_ref().is_none_or(accounts_swap),
        };
        match (accounted, self.swap_active) {
            (true, _) => available("limited with memory"),
            (false, false) => available("no swap on this host"),
            (false, true) => missing(
                "the kernel does not account for swap: boot with swapaccount=1, or turn swap off \
                 (swapoff -a)",
            ),
        }
    }

    fn has_freezer(&self) -> bool {
        self.layout.place("freezer").is_some()
    }

    fn kill(&self) -> State {
        match &self.layout.v2 {
            Some(tree) if discover::has_file(&tree.anchor, "cgroup.kill", (5, 14)) => {
                available("cgroup.kill")
            }
            Some(_) => available("cgroup.freeze and SIGKILL"),
            None if self.has_freezer() => available("freezer and SIGKILL"),
            None => missing(self.why_not("freezer")),
        }
    }

    fn freeze(&self) -> State {
        match &self.layout.v2 {
            Some(tree) if discover::has_file(&tree.anchor, "cgroup.freeze", (5, 2)) => {
                available("cgroup.freeze")
            }
            Some(_) => missing("a kernel of 5.2 or later is needed"),
            None if self.has_freezer() => available("freezer"),
            None => missing(self.why_not("freezer")),
        }
    }

    fn oom(&self) -> State {
        match self.layout.place("memory") {
            None => missing("it needs the memory controller, which is missing"),
            Some(Place::V2) => available("memory.events"),
            Some(Place::V1(index)) => {
                let root = root_of(&self.layout.v1[index].base);
                let control = files::read(root, "memory.oom_control").unwrap_or_default();
                if files::value_of(&control, "oom_kill").is_none() {
                    missing(
                        "memory.oom_control does not count: a kernel of 4.13 or later is needed",
                    )
                } else if root.join("cgroup.event_control").exists() {
                    available("memory.oom_control")
                } else {
                    available("memory.oom_control, read when a cell ends")
                }
            }
        }
    }

    fn usage(&self) -> State {
        if self.layout.place("memory").is_none() {
            return missing("it needs the memory controller, which is missing");
        }
        match self.layout.v2 {
            Some(_) => available("cpu.stat"),
            None if self.layout.place("cpuacct").is_some() => available("cpuacct"),
            None => missing(self.why_not("cpuacct")),
        }
    }
}

/// The group that a base lies in.
fn root_of(base: &Path) -> &Path {
    base.parent().unwrap_or(base)
}

/// Whether /proc/cgroups lists the controller as switched off (its fourth column).
fn disabled(cgroups: &str, name: &str) -> bool {
    let line = cgroups
        .lines()
        .find(|line| line.split_whitespace().next() == Some(name));
    line.is_some_and(|line| line.split_whitespace().nth(3) == Some("0"))
}

// The root group lacks the file, so ask a group that has the memory controller; if there is none
// yet, nothing speaks against it: it came with 4.5.
fn accounts_swap(tree: &V2Tree) -> bool {
    let mut groups = vec![tree.base.clone(), tree.anchor.clone()];
    groups.extend(files::children(&tree.anchor).unwrap_or_default());
    let with_memory = groups
        .iter()
        .find(|group| group.join("memory.max").exists());
    with_memory.is_none_or(|group| group.join("memory.swap.max").exists())
}

#[cfg(test)]
mod tests {
    use super::super::hierarchy::parse_mountinfo;
    use super::super::layout::V2Facts;
    use super::*;

    const SWAPS: &str = "Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";

    fn remedy(mountinfo: &str, facts: Option<V2Facts>, cgroups: &str, name: &str) -> String {
        let found = parse_mountinfo(mountinfo);
        let layout = Layout::plan(&found, facts, "b");
        let host = Host {
            layout: &layout,
            found: &found,
            cgroups,
            swap_active: true,
        };
        match host.controller(name) {
            State::Missing { remedy } => remedy,
            State::Available(how) => panic!("{name} is there: {how}"),
        }
    }

    fn tree(anchor_is_root: bool) -> Option<V2Facts> {
        let anchor = "/cg/system.slice/x.service".into();
        Some(V2Facts {
            anchor,
            anchor_is_root,
            controllers: vec!["pids".into()],
            freeze: true,
        })
    }

    #[test]
    fn each_reason_has_its_remedy() {
        let v2 = "30 23 0:26 / /cg rw - cgroup2 none rw\n";
        let read_only = "30 23 0:26 / /cg/memory ro - cgroup none rw,memory\n";
        let off = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t0\n";
        assert!(remedy("", None, "", "memory").contains("mount -t cgroup2"));
        assert!(remedy(read_only, None, "", "memory").contains("/cg/memory is mounted read-only"));
        assert!(remedy(v2, tree(true), off, "memory").contains("cgroup_enable=memory"));
        assert!(remedy(v2, tree(false), "", "memory").contains("Delegate=yes"));
        assert!(remedy(v2, tree(true), "", "memory").contains("-o memory"));
    }

    #[test]
    fn a_host_without_cgroups_misses_everything() {
        let layout = Layout::plan(&[], None, "b");
        for facility in all(&layout, &[]) {
            assert!(
                matches!(facility.state, State::Missing { .. }),
                "{facility:?}"
            );
        }
    }

    #[test]
    fn swap_without_accounting_matters_only_where_there_is_swap() {
        assert!(!has_swap(SWAPS));
        assert!(has_swap(&format!("{SWAPS}/dev/sda2 partition 1 0 -2\n")));
        let top = tempfile::tempdir().unwrap();
        let mounts = format!(
            "30 23 0:26 / {} rw - cgroup none rw,memory\n",
            top.path().display()
        );
        let found = parse_mountinfo(&mounts);
        let layout = Layout::plan(&found, None, "b");
        let host = |swap_active| Host {
            layout: &layout,
            found: &found,
            cgroups: "",
            swap_active,
        };
        assert!(matches!(host(false).swap(), State::Available(_)));
        assert!(matches!(host(true).swap(), State::Missing { .. }));
        fs::write(top.path().join("memory.memsw.limit_in_bytes"), "1").unwrap();
        assert!(matches!(host(true).swap(), State::Available(_)));
    }
}
