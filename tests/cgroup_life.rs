//! Groups from their making to their removal against the running kernel: joining, kill, freeze,
//! remove, sweep. Needs root and writable cgroups. Every test runs on the hierarchies as the host
//! has them and, where the host has both versions, once more as if it had only version 1.

mod cgroup_support;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cellblock::cgroup::{CgroupError, Mode, RuntimeGroup};
use cgroup_support::{
    CELL, RUNTIME, ends, hosts, lines, members, removed, run, until_lines, wait_frozen,
};

/// A daemon, one that is deaf to signals, a stopped one, and the main process; each says a line
/// when it is there.
const TREE: &str = "\
    (setsid sh -c 'echo daemon; exec sleep 1000' &)
    (sh -c 'trap \"\" TERM HUP INT; echo deaf; while :; do sleep 1000; done' &)
    (sh -c 'echo stopped; kill -STOP $$' &)
    echo main
    while :; do sleep 1000; done";

#[test]
fn looking_creates_nothing() {
    for host in hosts("look") {
        assert!(!host.bases().is_empty());
        assert!(
            host.bases().iter().all(|base| !base.exists()),
            "{:?}",
            host.bases()
        );
    }
}

#[test]
fn a_child_joins_every_group_through_the_given_files() {
    for host in hosts("join") {
        let runtime = host.prepared().runtime("r", &RUNTIME).unwrap();
        let cell = runtime.cell("c", &CELL).unwrap();
        assert_eq!(cell.clone_into().is_some(), host.mode() != Mode::V1);
        let mut child = run(&cell, "cat /proc/self/cgroup");
        let text = lines(&mut child);
        assert!(child.wait().unwrap().success());
        let ends_with = |carries: &dyn Fn(&str) -> bool, path: &str| {
            text.iter().any(|line| {
                let (list, group) = line.split_once(':').unwrap().1.split_once(':').unwrap();
                list.split(',').any(carries) && group.ends_with(path)
            })
        };
        if host.mode() != Mode::V1 {
            assert!(ends_with(&str::is_empty, "/r/c"), "{text:?}");
        }
        if host.mode() != Mode::V2 {
            for controller in ["memory", "pids"] {
                assert!(
                    ends_with(&|name| name == controller, "/r/c"),
                    "{controller}: {text:?}"
                );
            }
            // Its own group only where cpu is mounted together with a controller that needs one.
            let cpu = |name: &str| name == "cpu";
            assert!(ends_with(&cpu, "/r") || ends_with(&cpu, "/r/c"), "{text:?}");
        }
    }
}

#[test]
fn kill_ends_daemons_stopped_and_deaf_processes() {
    for host in hosts("kill") {
        let runtime = host.prepared().runtime("r", &RUNTIME).unwrap();
        let cell = runtime.cell("c", &CELL).unwrap();
        let mut child = run(&cell, TREE);
        until_lines(&mut child, 4);
        assert!(members(&cell) >= 4);
        assert!(!cell.remove().unwrap(), "removed with processes in it");
        cell.kill().unwrap();
        assert!(ends(&mut child), "somebody still holds the pipe");
        child.wait().unwrap();
        cell.kill().unwrap();
    }
}

#[test]
fn kill_ends_a_fork_storm() {
    for host in hosts("storm") {
        let runtime = host.prepared().runtime("r", &RUNTIME).unwrap();
        let cell = runtime.cell("c", &CELL).unwrap();
        let mut child = run(
            &cell,
            "echo on; f() { f | f; }; while :; do f; done 2>/dev/null",
        );
        until_lines(&mut child, 1);
        cell.kill().unwrap();
        assert!(ends(&mut child), "somebody still holds the pipe");
        child.wait().unwrap();
    }
}

#[test]
fn kill_ends_a_frozen_cell() {
    for host in hosts("frozen") {
        let runtime = host.prepared().runtime("r", &RUNTIME).unwrap();
        let cell = runtime.cell("c", &CELL).unwrap();
        let mut child = run(&cell, TREE);
        until_lines(&mut child, 4);
        runtime.freeze().unwrap();
        wait_frozen(&runtime, &cell);
        cell.kill().unwrap();
        assert!(ends(&mut child), "somebody still holds the pipe");
        child.wait().unwrap();
    }
}

#[test]
fn freeze_stops_and_thaw_continues() {
    for host in hosts("freeze") {
        let runtime = host.prepared().runtime("r", &RUNTIME).unwrap();
        let cell = runtime.cell("c", &CELL).unwrap();
        let mut child = run(&cell, "echo on; while :; do :; done");
        until_lines(&mut child, 1);
        assert!(
            !runtime.is_frozen().unwrap(),
            "frozen before it was asked to"
        );
        runtime.freeze().unwrap();
        wait_frozen(&runtime, &cell);
        assert!(until_frozen(&runtime), "it says that it goes on");
        let before = cell.cpu_us().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(cell.cpu_us().unwrap(), before, "it went on");
        runtime.thaw().unwrap();
        assert!(
            !runtime.is_frozen().unwrap(),
            "it says that it stands still"
        );
        let deadline = Instant::now() + Duration::from_secs(20);
        while cell.cpu_us().unwrap() == before {
            assert!(Instant::now() < deadline, "it did not go on");
        }
        cell.kill().unwrap();
        assert!(ends(&mut child));
        child.wait().unwrap();
    }
}

#[test]
fn removal_leaves_nothing() {
    for host in hosts("remove") {
        let runtime = host.prepared().runtime("r", &RUNTIME).unwrap();
        let mut cell = runtime.cell("c", &CELL).unwrap();
        assert!(!runtime.remove().unwrap(), "removed with a cell in it");
        let mut child = run(&cell, "echo on; sleep 1000");
        until_lines(&mut child, 1);
        cell.attached();
        assert!(cell.attach().is_empty() && cell.clone_into().is_none());
        cell.kill().unwrap();
        assert!(ends(&mut child));
        child.wait().unwrap();
        assert!(removed(&cell));
        assert!(runtime.remove().unwrap());
        assert!(runtime.directories().iter().all(|dir| !dir.exists()));
        host.remove_base().unwrap();
        assert!(host.bases().iter().all(|base| !base.exists()));
        // And again with nothing there.
        host.remove_base().unwrap();
    }
}

#[test]
fn a_cell_that_could_not_be_made_leaves_nothing() {
    for host in hosts("half") {
        let runtime = host.prepared().runtime("r", &RUNTIME).unwrap();
        let first = runtime.cell("c", &CELL).unwrap();
        let twice = runtime.cell("c", &CELL);
        assert!(
            matches!(
                twice,
                Err(CgroupError::Io {
                    operation: "create",
                    ..
                })
            ),
            "{twice:?}"
        );
        assert!(
            first.directories().iter().all(|dir| dir.exists()),
            "the first one was touched"
        );
        // One of its hierarchies refuses: what was made in the others goes away.
        let last = first.directories().last().unwrap().with_file_name("d");
        fs::create_dir(&last).unwrap();
        runtime.cell("d", &CELL).unwrap_err();
        for dir in first
            .directories()
            .iter()
            .map(|dir| dir.with_file_name("d"))
        {
            assert_eq!(dir.exists(), dir == last, "{dir:?}");
        }
        assert!(matches!(
            runtime.cell("../d", &CELL),
            Err(CgroupError::Name { .. })
        ));
    }
}

#[test]
fn a_new_server_clears_what_an_earlier_one_left() {
    for host in hosts("sweep") {
        let runtime = host.prepared().runtime("old", &RUNTIME).unwrap();
        let cell = runtime.cell("c", &CELL).unwrap();
        let mut child = run(&cell, TREE);
        until_lines(&mut child, 4);
        runtime.freeze().unwrap();
        let later = host.again();
        later.prepare().unwrap();
        assert!(ends(&mut child));
        child.wait().unwrap();
        assert!(cell.directories().iter().all(|dir| !dir.exists()));
        assert!(runtime.directories().iter().all(|dir| !dir.exists()));
        assert!(later.bases().iter().all(|base| base.exists()));
        later.runtime("new", &RUNTIME).unwrap();
    }
}

/// What callers of `freeze` do.
fn until_frozen(runtime: &RuntimeGroup) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if runtime.is_frozen().unwrap() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

#[test]
fn a_process_that_joins_a_frozen_cell_stands_still() {
    for host in hosts("late") {
        let runtime = host.prepared().runtime("r", &RUNTIME).unwrap();
        let cell = runtime.cell("c", &CELL).unwrap();
        runtime.freeze().unwrap();
        assert!(until_frozen(&runtime));
        let mut child = run(&cell, "echo on; while :; do :; done");
        // It may take a moment to join; then it is as still as the others.
        let stops = |dir: &&PathBuf| {
            dir.join("cgroup.freeze").exists() || dir.join("freezer.state").exists()
        };
        let dir = cell.directories().iter().find(stops).unwrap();
        let joined = || fs::read_to_string(dir.join("cgroup.procs")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while joined().is_empty() {
            assert!(Instant::now() < deadline, "it does not join");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(until_frozen(&runtime));
        let before = cell.cpu_us().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(cell.cpu_us().unwrap(), before, "it runs");
        runtime.thaw().unwrap();
        until_lines(&mut child, 1);
        cell.kill().unwrap();
        assert!(ends(&mut child));
        child.wait().unwrap();
    }
}

#[test]
fn a_cell_that_is_let_go_on_to_die_is_not_frozen_again() {
    for host in hosts("dying") {
        // Version 2 kills what is frozen.
        if host.mode() != Mode::V1 {
            continue;
        }
        let runtime = host.prepared().runtime("r", &RUNTIME).unwrap();
        let cell = runtime.cell("c", &CELL).unwrap();
        let mut child = run(&cell, "echo on; while :; do :; done");
        until_lines(&mut child, 1);
        runtime.freeze().unwrap();
        assert!(until_frozen(&runtime));
        let state = |dir: &&PathBuf| dir.join("freezer.state").exists();
        let dir = cell.directories().iter().find(state).unwrap();
        // The last thing that a kill does.
        fs::write(dir.join("freezer.state"), "THAWED").unwrap();
        assert!(!runtime.is_frozen().unwrap());
        let state = fs::read_to_string(dir.join("freezer.state")).unwrap();
        assert_eq!(state.trim(), "THAWED");
        cell.kill().unwrap();
        assert!(ends(&mut child));
        child.wait().unwrap();
    }
}

#[test]
fn a_runtime_that_comes_back_to_a_frozen_group_is_thawed() {
    for host in hosts("again") {
        let runtime = host.prepared().runtime("r", &RUNTIME).unwrap();
        runtime.freeze().unwrap();
        let runtime = host.runtime("r", &RUNTIME).unwrap();
        let cell = runtime.cell("c", &CELL).unwrap();
        let mut child = run(&cell, "echo on");
        until_lines(&mut child, 1);
        assert!(ends(&mut child));
        child.wait().unwrap();
    }
}
