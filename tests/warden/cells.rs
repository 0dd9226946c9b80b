//! What is to be had by a proper request: cells, and in them no more than any tenant has.

use crate::needs;
use crate::raw::{Raw, create, exec, range_of, shell};
use crate::support::{alone, bound, eventually, procs};
use cellblock::warden::memfd;
use cellblock::warden::protocol::{CellEnd, Filesystem, Reply};
use serde_json::{Value, json};
use std::fs;
use std::os::fd::AsFd;
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
    let _turn = alone();
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
            let marker = procs::marker();
            let order = shell("/", &format!("exec sleep {marker}")).encode();
            let order = memfd::seal(c"command", &order).expect("a memfd");
            let mut run = exec(id);
            run["terminal"] = terminal;
            let seq = raw.send_json(run, &[order.as_fd()]);
            let (reply, pipes) = raw.reply(seq);
            assert_eq!(reply, Reply::Started { seq });
            let found = || procs::with_arg(&marker);
            assert!(eventually(bound(10_000), || found().len() == 1));
            assert_confined(&raw, id, found()[0]);
            raw.send(
                json!({"type": "kill", "seq": seq}).to_string().as_bytes(),
                &[],
            );
            raw.reply(seq);
            drop(pipes);
        }
        let reply = raw.ask(json!({"type": "delete_runtime", "id": id}), &[]);
        assert!(matches!(reply, Reply::Done { .. }), "{reply:?}");
    }
    raw.assert_well("cells");
}

/// The environment and the arguments are whoever asks' to choose, and no program is run with them that has a right.
#[test]
fn variables_for_the_loader_reach_nobody_who_has_a_right() {
    needs!(Root);
    let _turn = alone();
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
    assert!(!text.contains(crate::raw::SECRET), "{text}");
    assert!(matches!(ran.end, CellEnd::Exited(_)), "{:?}", ran.end);
    raw.assert_well("variables for the loader");
}

/// One runtime's cells see nothing of another's, whoever asks for both.
#[test]
fn two_runtimes_share_no_id_and_no_file() {
    needs!(Root);
    let _turn = alone();
    let raw = Raw::start();
    let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
    raw.create(one, Filesystem::Persistent);
    raw.create(other, Filesystem::Persistent);
    let (a, b) = (range_of(&raw, one), range_of(&raw, other));
    assert!(a.end <= b.start || b.end <= a.start, "{a:?} {b:?}");
    assert!(!a.contains(&0) && !b.contains(&0));
    raw.sh(
        one,
        "mkdir /own && echo mine > /own/file && chmod -R 777 /own",
    );
    let found = raw.sh(other, "ls /own; find / -xdev -name file -path '*own*'");
    assert_eq!(found.text(), "");
    for id in [one, other] {
        let reply = raw.ask(json!({"type": "delete_runtime", "id": id}), &[]);
        assert!(matches!(reply, Reply::Done { .. }), "{reply:?}");
    }
    raw.assert_well("two runtimes");
}
