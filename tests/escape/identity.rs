//! Who the payload is: no capability, no foreign id, no way up.

use crate::needs;
use crate::support::probe::Probe;
use crate::support::procs::{self, status_value};
use crate::support::{image, runtime, runtime_with, server, together};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

#[test]
fn every_capability_set_is_empty() {
    needs!(Root);
    let _turn = together();
    for body in [json!({}), json!({"profile": "strict"})] {
        let status = runtime_with(body).sh("cat /proc/self/status");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let value = status_value(status.stdout(), set).unwrap_or_default();
            assert_eq!(value, "0000000000000000", "{set}");
        }
    }
}

#[test]
fn init_keeps_the_right_to_signal_and_nothing_else() {
    needs!(Root);
    let _turn = together();
    runtime().while_sleeping(|pid| {
        let init = procs::parent(pid).expect("a parent");
        assert_eq!(procs::status(init, "Name").as_deref(), Some("init"));
        let caps = |set: &str| procs::status(init, set).expect("a set");
        // CAP_KILL is bit 5 (linux/capability.h).
        for set in ["CapPrm", "CapEff"] {
            assert_eq!(caps(set), "0000000000000020", "{set}");
        }
        for set in ["CapInh", "CapBnd", "CapAmb"] {
            assert_eq!(caps(set), "0000000000000000", "{set}");
        }
        assert_eq!(caps("NoNewPrivs"), "1");
        assert_ne!(
            procs::uid(init),
            procs::uid(pid),
            "a command can't signal it"
        );
        let ns = |pid| std::fs::read_link(format!("/proc/{pid}/ns/user")).expect("a namespace");
        assert_eq!(
            ns(init),
            ns(pid),
            "its right is one in the cell's own namespace"
        );
        let mut open: Vec<String> = std::fs::read_dir(format!("/proc/{init}/fd"))
            .expect("list its descriptors")
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .map(|link| link.to_string_lossy().into_owned())
            .collect();
        open.sort();
        let kinds = [
            "anon_inode:[signalfd]",
            "anon_inode:seccomp notify",
            "socket:",
        ];
        assert_eq!(open.len(), kinds.len(), "{open:?}");
        assert!(
            open.iter()
                .zip(kinds)
                .all(|(fd, kind)| fd.starts_with(kind)),
            "{open:?}"
        );
    });
}

#[test]
fn ids_inside_are_roots_and_outside_nobodys() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime.sh("id -u; id -g; id -G").assert_stdout("0\n0\n0\n");
    let status = runtime.sh("cat /proc/self/status");
    let value = |key| status_value(status.stdout(), key).unwrap_or_default();
    assert_eq!(value("Uid"), "0\t0\t0\t0");
    assert_eq!(value("Gid"), "0\t0\t0\t0");
    assert_eq!(value("Groups"), "", "no group of the server is kept");
    runtime.while_sleeping(|pid| {
        for key in ["Uid", "Gid"] {
            let line = procs::status(pid, key).expect("ids");
            let ids: Vec<u32> = line
                .split_whitespace()
                .filter_map(|id| id.parse().ok())
                .collect();
            assert!(
                ids.len() == 4 && ids.iter().all(|id| *id >= 65_536),
                "{key}: {line}"
            );
        }
        assert_eq!(procs::status(pid, "Groups").as_deref(), Some(""));
    });
}

#[test]
fn the_strict_profile_is_not_even_root_inside() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({"profile": "strict"}));
    runtime
        .sh("id -u; id -g; pwd; echo $HOME")
        .assert_stdout("1000\n1000\n/home/user\n/home/user\n");
}

#[test]
fn two_runtimes_never_share_a_host_uid() {
    needs!(Root);
    let _turn = together();
    let (first, second) = (runtime().host_uids(), runtime().host_uids());
    assert!(
        first.end <= second.start || second.end <= first.start,
        "{first:?} {second:?}"
    );
    let api = procs::uid(server().api_pid()).expect("the api's uid");
    assert!(
        !first.contains(&0) && !first.contains(&api),
        "{first:?} has {api}"
    );
    assert!(
        !second.contains(&0) && !second.contains(&api),
        "{second:?} has {api}"
    );
}

#[test]
fn a_setuid_copy_gives_nothing() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    // As root inside, a setuid copy owned by root; used by nobody else, but its bit must not even count.
    runtime
        .sh("cp /usr/bin/id /root/id && chmod 4755 /root/id && /root/id -u")
        .assert_stdout("0\n");
    runtime.sh("su nobody -s /bin/sh -c true").assert_failed();
    runtime.sh("chown 5:5 /root/id").assert_failed();
}

#[test]
fn a_setuid_root_program_of_an_image_does_not_lift_a_strict_user() {
    needs!(Root);
    let _turn = together();
    let dir = crate::support::mounts::TestDir::new();
    let rootfs = dir.path().join("rootfs");
    image::rootfs(&rootfs);
    let id = rootfs.join("bin/suid-id");
    std::fs::copy("/usr/bin/id", &id).expect("copy id");
    std::fs::set_permissions(&id, std::fs::Permissions::from_mode(0o6755)).expect("chmod");
    image::add(server(), "with-setuid", &rootfs).expect("add the image");
    let runtime = runtime_with(json!({"image": "with-setuid", "profile": "strict"}));
    runtime
        .exec(&json!({"command": "/bin/suid-id", "args": ["-u"]}))
        .assert_stdout("1000\n");
    runtime
        .exec(&json!({"command": "/bin/suid-id", "args": ["-g"]}))
        .assert_stdout("1000\n");
}

#[test]
fn signals_umask_and_session_are_fresh() {
    needs!(Root);
    let _turn = together();
    let exec = Probe::in_runtime(runtime()).run(&["signals"]);
    exec.assert_stdout("0 0000000000000000 0022 true\n");
}

#[test]
fn pid_1_cannot_be_killed_traced_or_read() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime
        .sh("kill -9 1; kill -STOP 1; sleep 0.1; echo alive")
        .assert_code(0);
    for file in [
        "environ",
        "mem",
        "maps",
        "exe",
        "root/etc/passwd",
        "cwd/etc/passwd",
        "fd/0",
        "auxv",
    ] {
        let exec = runtime.sh(&format!("cat /proc/1/{file}"));
        exec.assert_failed();
        assert_eq!(exec.stdout(), "", "/proc/1/{file}");
    }
    runtime.sh("ls /proc/1/fd").assert_failed();
    runtime.sh("readlink /proc/1/exe").assert_failed();
    runtime
        .sh("test $$ -gt 1 && test -d /proc/1")
        .assert_code(0);
}
