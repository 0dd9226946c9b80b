//! What is asked of a runtime while the warden is at something else: with this runtime, or with another.

use crate::descriptors::{leave_room, limit, open_fds};
use crate::needs;
use crate::support::server::Options;
use crate::support::{Api, Reply, Runtime, Server, alone, assert_error, bound, eventually, procs};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn operate(api: &Api, id: &str, operation: &str) -> Reply {
    api.send("POST", &format!("/v1/runtimes/{id}/{operation}"), &[], None)
}

#[test]
fn while_memory_is_lowered_under_commands_that_fill_it_others_are_served() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let memory = |mib: u64| json!({"resources": {"limits": {"memory_mib": mib}, "requests": {"memory_mib": 64, "vcpus": 2}}});
    let runtime = Runtime::create(&server.api, &memory(1024));
    // What is to be reclaimed must be written to the disk first, and others take its place.
    let line = "for i in $(seq 8); do (while :; do dd if=/dev/zero of=/root/$i bs=1M count=110 conv=notrunc \
                status=none; done) & done; sleep 3; echo > /root/on; wait";
    let body = json!({"command": "sh", "args": ["-c", line], "timeout_secs": 300}).to_string();
    let path = runtime.exec_path();
    let writer = server.api.begin(&path, body.len() as u64, body.as_bytes());
    let full = || runtime.sh("cat /root/on").code() == 0;
    assert!(eventually(bound(30_000), full), "nothing is written");
    let path = format!("/v1/runtimes/{}", runtime.id);
    let patch = |mib: u64| {
        let body = memory(mib).to_string();
        let json = [("Content-Type", "application/json")];
        server
            .api
            .send("PATCH", &path, &json, Some(body.as_bytes()))
    };
    for _ in 0..3 {
        let reply = std::thread::scope(|scope| {
            let patching = scope.spawn(|| patch(64));
            while !patching.is_finished() {
                let start = Instant::now();
                let body = json!({"command": "true", "args": ["x"]});
                server
                    .api
                    .post("/v1/runtimes/example/exec", &body)
                    .data(200);
                let took = start.elapsed();
                assert!(took < bound(1_500), "another tenant waited for {took:?}");
            }
            patching.join().expect("no panic")
        });
        assert!(reply.took < bound(10_000), "{:?}", reply.took);
        let now = match reply.status {
            200 => 64,
            _ => {
                assert_error(&reply, 409, "failed_precondition");
                1024
            }
        };
        let shown = server.api.get(&path).data(200);
        assert_eq!(shown["resources"]["limits"]["memory_mib"], now);
        // What was refused has left no trace: so much can be had.
        patch(1024).data(200);
        let line = "head -c 120M /dev/zero | tail -c 100M | wc -c";
        let used = runtime.exec(&json!({"command": line, "timeout_secs": 300}));
        used.assert_stdout("104857600\n");
    }
    drop(writer);
}

#[test]
fn a_start_that_the_warden_has_no_room_for_is_answered() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 32}}));
    let warden = server.warden_pid();
    let calm = open_fds(warden).len();
    let mut refused = 0;
    for room in 0..12 {
        operate(&server.api, &runtime.id, "stop").data(200);
        let settled = || procs::children(warden).is_empty() && open_fds(warden).len() <= calm;
        assert!(eventually(bound(10_000), settled), "the stop goes on");
        leave_room(warden, room);
        let (api, id) = (server.api.clone(), runtime.id.clone());
        let (tell, answer) = std::sync::mpsc::channel();
        std::thread::spawn(move || drop(tell.send(operate(&api, &id, "start"))));
        let reply = answer.recv_timeout(bound(20_000));
        limit(warden, 1024);
        let reply = reply.unwrap_or_else(|_| panic!("room for {room}: no answer"));
        match reply.status {
            200 => {}
            500 | 503 => refused += 1,
            other => panic!("room for {room}: {other} {}", reply.text()),
        }
        operate(&server.api, &runtime.id, "start").data(200);
        runtime.sh("echo again").assert_stdout("again\n");
    }
    assert!(refused > 0, "there was always room: nothing was tested");
    assert_eq!(server.warden_pid(), warden, "the warden died");
}

#[test]
fn a_stop_of_what_was_paused_while_it_was_mounted_ends_once() {
    needs!(Root);
    let _turn = alone();
    let mut server = Server::start(Options::default());
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 64}}));
    let file = format!("/v1/runtimes/{}/files?path=file", runtime.id);
    for _ in 0..4 {
        server.stop();
        server = server.restart();
        let warden = server.warden_pid();
        let disk = server.data_dir().join("runtimes").join(&runtime.id);
        let disk = fs::File::open(disk.join("disk.img")).expect("open the disk");
        assert!(eventually(bound(10_000), || disk.try_lock().is_ok()));
        std::thread::scope(|scope| {
            // Begins a mount, which waits for the lock.
            scope.spawn(|| server.api.try_send("PUT", &file, &[], Some(b"x")));
            assert!(eventually(bound(5_000), || !procs::children(warden).is_empty()));
            operate(&server.api, &runtime.id, "pause").data(200);
            disk.unlock().expect("let the disk go");
            assert!(eventually(bound(10_000), || procs::children(warden).is_empty()));
            operate(&server.api, &runtime.id, "stop").data(200);
            // The disk may still be on its way out, which the start waits for, and is answered.
            let (api, id) = (server.api.clone(), runtime.id.clone());
            let (tell, answer) = std::sync::mpsc::channel();
            std::thread::spawn(move || drop(tell.send(operate(&api, &id, "start"))));
            match answer.recv_timeout(bound(20_000)) {
                Ok(reply) => drop(reply.data(200)),
                Err(_) => {
                    // The scope waits for nobody who waits for this server.
                    server.kill();
                    panic!("the start is never answered");
                }
            }
        });
        runtime.sh("echo again").assert_stdout("again\n");
    }
}

/// A version 1 freezer group of the test's own, beside whatever the server uses. What is frozen in it does not even die.
struct Ice(PathBuf);

impl Ice {
    fn around(pid: u32) -> Ice {
        let mounts = fs::read_to_string("/proc/mounts").expect("read the mounts");
        let is_freezer = |line: &&str| {
            let fields: Vec<&str> = line.split(' ').collect();
            fields[2] == "cgroup" && fields[3].split(',').any(|option| option == "freezer")
        };
        let line = mounts.lines().find(is_freezer).expect("a freezer");
        let top = Path::new(line.split(' ').nth(1).expect("a path"));
        let group = top.join(format!("test-ice-{}-{pid}", std::process::id()));
        fs::create_dir(&group).expect("make a group");
        let ice = Ice(group);
        fs::write(ice.0.join("cgroup.procs"), pid.to_string()).expect("join");
        fs::write(ice.0.join("freezer.state"), "FROZEN").expect("freeze");
        let frozen = || fs::read_to_string(ice.0.join("freezer.state")).expect("read");
        assert!(eventually(bound(10_000), || frozen().trim() == "FROZEN"));
        ice
    }
}

impl Drop for Ice {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
        if !eventually(bound(10_000), || fs::remove_dir(&self.0).is_ok()) {
            eprintln!("{} is left", self.0.display());
        }
    }
}

#[test]
fn files_of_a_runtime_that_is_being_stopped_are_there_later() {
    needs!(Root, CgroupV1);
    let _turn = alone();
    let server = Server::start(Options::default());
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 32}}));
    runtime.sh("echo kept > /root/file").assert_code(0);
    let file = format!("/v1/runtimes/{}/files?path=/root/file", runtime.id);
    let marker = procs::marker();
    let body = json!({"command": "sleep", "args": [marker]}).to_string();
    let path = runtime.exec_path();
    let _sleeper = server.api.begin(&path, body.len() as u64, body.as_bytes());
    assert!(eventually(bound(10_000), || !procs::with_arg(&marker).is_empty()));
    // Its end, and with it that of the stop, waits for this test.
    let ice = Ice::around(procs::with_arg(&marker)[0]);
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| operate(&server.api, &runtime.id, "stop"));
        let status = || {
            server
                .api
                .get(&format!("/v1/runtimes/{}", runtime.id))
                .data(200)
        };
        assert!(eventually(bound(10_000), || status()["status"] == "shutdown"));
        // The warden hears of the stop a moment after that.
        let mut reply = server.api.get(&file);
        eventually(Duration::from_secs(2), || {
            reply = server.api.get(&file);
            reply.status != 200
        });
        let put = server.api.send("PUT", &file, &[], Some(b"x"));
        drop(ice);
        for reply in [reply, put] {
            assert_error(&reply, 503, "unavailable");
        }
        stopping.join().expect("no panic").data(200);
    });
    let reply = server.api.get(&file);
    assert_eq!((reply.status, reply.text().as_str()), (200, "kept\n"));
}
