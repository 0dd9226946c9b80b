//! Fresh namespaces for every exec, and nothing shared through them.

use crate::needs;
use crate::support::probe::Probe;
use crate::support::{Runtime, runtime, together};
use std::collections::BTreeMap;

const KINDS: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

fn inside(runtime: &Runtime) -> BTreeMap<String, String> {
    let exec =
        runtime.sh("for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done");
    exec.assert_code(0);
    let pair = |line: &&str| {
        line.split_once(':')
            .map(|(kind, id)| (kind.to_owned(), id.to_owned()))
    };
    let found: BTreeMap<String, String> = exec.lines().iter().filter_map(pair).collect();
    assert_eq!(found.len(), KINDS.len(), "{exec:?}");
    found
}

#[test]
fn every_namespace_differs_from_the_hosts_and_between_two_execs() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let (first, second) = (inside(&runtime), inside(&runtime));
    for kind in KINDS {
        let host = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace link");
        let host = host.display().to_string();
        assert_ne!(
            format!("{kind}:{}", first[kind]),
            host,
            "{kind} is the host's"
        );
        assert_ne!(
            format!("{kind}:{}", second[kind]),
            host,
            "{kind} is the host's"
        );
    }
    // An inode number may be given out again once its namespace is gone: overlap the two to compare them.
    std::thread::scope(|scope| {
        let line =
            "for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done; sleep 1";
        let both = [
            scope.spawn(|| runtime.sh(line)),
            scope.spawn(|| runtime.sh(line)),
        ];
        let [one, two] = both.map(|thread| thread.join().expect("no panic"));
        for (a, b) in one.lines().iter().zip(two.lines()) {
            assert_ne!(*a, b, "shared between two execs");
        }
        assert_eq!(one.lines().len(), KINDS.len());
    });
}

#[test]
fn system_v_ipc_is_not_shared_between_execs() {
    needs!(Root);
    let _turn = together();
    let probe = Probe::in_runtime(runtime());
    assert_eq!(probe.errno(&["sysv-make", "4711"]), 0);
    assert_eq!(probe.errno(&["sysv-find", "4711"]), libc::ENOENT);
}

#[test]
fn shared_memory_files_are_not_shared_between_execs() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime
        .sh("echo secret > /dev/shm/mine; ls /dev/shm")
        .assert_stdout("mine\n");
    runtime.sh("ls -A /dev/shm").assert_stdout("");
}

#[test]
fn the_host_name_is_not_the_hosts() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let host = nix::unistd::gethostname().expect("a host name");
    let exec = runtime.sh("cat /proc/sys/kernel/hostname");
    assert_ne!(exec.stdout().trim(), host.to_string_lossy());
    runtime.sh("hostname changed").assert_failed();
}

#[test]
fn the_cgroup_tree_is_neither_seen_nor_mountable() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime
        .sh("grep -c -e ' - cgroup' /proc/self/mountinfo")
        .assert_code(1);
    for line in runtime.sh("cat /proc/self/cgroup").lines() {
        assert!(line.ends_with(":/"), "a path of the host's tree: {line}");
    }
    for line in [
        "mount -t cgroup2 x /tmp",
        "mount -t cgroup -o memory x /tmp",
    ] {
        let exec = runtime.sh(line);
        exec.assert_failed();
        let refused =
            exec.stderr().contains("permission denied") || exec.stderr().contains("not permitted");
        assert!(refused, "{exec:?}");
    }
}
