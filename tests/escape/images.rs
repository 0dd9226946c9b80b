//! Images whose directories are traps: every place where a cell mounts something is a link to a directory of the host.

use crate::needs;
use crate::support::mounts::TestDir;
use crate::support::{Runtime, api, image, server, together};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Names and contents below a directory.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("list the canary").flatten() {
        let path = entry.path();
        if entry.file_type().expect("a type").is_dir() {
            found.extend(contents(&path));
        }
        found.insert(path.clone(), fs::read(&path).unwrap_or_default());
    }
    found
}

/// A rootfs with one trap, tried in every kind of runtime; the canary must be as it was and stay unreadable.
fn try_trap(name: &str, trap: impl Fn(&Path, &Path)) {
    let dir = TestDir::new();
    let (rootfs, canary) = (dir.path().join("rootfs"), dir.path().join("canary"));
    fs::create_dir_all(canary.join("shm")).expect("make the canary");
    fs::write(canary.join("null"), "the host's secret").expect("write the canary");
    fs::write(canary.join("kcore"), "the host's secret").expect("write the canary");
    let before = contents(&canary);
    image::rootfs(&rootfs);
    trap(&rootfs, &canary);
    // Refused here, at create or at exec, or made harmless: all are fine.
    if image::add(server(), name, &rootfs).is_ok() {
        for filesystem in ["persistent", "ephemeral", "read_only"] {
            let reply = api().post(
                "/v1/runtimes",
                &json!({"image": name, "filesystem": filesystem}),
            );
            if reply.status != 200 {
                assert!(
                    (400..500).contains(&reply.status),
                    "{name}: {}",
                    reply.text()
                );
                continue;
            }
            let id = reply.json()["data"]["id"]
                .as_str()
                .expect("an id")
                .to_owned();
            let line = "cat /dev/null /dev/kcore /proc/kcore /etc/null /sys/null /tmp/null; \
                        echo written > /dev/x; echo written > /dev/null; echo written > /tmp/x; \
                        echo written > /dev/shm/x; echo written > /etc/x; ls -R /dev /etc /sys /tmp";
            let path = format!("/v1/runtimes/{id}/exec");
            let body = json!({"command": "sh", "args": ["-c", line], "timeout_secs": 5});
            let exec = api().post(&path, &body);
            assert!(
                !exec.text().contains("the host's secret"),
                "{name}, {filesystem}: {}",
                exec.text()
            );
            api().delete(&format!("/v1/runtimes/{id}")).data(200);
        }
    }
    assert_eq!(
        contents(&canary),
        before,
        "{name}: the host's directory was written to"
    );
}

fn replace_with_link(path: &Path, target: &Path) {
    let _ = fs::remove_dir_all(path);
    symlink(target, path).expect("make a link");
}

#[test]
fn a_link_for_dev_reaches_nothing() {
    needs!(Root);
    let _turn = together();
    try_trap("trap-dev", |rootfs, canary| {
        replace_with_link(&rootfs.join("dev"), canary)
    });
}

#[test]
fn a_link_for_proc_reaches_nothing() {
    needs!(Root);
    let _turn = together();
    try_trap("trap-proc", |rootfs, canary| {
        replace_with_link(&rootfs.join("proc"), canary)
    });
}

#[test]
fn a_link_for_tmp_reaches_nothing() {
    needs!(Root);
    let _turn = together();
    try_trap("trap-tmp", |rootfs, canary| {
        replace_with_link(&rootfs.join("tmp"), canary)
    });
}

#[test]
fn a_link_for_sys_or_etc_reaches_nothing() {
    needs!(Root);
    let _turn = together();
    try_trap("trap-sys", |rootfs, canary| {
        replace_with_link(&rootfs.join("sys"), canary)
    });
    try_trap("trap-etc", |rootfs, canary| {
        replace_with_link(&rootfs.join("etc"), canary)
    });
}

#[test]
fn links_inside_dev_reach_nothing() {
    needs!(Root);
    let _turn = together();
    try_trap("trap-null", |rootfs, canary| {
        symlink(canary.join("null"), rootfs.join("dev/null")).expect("make a link");
        symlink(canary.join("shm"), rootfs.join("dev/shm")).expect("make a link");
        symlink(canary, rootfs.join("dev/pts")).expect("make a link");
    });
}

#[test]
fn a_file_where_a_directory_should_be_is_harmless() {
    needs!(Root);
    let _turn = together();
    try_trap("trap-file", |rootfs, _| {
        fs::remove_dir_all(rootfs.join("dev")).expect("remove dev");
        fs::write(rootfs.join("dev"), "no directory").expect("write a file");
    });
}

#[test]
fn an_ordinary_directory_works_as_an_image_and_is_never_written_to() {
    needs!(Root);
    let _turn = together();
    let dir = TestDir::new();
    let rootfs = dir.path().join("rootfs");
    image::rootfs(&rootfs);
    let before = contents(&rootfs);
    image::add(server(), "plain-dir", &rootfs).expect("add the image");
    for filesystem in ["persistent", "ephemeral"] {
        let body = json!({"image": "plain-dir", "filesystem": filesystem});
        let runtime = Runtime::create(api(), &body);
        assert_eq!(runtime.object["image"], "plain-dir");
        runtime
            .sh("echo changed > /etc/passwd; echo new > /bin/new; cat /bin/new")
            .assert_stdout("new\n");
        runtime
            .exec(&json!({"command": "ls", "args": ["/"]}))
            .assert_code(0);
    }
    assert_eq!(contents(&rootfs), before, "the image was written to");
}

#[test]
fn images_that_are_no_directory_or_badly_named_are_refused() {
    needs!(Root);
    let _turn = together();
    let dir = TestDir::new();
    let file = dir.path().join("file");
    fs::write(&file, "").expect("write a file");
    for (name, path) in [
        ("a-file", file.as_path()),
        ("missing", &dir.path().join("missing")),
        ("../up", dir.path()),
        ("", dir.path()),
        ("a b", dir.path()),
        ("host", dir.path()),
    ] {
        let refused = image::add(server(), name, path).expect_err("it was taken");
        assert!(!refused.trim().is_empty(), "{name}: refused without a word");
        assert!(!refused.contains("panicked"), "{refused}");
    }
}
