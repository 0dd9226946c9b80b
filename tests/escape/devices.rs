//! /dev holds what programs need and nothing of the host.

use crate::needs;
use crate::support::{mounts, runtime, runtime_with, together};
use serde_json::json;
use std::path::Path;

const LISTED: &str = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero";

/// In two of them cells share what is below the mounts of their own.
const FILESYSTEMS: [&str; 3] = ["persistent", "read_only", "ephemeral"];

#[test]
fn dev_holds_exactly_the_promised_names() {
    needs!(Root);
    let _turn = together();
    for filesystem in FILESYSTEMS {
        let runtime = runtime_with(json!({"filesystem": filesystem}));
        let exec = runtime.sh("ls -A /dev");
        assert_eq!(exec.lines().join(" "), LISTED, "{filesystem}");
    }
}

#[test]
fn devices_do_what_they_should() {
    needs!(Root);
    let _turn = together();
    for filesystem in FILESYSTEMS {
        let runtime = runtime_with(json!({"filesystem": filesystem}));
        runtime
            .sh(
                "echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 8 /dev/urandom | wc -c; \
                    echo x > /dev/full || echo full",
            )
            .assert_stdout("3\n8\nfull\n");
        runtime
            .sh("test -c /dev/ptmx -o -L /dev/ptmx; ls -A /dev/pts")
            .assert_stdout("ptmx\n");
        runtime
            .sh("stat -c '%a %t:%T' /dev/null /dev/tty /proc/kallsyms; stat -c '%a %F' /proc/irq")
            .assert_stdout("666 1:3\n666 5:0\n666 1:3\n755 directory\n");
    }
}

#[test]
fn nothing_of_dev_can_be_changed_for_the_next_command() {
    needs!(Root);
    let _turn = together();
    for filesystem in FILESYSTEMS {
        let runtime = runtime_with(json!({"filesystem": filesystem}));
        for line in [
            "chmod 600 /dev/null",
            "rm -f /dev/null",
            "ln -s /proc/kcore /dev/more",
            "mv /dev/zero /dev/null",
            "rmdir /dev/pts",
            "mv /dev /other",
            "rm -rf /dev",
            "touch -d @1 /dev/null",
            "chmod 777 /proc/irq",
            "touch /proc/irq/file",
        ] {
            runtime.sh(line).assert_failed();
        }
        let exec = runtime.sh("ls -A /dev; stat -c %a /dev/null");
        let names = [LISTED, "666"].join(" ");
        assert_eq!(exec.lines().join(" "), names, "{filesystem}");
    }
}

#[test]
fn device_nodes_cannot_be_made() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for place in ["/tmp", "/root", "/dev", "/dev/shm"] {
        // The host's memory, its first disk, and null, which would be harmless.
        for node in ["c 1 1", "b 8 0", "b 254 0", "c 1 3"] {
            let exec = runtime.sh(&format!("mknod {place}/node {node}"));
            exec.assert_failed();
            let error = exec.stderr();
            assert!(
                error.contains("not permitted")
                    || error.contains("Permission denied")
                    || error.contains("Read-only"),
                "{place} {node}: {exec:?}"
            );
        }
    }
}

#[test]
fn device_nodes_of_the_writable_layer_would_not_open() {
    needs!(Root);
    let _turn = together();
    let exec = runtime().sh("cat /proc/self/mountinfo");
    let mounts = mounts::parse(exec.stdout());
    for point in ["/", "/usr", "/dev/shm"] {
        let mount = mounts
            .iter()
            .rev()
            .find(|mount| mount.point == Path::new(point));
        let mount = mount.unwrap_or_else(|| panic!("{point} is no mount: {exec:?}"));
        let options: Vec<&str> = mount.options.split(',').collect();
        assert!(options.contains(&"nodev"), "{mount:?}");
    }
}

#[test]
fn the_terminal_of_the_server_is_not_reachable() {
    needs!(Root);
    let _turn = together();
    runtime().sh("echo x > /dev/tty").assert_failed();
}
