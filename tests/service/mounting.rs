//! Runtimes that are on disk and not mounted yet: the first exec mounts them, and learns why that can't be done.

use crate::needs;
use crate::support::mounts::TestDir;
use crate::support::server::Options;
use crate::support::{Runtime, Server, alone, assert_error, bound, eventually, image};
use serde_json::json;
use std::fs::File;
use std::time::Duration;

#[test]
fn the_wait_for_a_disk_is_not_the_commands_time() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 64}}));
    server.stop();
    let server = server.restart();
    let disk = server
        .data_dir()
        .join("runtimes")
        .join(&runtime.id)
        .join("disk.img");
    let disk = File::open(disk).expect("open the disk");
    // Whoever stopped the server has let go of it when the lock can be taken.
    assert!(eventually(bound(10_000), || disk.try_lock().is_ok()));
    let body = json!({"command": "true", "args": ["x"], "timeout_secs": 1});
    let exec = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.exec(&body));
        // Longer than the command may run, by any clock.
        std::thread::sleep(Duration::from_millis(1_500));
        disk.unlock().expect("let the disk go");
        waiting.join().expect("no panic")
    });
    assert_eq!(exec.data["outcome"], "exited", "{}", exec.data);
    assert!(exec.took > Duration::from_secs(1), "it did not wait");
    let said = exec.data["duration_ms"].as_u64().expect("a duration");
    assert!(said < 1_000, "the wait was counted: {said} ms");
}

#[test]
fn an_image_that_was_spoilt_is_said_to_be_the_reason() {
    needs!(Root);
    let _turn = alone();
    let dir = TestDir::new();
    let rootfs = dir.path().join("rootfs");
    image::rootfs(&rootfs);
    let server = Server::start(Options::default());
    image::add(&server, "spoilt", &rootfs).expect("add the image");
    let runtime = Runtime::create(&server.api, &json!({"image": "spoilt"}));
    server.stop();
    std::fs::remove_dir(rootfs.join("proc")).expect("spoil the image");
    std::fs::write(rootfs.join("proc"), "a file").expect("spoil the image");
    let server = server.restart();
    let reply = runtime.try_exec(&json!({"command": "true", "args": ["x"]}));
    assert_error(&reply, 409, "failed_precondition");
    assert!(
        reply.text().contains("image can't be used"),
        "{}",
        reply.text()
    );
    let path = rootfs.display().to_string();
    assert!(!reply.text().contains(&path), "{}", reply.text());
    drop(server);
}
