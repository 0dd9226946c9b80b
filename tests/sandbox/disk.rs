//! Filling the disk: blocks and inodes, inside the limit and not beyond.

use crate::needs;
use crate::support::{runtime, runtime_with, server, together};
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes that a tree takes on the host's disk.
fn on_disk(path: &Path) -> u64 {
    let meta = std::fs::symlink_metadata(path).expect("look at a file");
    let own = meta.blocks() * 512;
    match meta.is_dir() {
        true => {
            std::fs::read_dir(path)
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| on_disk(&e.path()))
                .sum::<u64>()
                + own
        }
        false => own,
    }
}

#[test]
fn a_full_disk_is_the_tenants_own() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({"limits": {"disk_mib": 64}}));
    let exec = runtime.sh("dd if=/dev/zero of=/root/big bs=1M count=512 2>&1");
    exec.assert_failed();
    assert!(exec.stdout().contains("No space left"), "{exec:?}");
    let size = runtime
        .sh("stat -c %s /root/big")
        .stdout()
        .trim()
        .parse::<u64>()
        .expect("a size");
    assert!(
        (32 << 20..=64 << 20).contains(&size),
        "{size} bytes of 64 MiB"
    );
    let used = on_disk(&server().data_dir().join("runtimes").join(&runtime.id));
    assert!(used <= 72 << 20, "{used} bytes on the host");
    runtime
        .sh("head -c 2M /dev/zero > /tmp/more")
        .assert_failed();
    runtime
        .sh("rm /root/big; echo fits > /tmp/more; cat /tmp/more")
        .assert_stdout("fits\n");
    crate::support::runtime()
        .sh("dd if=/dev/zero of=/root/x bs=1M count=8")
        .assert_code(0);
}

#[test]
fn running_out_of_inodes_is_the_tenants_own() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({"limits": {"disk_mib": 32}}));
    let line = "mkdir /root/many; cd /root/many; i=0; while : > f$i; do i=$((i+1)); \
                [ $i -lt 1000000 ] || exit 9; done; exit 3";
    let exec = runtime.sh_with(line, json!({"timeout_secs": 60}));
    assert!(
        exec.stderr().contains("No space left") || exec.stderr().contains("Cannot create"),
        "{exec:?}"
    );
    assert_ne!(exec.code(), 9, "a million files in 32 MiB");
    runtime
        .sh("rm -r /root/many; echo fits > /root/x; cat /root/x")
        .assert_stdout("fits\n");
}

#[test]
fn an_ephemeral_layer_has_the_same_limit() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({
        "filesystem": "ephemeral", "limits": {"disk_mib": 32},
        "resources": {"limits": {"memory_mib": 512}},
    }));
    let exec = runtime.sh("dd if=/dev/zero of=/root/big bs=1M count=256 2>&1");
    assert!(exec.stdout().contains("No space left"), "{exec:?}");
    runtime.sh("ls /root/big").assert_failed();
}

#[test]
fn a_sparse_file_does_not_lie_its_way_past() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({"limits": {"disk_mib": 32}}));
    runtime.sh("truncate -s 1T /root/sparse; true");
    runtime.sh("fallocate -l 1G /root/real").assert_failed();
    let used = on_disk(&server().data_dir().join("runtimes").join(&runtime.id));
    assert!(used <= 40 << 20, "{used} bytes on the host");
}

#[test]
fn the_disk_is_sized_from_the_request() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    assert!(
        runtime.object["limits"]["disk_mib"]
            .as_u64()
            .is_some_and(|mib| mib > 0)
    );
    let large = runtime_with(json!({"limits": {"disk_mib": 200}}));
    let exec = large.sh("dd if=/dev/zero of=/root/x bs=1M count=150 2>&1");
    exec.assert_code(0);
    assert_eq!(large.object["limits"]["disk_mib"], 200);
}
