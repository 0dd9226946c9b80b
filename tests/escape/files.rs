//! Files of the host, from inside.

use crate::needs;
use crate::support::mounts::TestDir;
use crate::support::{Runtime, api, runtime, server, together};

#[test]
fn cannot_read_host_shadow() {
    needs!(Root);
    let _turn = together();
    let shadow = std::fs::read_to_string("/etc/shadow").expect("the host's shadow file");
    let first = shadow.lines().next().expect("a line of it");
    let runtime = runtime();
    for path in [
        "/etc/shadow",
        "/../etc/shadow",
        "/proc/1/root/etc/shadow",
        "/proc/self/root/etc/shadow",
        "/proc/self/cwd/../../etc/shadow",
    ] {
        let exec = runtime.sh(&format!("cat {path}"));
        assert!(!exec.stdout().contains(first), "{path}");
    }
}

#[test]
fn cannot_see_host_directories() {
    needs!(Root);
    let _turn = together();
    let canary = TestDir::new();
    let secret = canary.path().join("secret");
    std::fs::write(&secret, "the host's").expect("write a canary");
    let runtime = runtime();
    for path in [
        secret.display().to_string(),
        server().data_dir().display().to_string(),
        env!("CARGO_MANIFEST_DIR").to_owned(),
    ] {
        runtime.sh(&format!("ls '{path}'")).assert_failed();
    }
    runtime.sh("ls -A /home /opt /mnt /media /boot 2>/dev/null | grep -v ':$' | grep -v '^user$' | grep .").assert_code(1);
    runtime.sh("ls -A /root").assert_stdout("");
}

#[test]
fn the_made_up_etc_names_nobody_of_the_host() {
    needs!(Root);
    let _turn = together();
    let exec = runtime().sh("cat /etc/passwd /etc/group /etc/hosts");
    exec.assert_code(0);
    let passwd = std::fs::read_to_string("/etc/passwd").expect("the host's passwd");
    let people = passwd.lines().filter(|line| {
        let id: u32 = line
            .split(':')
            .nth(2)
            .and_then(|id| id.parse().ok())
            .unwrap_or(0);
        (1000..60_000).contains(&id)
    });
    for person in people {
        assert!(!exec.lines().contains(&person), "{person}");
    }
}

#[test]
fn deleting_a_runtime_removes_its_links_and_not_what_they_name() {
    needs!(Root);
    let _turn = together();
    let canary = TestDir::new();
    std::fs::write(canary.path().join("kept"), "the host's").expect("write a canary");
    let runtime = runtime();
    let line = format!(
        "ln -s / /root/all; ln -s '{}' /root/canary; mkdir -p '/root{0}'; ln -s ../../../../../../../.. /root/up",
        canary.path().display()
    );
    runtime.sh(&line).assert_code(0);
    api()
        .delete(&format!("/v1/runtimes/{}", runtime.id))
        .data(200);
    let kept = std::fs::read_to_string(canary.path().join("kept"));
    assert_eq!(kept.ok().as_deref(), Some("the host's"));
    assert!(std::path::Path::new("/etc/passwd").exists());
}

#[test]
fn one_runtimes_files_are_unreadable_to_another_even_by_uid() {
    needs!(Root);
    let _turn = together();
    let (mine, theirs) = (runtime(), runtime());
    mine.sh("umask 077; echo secret > /root/secret")
        .assert_code(0);
    theirs.sh("cat /root/secret").assert_failed();
    let owner = |runtime: &Runtime| {
        runtime.while_sleeping(|pid| crate::support::procs::uid(pid).expect("a uid"))
    };
    let (mine_uid, theirs_uid) = (owner(&mine), owner(&theirs));
    assert_ne!(mine_uid, theirs_uid);
    // Looked at from the host through a living process: the file's owner is the runtime's own uid, nobody else's.
    let file_owner = mine.while_sleeping(|pid| {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(format!("/proc/{pid}/root/root/secret")).expect("the file");
        (file.uid(), file.mode() & 0o777)
    });
    assert_eq!(file_owner, (mine_uid, 0o600));
}

#[test]
fn the_data_directory_is_closed_to_everyone_else() {
    needs!(Root);
    let _turn = together();
    use std::os::unix::fs::MetadataExt;
    let data = server().data_dir();
    for name in ["runtimes", "images"] {
        let meta = std::fs::metadata(data.join(name)).expect("a part of the data directory");
        assert_eq!(
            (meta.uid(), meta.mode() & 0o077),
            (0, 0),
            "{name} is open to others"
        );
    }
    let token = std::fs::metadata(data.join("admin-token")).expect("the token file");
    assert_eq!((token.uid(), token.mode() & 0o777), (0, 0o600));
}
