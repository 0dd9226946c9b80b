//! What is to be had by a proper request: cells, and in them no more than any tenant has.

use crate::commands::range_of;
use crate::needs;
use crate::raw::Raw;
use crate::requests::{create, exec, shell};
use crate::support::{procs, together};
use cellblock::warden::protocol::{CellEnd, Filesystem, Reply};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use uuid::Uuid;

/// Asserts that a process has what a command has: an id of its runtime's, no capability, filters, namespaces of its own.
#[track_caller]
fn assert_confined(raw: &Raw, runtime: Uuid, pid: u32) {
    let value = |key| procs::status(pid, key).unwrap_or_default();
    let range = range_of(raw, runtime);
    for key in ["Uid", "Gid"] {
        for id in value(key).split_whitespace() {
            let id: u32 = id.parse().expect("a number");
            assert!(range.contains(&id), "{key} {id} is not in {range:?}");
        }
    }
    assert_eq!(value("Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(value(set), "0000000000000000", "{set}");
    }
    assert_eq!(
        (value("NoNewPrivs"), value("Seccomp")),
        ("1".into(), "2".into())
    );
    for of in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let link = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{of}")).expect("its namespace");
        assert_ne!(link(pid), link(raw.pid), "the host's {of} namespace");
    }
    assert_eq!(procs::uid_ranges(pid), [range]);
    let root = fs::metadata(format!("/proc/{pid}/root/")).expect("its root");
    let host = fs::metadata("/").expect("the host's");
    assert_ne!((root.dev(), root.ino()), (host.dev(), host.ino()));
}

#[test]
fn a_command_asked_for_in_the_raw_protocol_has_no_more_than_any_other() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    for (filesystem, profile) in [
        (Filesystem::Persistent, "default"),
        (Filesystem::Ephemeral, "default"),
        (Filesystem::ReadOnly, "strict"),
    ] {
        let id = Uuid::now_v7();
        let mut make = create(id, filesystem);
        make["spec"]["profile"] = json!(profile);
        let reply = raw.ask(make, &[]);
        assert!(matches!(reply, Reply::Created { .. }), "{reply:?}");
        for terminal in [Value::Null, json!({"rows": 65535, "cols": 65535})] {
            let mut run = exec(id);
            run["terminal"] = terminal;
            let sleeper = raw.sleeper(run);
            assert_confined(&raw, id, sleeper.pid);
            raw.kill(sleeper.seq);
            raw.reply(sleeper.seq);
        }
        raw.delete(id);
    }
    raw.assert_well("cells");
}

/// The environment and the arguments are whoever asks' to choose, and no program is run with them that has a right.
#[test]
fn variables_for_the_loader_reach_nobody_who_has_a_right() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let mut order = shell(
        "/",
        "cat /proc/self/status; cat /proc/1/environ; ls -l /proc/self/fd",
    );
    let secret = raw.host().join("secret").display().to_string();
    for name in [
        "LD_PRELOAD",
        "LD_AUDIT",
        "LD_LIBRARY_PATH",
        "GCONV_PATH",
        "ENV",
        "BASH_ENV",
    ] {
        order.env.push((name.to_owned(), secret.clone()));
    }
    let ran = raw.run(exec(raw.runtime), &order.encode());
    let text = ran.text();
    assert!(text.contains("CapEff:\t0000000000000000"), "{text}");
    assert!(!text.contains(crate::state::SECRET), "{text}");
    assert!(matches!(ran.end, CellEnd::Exited(_)), "{:?}", ran.end);
    raw.assert_well("variables for the loader");
}

/// One runtime's cells see nothing of another's, whoever asks for both.
#[test]
fn two_runtimes_share_no_id_and_no_file() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
    raw.create(one, Filesystem::Persistent);
    raw.create(other, Filesystem::Persistent);
    let (a, b) = (range_of(&raw, one), range_of(&raw, other));
    assert!(a.end <= b.start || b.end <= a.start, "{a:?} {b:?}");
    assert!(!a.contains(&0) && !b.contains(&0));
    let run = |runtime, line: &str| {
        let ran = raw.sh(runtime, line);
        let said = String::from_utf8_lossy(&ran.err);
        assert_eq!(ran.end, CellEnd::Exited(0), "{line}: {said}");
        ran.text()
    };
    let line = "mkdir /own && echo mine > /own/file && chmod -R 777 /own";
    run(one, line);
    assert_eq!(run(one, "cat /own/file"), "mine\n");
    let line = "ls /own; find / -xdev -name file -path '*own*'; echo looked";
    assert_eq!(run(other, line), "looked\n");
    for id in [one, other] {
        raw.delete(id);
    }
    raw.assert_well("two runtimes");
}
