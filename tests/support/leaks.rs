//! What one server has on the host at one moment, counted: two counts must be equal whatever happened between them, and
//! nothing may be left after a stop. Other servers on the same host don't count: groups are told apart by the server's
//! instance name, disks and mounts by its data directory.

use super::procs;
use super::server::Server;
use super::timing;
use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// How many of each thing exist.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Cgroup directories of the server, in all hierarchies.
    pub cgroups: usize,
    /// Mounts at or below the server's directory in the host's mount namespace.
    pub host_mounts: usize,
    /// Mounts seen by each of the server's processes, added up.
    pub server_mounts: usize,
    /// Open descriptors of the server's processes, by what they are.
    pub fds: Vec<(String, usize)>,
    /// Processes of the server or in its cgroups.
    pub processes: usize,
    /// Of those, zombies.
    pub zombies: usize,
    /// Loop devices with a file of the data directory behind them.
    pub loops: usize,
    /// Network namespaces of those processes.
    pub network_namespaces: usize,
    /// Things in the data directory and its `runtimes` and `images`.
    pub files: usize,
    /// Things of that instance in the places for temporary files.
    pub temporary: usize,
}

impl Counts {
    /// Counts when the server has come to rest, within `limit`: two looks that are equal.
    #[track_caller]
    pub fn at_rest(server: &Server, limit: std::time::Duration) -> Counts {
        let mut last = Counts::of(server);
        let calm = timing::eventually(limit, || {
            std::thread::sleep(timing::bound(500));
            let now = Counts::of(server);
            let same = now == last;
            last = now;
            same
        });
        assert!(calm, "the server never comes to rest: {last:?}");
        last
    }

    /// Counts now.
    pub fn of(server: &Server) -> Counts {
        let pids = pids(server);
        let data = server.data_dir();
        let places = ["", "runtimes", "images"].map(|name| data.join(name));
        let processes = Counts {
            server_mounts: pids
                .iter()
                .map(|pid| super::mounts::of(&pid.to_string()).len())
                .sum(),
            fds: descriptors(&pids),
            files: places.iter().map(|dir| entries(dir)).sum(),
            network_namespaces: network_namespaces(&pids),
            zombies: pids
                .iter()
                .filter(|pid| procs::state(**pid) == Some('Z'))
                .count(),
            processes: pids.len(),
            ..Counts::default()
        };
        let host = Counts::left_by(server);
        Counts {
            cgroups: host.cgroups,
            host_mounts: host.host_mounts,
            loops: host.loops,
            temporary: host.temporary,
            ..processes
        }
    }

    /// Counts what is left of a server that has ended; its data directory apart, that must be nothing.
    pub fn left_by(server: &Server) -> Counts {
        let instance = instance(server);
        Counts {
            cgroups: cgroups(Path::new("/sys/fs/cgroup"), &instance, false),
            host_mounts: super::mounts::below(&server.data_dir()).len(),
            processes: left_processes(server),
            loops: loops(&server.data_dir()),
            temporary: temporary(&instance),
            ..Counts::default()
        }
    }

    /// Asserts that the count becomes this one again within ten seconds (on hardware): killing and unmounting go on in
    /// the background after an answer.
    #[track_caller]
    pub fn assert_again(&self, mut count: impl FnMut() -> Counts) {
        let mut last = count();
        timing::eventually(timing::bound(10_000), || {
            last = count();
            last == *self
        });
        assert_eq!(
            last, *self,
            "something was left behind (left: now, right: before)"
        );
    }
}

/// The name of a server's cgroups, which it keeps in its data directory.
fn instance(server: &Server) -> String {
    let file = server.data_dir().join("instance");
    let name = fs::read_to_string(&file).expect("the server's instance name");
    format!("cellblock-{}", name.trim())
}

/// Whether a process belongs to another server on this host: its uid range may be the same.
pub fn is_foreign(server: &Server, pid: u32) -> bool {
    let instance = instance(server);
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    // The tests themselves may run in a group whose name begins like that.
    let of_a_server = |part: &&str| {
        let id = part.strip_prefix("cellblock-");
        id.is_some_and(|id| id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let mut parts = groups.split(['/', '\n']).filter(of_a_server);
    parts.any(|part| part != instance)
}

fn pids(server: &Server) -> Vec<u32> {
    let mut pids = procs::tree(server.pid);
    pids.extend(in_groups(&instance(server)));
    pids.extend(holders(server));
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn left_processes(server: &Server) -> usize {
    let mut pids = in_groups(&instance(server));
    pids.extend(holders(server));
    pids.sort_unstable();
    pids.dedup();
    pids.len()
}

/// Processes with anything below the server's directory open: its log, if nothing else. Not this one.
pub fn holders(server: &Server) -> Vec<u32> {
    let data = server.data_dir();
    let below = data.parent().expect("the server's directory").to_owned();
    let holds = |pid: &u32| {
        let entries = fs::read_dir(format!("/proc/{pid}/fd"));
        let mut links = entries.into_iter().flatten().flatten();
        links.any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.starts_with(&below)))
    };
    let others = procs::all().into_iter();
    let others = others.filter(|pid| *pid != std::process::id());
    others.filter(holds).collect()
}

fn in_groups(instance: &str) -> Vec<u32> {
    let member = |pid: &u32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        groups
            .lines()
            .any(|line| line.split('/').any(|part| part == instance))
    };
    procs::all().into_iter().filter(member).collect()
}

/// Groups of this name, and where `ours`, all below. They come and go; hierarchies are directories, their aliases (cpu,cpuacct) links.
pub fn cgroups(dir: &Path, instance: &str, ours: bool) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let ours = ours || entry.file_name() == instance;
            count += usize::from(ours) + cgroups(&entry.path(), instance, ours);
        }
    }
    count
}

/// Kinds are link targets without their numbers: `socket:[]`, `anon_inode:[eventfd]`, a path.
fn descriptors(pids: &[u32]) -> Vec<(String, usize)> {
    let mut kinds = std::collections::BTreeMap::new();
    for pid in pids {
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let Ok(target) = fs::read_link(entry.path()) else {
                continue;
            };
            let target = target.to_string_lossy();
            let kind: String = match target.starts_with('/') {
                true => target.into_owned(),
                false => target.chars().filter(|c| !c.is_ascii_digit()).collect(),
            };
            *kinds.entry(kind).or_insert(0) += 1;
        }
    }
    kinds.into_iter().collect()
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir)
        .map(|entries| entries.count())
        .unwrap_or(0)
}

/// Loop devices with a file below this directory behind them.
pub fn loops(data: &Path) -> usize {
    let ours = |entry: &fs::DirEntry| {
        let file = fs::read_to_string(entry.path().join("loop/backing_file"));
        file.is_ok_and(|file| Path::new(file.trim()).starts_with(data))
    };
    fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .filter(ours)
        .count()
}

fn network_namespaces(pids: &[u32]) -> usize {
    let link = |pid: &u32| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    pids.iter().filter_map(link).collect::<HashSet<_>>().len()
}

fn temporary(instance: &str) -> usize {
    let ours = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().contains(instance);
    let places = [std::env::temp_dir(), "/dev/shm".into(), "/run".into()];
    places
        .iter()
        .flat_map(fs::read_dir)
        .flatten()
        .flatten()
        .filter(ours)
        .count()
}
