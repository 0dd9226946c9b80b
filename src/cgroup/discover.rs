//! Looks at the host and collects the facts that [`super::layout`] decides on. Changes nothing, so
//! that `doctor` may call it on a live system.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::CgroupError;
use super::files;
use super::hierarchy::{self, Hierarchy, Version};
use super::layout::V2Facts;

/// The leaf that holds our own processes below a delegated group. A unit may also name it itself
/// (`DelegateSubgroup=supervisor`, systemd 254).
pub(super) const SUPERVISOR: &str = "supervisor";

/// The mounted hierarchies and what the version 2 tree offers.
pub(super) fn look() -> Result<(Vec<Hierarchy>, Option<V2Facts>), CgroupError> {
    let mountinfo = files::read(Path::new("/proc/self"), "mountinfo")?;
    let own = files::read(Path::new("/proc/self"), "cgroup")?;
    let hierarchies = hierarchy::parse_mountinfo(&mountinfo);
    let v2 = hierarchies
        .iter()
        .find(|h| h.version == Version::V2 && !h.read_only);
    let facts = match v2 {
        None => None,
        Some(tree) => {
            let own = hierarchy::parse_own_v2(&own);
            let own = own.and_then(|own| hierarchy::directory_of(tree, &own));
            let anchor = anchor(&tree.mount, own.as_deref(), is_delegated);
            let controllers = files::read(&anchor, "cgroup.controllers")?;
            Some(V2Facts {
                // Every group but the host's root has a type (cgroups(7)).
                anchor_is_root: !anchor.join("cgroup.type").exists(),
                controllers: controllers.split_whitespace().map(str::to_owned).collect(),
                freeze: has_file(&anchor, "cgroup.freeze", (5, 2)),
                anchor,
            })
        }
    };
    Ok((hierarchies, facts))
}

/// The group below which ours may lie: the own group if it was given to us; its parent if the own
/// one is our leaf in it; else what is mounted, beside systemd's slices, as container engines do.
fn anchor(mount: &Path, own: Option<&Path>, delegated: impl Fn(&Path) -> bool) -> PathBuf {
    let Some(own) = own else {
        return mount.to_path_buf();
    };
    let parent = own.parent().filter(|parent| {
        own.file_name().is_some_and(|name| name == SUPERVISOR) && parent.starts_with(mount)
    });
    match parent {
        // At the top of a container the leaf was made without systemd, so nothing marks it.
        Some(parent) if delegated(parent) || parent == mount => parent.to_path_buf(),
        _ if delegated(own) => own.to_path_buf(),
        _ => mount.to_path_buf(),
    }
}

// systemd marks what it has delegated ("Control Group APIs and Delegation", section 3):
// `trusted.delegate`, which only a privileged process can read or set, and since 251
// `user.delegate`. The second is believed only of groups that root owns: a user may set it on a
// group of theirs.
fn is_delegated(group: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let marked = |name: &str| {
        let mut value = [0u8; 8];
        let length = rustix::fs::getxattr(group, name, &mut value);
        length.is_ok_and(|length| &value[..length] == b"1")
    };
    let roots = || fs::metadata(group).is_ok_and(|group| group.uid() == 0);
    marked("trusted.delegate") || (marked("user.delegate") && roots())
}

/// Whether groups below `anchor` have the file `name`: seen in a group where there is one, since
/// root groups lack most files; else by the release that brought it.
pub(super) fn has_file(anchor: &Path, name: &str, since: (u32, u32)) -> bool {
    if anchor.join(name).exists() {
        return true;
    }
    match files::children(anchor).unwrap_or_default().first() {
        Some(group) => group.join(name).exists(),
        None => crate::sys::kernel().1 >= since,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchored(own: Option<&str>, marked: &[&str]) -> PathBuf {
        let delegated = |group: &Path| marked.iter().any(|path| Path::new(path) == group);
        anchor(Path::new("/cg"), own.map(Path::new), delegated)
    }

    #[test]
    fn the_anchor_is_the_delegated_own_group() {
        let service = "/cg/system.slice/cellblock.service";
        assert_eq!(anchored(Some(service), &[service]), Path::new(service));
    }

    #[test]
    fn from_our_own_leaf_the_anchor_is_its_parent() {
        let service = "/cg/system.slice/cellblock.service";
        let leaf = format!("{service}/supervisor");
        assert_eq!(anchored(Some(&leaf), &[service]), Path::new(service));
        assert_eq!(anchored(Some("/cg/supervisor"), &[]), Path::new("/cg"));
    }

    #[test]
    fn a_group_that_is_not_ours_is_left_alone() {
        assert_eq!(
            anchored(Some("/cg/user.slice/session-1.scope"), &[]),
            Path::new("/cg")
        );
        assert_eq!(
            anchored(Some("/cg/foreign/supervisor"), &[]),
            Path::new("/cg")
        );
        let manager = "/cg/user.slice/user@0.service";
        let shell = format!("{manager}/app.slice/shell.scope");
        assert_eq!(anchored(Some(&shell), &[manager]), Path::new("/cg"));
        assert_eq!(anchored(None, &[]), Path::new("/cg"));
        assert_eq!(anchored(Some("/cg"), &[]), Path::new("/cg"));
    }
}
