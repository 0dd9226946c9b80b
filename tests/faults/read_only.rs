//! The data directory can't be written: from the start, or from one moment on.

use crate::needs;
use crate::support::mounts::TestDir;
use crate::support::server::Options;
use crate::support::{Server, alone, assert_error};
use serde_json::json;

/// A small file system at the data directory, in a mount namespace of the server's own.
const DISK: &str = "cd \"$TEST_DIR\" && mkdir -p data && { test -e disk || { truncate -s 96M disk && mkfs.ext4 -q disk; }; }";

fn mounted(how: &str) -> Options {
    Options {
        before: Some(format!("{DISK} && mount -o loop{how} disk data")),
        token: Some("0123456789abcdef0123456789abcdef".to_owned()),
        ..Options::default()
    }
}

#[test]
fn a_read_only_directory_is_refused_with_its_name_and_what_helps() {
    needs!(Root, Unshare);
    let _turn = alone();
    let refused = Server::start_in(TestDir::new(), mounted(",ro"));
    let said = refused
        .err()
        .expect("it serves from a directory that it can't write");
    for word in ["/data", "Read-only file system", "--data-dir"] {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
}

#[test]
fn a_disk_that_fails_is_told_and_loses_nothing() {
    needs!(Root, Unshare);
    let _turn = alone();
    let server = Server::start(mounted(""));
    let api = &server.api;
    let body = json!({"name": "kept", "limits": {"disk_mib": 16}});
    api.post("/v1/runtimes", &body).data(200);
    let exec = "/v1/runtimes/kept/exec";
    // Under a key, since others are not on the disk at once.
    let write = json!({"command": "echo done > /root/done; sync"});
    let done = api.post_once(exec, "done", &write).data(200);
    let done = done["exec_id"].as_str().expect("an id").to_owned();
    // As the kernel does it when a disk fails: the file system can only be read from now on.
    let aborted = std::process::Command::new("nsenter")
        .args([
            "-t",
            &server.pid.to_string(),
            "-m",
            "mount",
            "-o",
            "remount,abort",
        ])
        .arg(server.data_dir())
        .status()
        .expect("run nsenter");
    assert!(aborted.success(), "{aborted}");
    let refused = api.post(
        "/v1/runtimes",
        &json!({"name": "late", "limits": {"disk_mib": 16}}),
    );
    assert_error(&refused, 503, "unavailable");
    let once = api.post_once(exec, "key", &json!({"command": "true"}));
    assert_error(&once, 503, "unavailable");
    let detached = api.post(exec, &json!({"command": "true", "detach": true}));
    assert_error(&detached, 503, "unavailable");
    assert_eq!(api.get("/healthz").status, 200);
    assert_eq!(api.get("/v1/runtimes/kept").data(200)["status"], "running");
    // The database may be cut short in the midst of the write that failed; then it can't be read until it is opened again.
    let record = api.get(&format!("/v1/execs/{done}"));
    match record.status {
        200 => assert_eq!(record.json()["data"]["outcome"], "exited"),
        _ => assert_error(&record, 503, "unavailable"),
    }
    assert_error(&api.get("/v1/runtimes/late"), 404, "not_found");
    server.stop();
    // Mounted again it is as it was.
    let server = server.restart();
    let read = server.api.post(exec, &json!({"command": "cat /root/done"}));
    assert_eq!(read.data(200)["stdout"], "done\n");
    assert_eq!(server.api.record(&done)["outcome"], "exited");
    server
        .api
        .post_once(exec, "key", &json!({"command": "true"}))
        .data(200);
}
