//! Which cgroup hierarchies are mounted where: /proc/self/mountinfo and /proc/self/cgroup, parsed.
//!
//! Controllers may be mounted together (`cpu,cpuacct`), apart, under any path, or be seen through a
//! container's bind mount of a subtree, so nothing here assumes `/sys/fs/cgroup/<name>`. Used by
//! [`super::layout`].

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The controllers that limits, pause and usage need on version 1; others are none of our business.
const V1_CONTROLLERS: [&str; 5] = ["memory", "pids", "cpu", "cpuacct", "freezer"];

/// Version 1 (with its controllers) or version 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Version {
    V1(Vec<&'static str>),
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// Which of its groups is seen there: `/`, or deeper in a container's bind mount.
    pub(super) root: PathBuf,
    /// Mounted read-only, as containers often have it.
    pub(super) read_only: bool,
    pub(super) version: Version,
}

/// The hierarchies of a mountinfo text, each once; a writable mount and one that shows more wins.
pub(super) fn parse_mountinfo(text: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for candidate in text.lines().filter_map(parse_mount) {
        let same = found
            .iter_mut()
            .find(|known| known.version == candidate.version);
        match same {
            None => found.push(candidate),
            Some(known) => {
                let rank = |h: &Hierarchy| (h.read_only, h.root.components().count());
                if rank(&candidate) < rank(known) {
                    *known = candidate;
                }
            }
        }
    }
    found
}

// "36 35 98:0 /root /mnt rw,noatime shared:1 - type source superoptions", proc_pid_mountinfo(5).
fn parse_mount(line: &str) -> Option<Hierarchy> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(3);
    let (root, mount, options) = (front.next()?, front.next()?, front.next()?);
    let mut back = back.split(' ');
    let (kind, _source, super_options) = (back.next()?, back.next()?, back.next()?);
    let version = match kind {
        "cgroup2" => Version::V2,
        "cgroup" => {
            let has = |name: &&str| super_options.split(',').any(|option| option == *name);
            let controllers: Vec<_> = V1_CONTROLLERS.into_iter().filter(has).collect();
            if controllers.is_empty() {
                return None;
            }
            Version::V1(controllers)
        }
        _ => return None,
    };
    let read_only = [options, super_options]
        .iter()
        .any(|o| o.split(',').any(|o| o == "ro"));
    Some(Hierarchy {
        mount: unescape(mount),
        root: unescape(root),
        read_only,
        version,
    })
}

// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes
            .get(at + 1..at + 4)
            .and_then(|d| std::str::from_utf8(d).ok());
        let octal = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) if bytes[at] == b'\\' => {
                plain.push(byte);
                at += 4;
            }
            _ => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    OsString::from_vec(plain).into()
}

/// The own group's path in the version 2 hierarchy: the line `0::/path` of /proc/self/cgroup.
pub(super) fn parse_own_v2(text: &str) -> Option<PathBuf> {
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(PathBuf::from)
}

/// The directory of the group `own` in a mounted hierarchy; none if the mount does not show it.
pub(super) fn directory_of(hierarchy: &Hierarchy, own: &Path) -> Option<PathBuf> {
    let below = own.strip_prefix(&hierarchy.root).ok()?;
    // A group outside the cgroup namespace reads as /../…
    let inside = !below
        .components()
        .any(|part| part == std::path::Component::ParentDir);
    inside.then(|| {
        if below.as_os_str().is_empty() {
            hierarchy.mount.clone()
        } else {
            hierarchy.mount.join(below)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    fn v1(mount: &str, controllers: &[&'static str]) -> Hierarchy {
        Hierarchy {
            mount: mount.into(),
            root: "/".into(),
            read_only: false,
            version: Version::V1(controllers.to_vec()),
        }
    }

    fn v2(mount: &str, root: &str) -> Hierarchy {
        Hierarchy {
            mount: mount.into(),
            root: root.into(),
            read_only: false,
            version: Version::V2,
        }
    }

    #[test]
    fn hybrid_lists_each_controller_and_the_v2_tree() {
        assert_eq!(
            parse_mountinfo(HYBRID),
            [
                v1("/sys/fs/cgroup/cpu", &["cpu"]),
                v1("/sys/fs/cgroup/cpuacct", &["cpuacct"]),
                v1("/sys/fs/cgroup/memory", &["memory"]),
                v1("/sys/fs/cgroup/pids", &["pids"]),
                v2("/sys/fs/cgroup/unified", "/"),
            ]
        );
    }

    #[test]
    fn controllers_mounted_together_are_one_hierarchy() {
        let text = "\
33 24 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:11 - cgroup cgroup rw,cpu,cpuacct
34 24 0:29 / /cg/all rw shared:12 master:3 - cgroup none rw,pids,memory,xattr,name=x
";
        assert_eq!(
            parse_mountinfo(text),
            [
                v1("/sys/fs/cgroup/cpu,cpuacct", &["cpu", "cpuacct"]),
                v1("/cg/all", &["memory", "pids"])
            ]
        );
    }

    #[test]
    fn pure_v2_has_one_hierarchy() {
        let text = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 \
                    rw,nsdelegate,memory_recursiveprot\n";
        assert_eq!(parse_mountinfo(text), [v2("/sys/fs/cgroup", "/")]);
    }

    #[test]
    fn a_writable_mount_wins_over_a_read_only_one() {
        let text = "30 23 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup ro\n\
                    31 23 0:26 /a /mnt/cg rw - cgroup2 cgroup rw\n\
                    32 23 0:26 / /mnt/all rw - cgroup2 cgroup rw\n";
        assert_eq!(parse_mountinfo(text), [v2("/mnt/all", "/")]);
        let only = &parse_mountinfo(text.lines().next().unwrap())[0];
        assert!(only.read_only);
    }

    #[test]
    fn a_bind_mount_of_a_subtree_keeps_its_root() {
        let text = "30 23 0:26 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let found = parse_mountinfo(text);
        assert_eq!(found[0].root, Path::new("/docker/abc"));
        assert_eq!(found[0].mount, Path::new("/sys/fs/cgroup/memory"));
    }

    #[test]
    fn escaped_mount_points_are_read_as_they_are() {
        let text = "30 23 0:26 / /mnt/a\\040b\\134c rw - cgroup2 none rw\n";
        assert_eq!(parse_mountinfo(text)[0].mount, Path::new("/mnt/a b\\c"));
    }

    #[test]
    fn lines_that_are_not_mounts_are_passed_over() {
        assert_eq!(
            parse_mountinfo("\n1 2 3\n30 23 0:26 / /x rw - cgroup2\ngarbage - cgroup2 a b\n"),
            []
        );
    }

    #[test]
    fn the_own_group_is_found_in_the_mount_that_shows_it() {
        let own =
            parse_own_v2("3:cpuset:/\n1:name=systemd:/x\n0::/system.slice/a.service\n").unwrap();
        let whole = v2("/sys/fs/cgroup", "/");
        let part = v2("/sys/fs/cgroup", "/system.slice");
        let other = v2("/sys/fs/cgroup", "/user.slice");
        assert_eq!(
            directory_of(&whole, &own),
            Some(PathBuf::from("/sys/fs/cgroup/system.slice/a.service"))
        );
        assert_eq!(
            directory_of(&part, &own),
            Some(PathBuf::from("/sys/fs/cgroup/a.service"))
        );
        assert_eq!(directory_of(&other, &own), None);
        assert_eq!(directory_of(&whole, Path::new("/../x")), None);
        assert_eq!(
            directory_of(&whole, Path::new("/")),
            Some(PathBuf::from("/sys/fs/cgroup"))
        );
        assert_eq!(parse_own_v2("3:cpuset:/\n"), None);
    }
}
