//! What a server has on the host at one moment, counted: two counts must be equal whatever happened between them.

use super::procs;
use super::server::Server;
use super::timing;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How many of each thing exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Cgroup directories that are, or lie below, a `cellblock…` group, in all hierarchies.
    pub cgroups: usize,
    /// Mounts in the host's mount namespace.
    pub host_mounts: usize,
    /// Mounts seen by each of the server's processes, added up.
    pub server_mounts: usize,
    /// Open descriptors of the server's processes.
    pub fds: usize,
    /// Processes of the server, cells included.
    pub processes: usize,
    /// Of those, zombies.
    pub zombies: usize,
    /// Loop devices with a file behind them.
    pub loops: usize,
    /// Network namespaces that a process lives in.
    pub network_namespaces: usize,
    /// Things in the data directory and its `runtimes` and `images`, and our names where temporary files go.
    pub files: usize,
}

impl Counts {
    /// Counts now.
    pub fn of(server: &Server) -> Counts {
        let mut counts = Counts::of_host();
        let pids = procs::tree(server.pid);
        counts.server_mounts = pids
            .iter()
            .map(|pid| super::mounts::of(&pid.to_string()).len())
            .sum();
        counts.fds = pids
            .iter()
            .map(|pid| entries(&format!("/proc/{pid}/fd")))
            .sum();
        counts.zombies = pids
            .iter()
            .filter(|pid| procs::state(**pid) == Some('Z'))
            .count();
        counts.processes = pids.len();
        let data = server.data_dir();
        counts.files += ["", "runtimes", "images"]
            .iter()
            .map(|dir| entries(&data.join(dir).display().to_string()))
            .sum::<usize>();
        counts
    }

    /// Counts only what needs no running server; the rest is 0.
    pub fn of_host() -> Counts {
        Counts {
            cgroups: cgroups().len(),
            host_mounts: super::mounts::all().len(),
            server_mounts: 0,
            fds: 0,
            processes: 0,
            zombies: 0,
            loops: loops(),
            network_namespaces: network_namespaces(),
            files: temp_dirs(),
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

/// Cgroup directories of any server on this host.
pub fn cgroups() -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect_cgroups(Path::new("/sys/fs/cgroup"), false, &mut found);
    found
}

fn collect_cgroups(dir: &Path, ours: bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        // Groups come and go; hierarchies are directories, their aliases (cpu,cpuacct) links.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let ours = ours || entry.file_name().to_string_lossy().starts_with("cellblock");
        if ours {
            found.push(entry.path());
        }
        collect_cgroups(&entry.path(), ours, found);
    }
}

fn entries(dir: &str) -> usize {
    fs::read_dir(dir)
        .map(|entries| entries.count())
        .unwrap_or(0)
}

fn loops() -> usize {
    let backed = |entry: &fs::DirEntry| entry.path().join("loop/backing_file").exists();
    fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .filter(backed)
        .count()
}

fn network_namespaces() -> usize {
    let link = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    procs::all()
        .into_iter()
        .filter_map(link)
        .collect::<HashSet<_>>()
        .len()
}

/// Our names in the places for temporary files, the tests' own directories apart.
fn temp_dirs() -> usize {
    let ours = |entry: &fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.contains("cellblock") && !name.starts_with("cellblock-test-")
    };
    let places = [std::env::temp_dir(), "/dev/shm".into(), "/run".into()];
    places
        .iter()
        .flat_map(fs::read_dir)
        .flatten()
        .flatten()
        .filter(ours)
        .count()
}
