//! The mounts of a cell: nothing of the host but what was meant, nothing that can be changed from inside.

use crate::needs;
use crate::support::{runtime, runtime_with, together};
use serde_json::json;

#[test]
fn the_mount_table_can_be_neither_added_to_nor_taken_from() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for line in [
        "mount -t tmpfs x /tmp",
        "mount --bind / /tmp",
        "mount -o remount,rw /usr",
        "umount /usr",
        "umount -l /dev/shm",
        "umount -l /",
        "chroot / true",
        "pivot_root / /tmp",
        "unshare -m true",
        "nsenter -t 1 -m true",
    ] {
        let exec = runtime.sh(line);
        exec.assert_failed();
        assert!(exec.code() != 127, "{line} was not even tried: {exec:?}");
    }
}

#[test]
fn every_mount_denies_setuid() {
    needs!(Root);
    let _turn = together();
    let exec = runtime().sh("cat /proc/self/mountinfo");
    for mount in crate::support::mounts::parse(exec.stdout()) {
        assert!(mount.options.contains("nosuid"), "{mount:?}");
    }
}

#[test]
fn the_hosts_usr_is_read_only() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for line in [
        "touch /usr/x",
        "touch /usr/bin/x",
        "chmod 777 /usr/bin/env",
        "mv /usr/bin/env /tmp",
        "echo x > /bin/sh",
    ] {
        runtime.sh(line).assert_failed();
    }
    assert!(!std::path::Path::new("/usr/x").exists());
}

#[test]
fn what_root_only_may_read_under_usr_stays_unreadable() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let exec = runtime.sh("find /usr -xdev ! -readable -type f 2>/dev/null | head -1");
    // Not every machine has such a file; where there is one, it is refused. The ids behind it are nobody's inside.
    if let Some(file) = exec.lines().first() {
        runtime.sh(&format!("cat '{file}'")).assert_failed();
    }
    runtime
        .sh("stat -c %u /usr/bin/env")
        .assert_stdout("65534\n");
}

#[test]
fn no_path_of_the_host_shows_in_the_mount_table() {
    needs!(Root);
    let _turn = together();
    let exec = runtime().sh("cat /proc/self/mountinfo /proc/mounts");
    let data = crate::support::server().data_dir().display().to_string();
    assert!(
        !exec.stdout().contains(&data),
        "the data directory shows: {exec:?}"
    );
}

#[test]
fn propagation_is_cut_in_both_directions() {
    needs!(Root);
    let _turn = together();
    let exec = runtime().sh("cat /proc/self/mountinfo");
    for line in exec.lines() {
        assert!(!line.contains("shared:"), "{line}");
    }
}

#[test]
fn a_read_only_runtime_is_read_only_but_for_tmp() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({"filesystem": "read_only"}));
    for dir in ["/", "/root", "/etc", "/usr", "/var"] {
        runtime
            .sh(&format!("mkdir -p {dir} && touch {dir}/x"))
            .assert_failed();
    }
    runtime
        .sh("echo x > /tmp/x && cat /tmp/x; echo y > /dev/shm/y && cat /dev/shm/y")
        .assert_stdout("x\ny\n");
    runtime
        .sh("ls -A /tmp /dev/shm | grep -v :")
        .assert_stdout("\n");
}
