//! /dev holds what programs need and nothing of the host.

use crate::needs;
use crate::support::{mounts, runtime, together};
use std::path::Path;

const LISTED: &str = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero";

#[test]
fn dev_holds_exactly_the_promised_names() {
    needs!(Root);
    let _turn = together();
    let exec = runtime().sh("ls -A /dev");
    assert_eq!(exec.lines().join(" "), LISTED);
}

#[test]
fn devices_do_what_they_should() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime
        .sh(
            "echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 8 /dev/urandom | wc -c; \
                echo x > /dev/full || echo full",
        )
        .assert_stdout("3\n8\nfull\n");
    runtime
        .sh("test -c /dev/ptmx -o -L /dev/ptmx; ls -A /dev/pts")
        .assert_stdout("ptmx\n");
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
