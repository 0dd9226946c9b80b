//! Checkpoints across restarts, and ends that come while a disk is copied: the copy freezes a file system, and that must
//! never outlive it.

use crate::needs;
use crate::support::leaks::Counts;
use crate::support::server::Options;
use crate::support::{Runtime, Server, alone, assert_error, bound, eventually, procs};
use serde_json::{Value, json};
use std::net::TcpStream;
use std::path::PathBuf;

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];

/// A runtime with so much on its disk that its copy takes a while.
fn large(server: &Server) -> Runtime {
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 700}}));
    let line = "head -c 500M /dev/urandom > /root/big; md5sum /root/big > /root/sum; sync";
    runtime
        .sh_with(line, json!({"timeout_secs": 300}))
        .assert_code(0);
    runtime
}

/// Where copies are while they are made.
fn unfinished(server: &Server) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(server.data_dir().join("checkpoints"));
    let paths = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let hidden = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with('.')
    };
    paths.filter(hidden).collect()
}

/// A command that writes all the time.
struct Writer {
    line: String,
    connection: TcpStream,
}

impl Writer {
    /// Where everything but a copy lives on, it is the end of its connection that ends it.
    fn ends(self) {
        drop(self.connection);
        let left = || procs::with_arg(&self.line);
        assert!(
            eventually(bound(10_000), || left().is_empty()),
            "the writer can't be ended: {}",
            procs::whereabouts(&left())
        );
    }
}

/// Begins a checkpoint of a runtime in which a command writes all the time, and calls `end` in the midst of the copy.
#[must_use]
fn interrupted(server: &Server, runtime: &Runtime, end: impl FnOnce()) -> Writer {
    let marker = procs::marker();
    let line = format!("while :; do date > /root/date; done # {marker}");
    let body = json!({"command": "sh", "args": ["-c", line]}).to_string();
    let path = runtime.exec_path();
    let connection = server.api.begin(&path, body.len() as u64, body.as_bytes());
    assert!(eventually(bound(10_000), || !procs::with_arg(&line).is_empty()));
    std::thread::scope(|scope| {
        let copies = format!("/v1/runtimes/{}/checkpoints", runtime.id);
        let api = server.api.clone();
        // The answer, if there is one, is not what this is about.
        scope.spawn(move || drop(api.try_send("POST", &copies, JSON, Some(b"{}"))));
        let copying = || {
            unfinished(server)
                .iter()
                .any(|dir| std::fs::metadata(dir.join("disk.img")).is_ok_and(|disk| disk.len() > 0))
        };
        assert!(eventually(bound(20_000), copying), "no copy is made");
        end();
    });
    Writer { line, connection }
}

#[track_caller]
fn whole(server: &Server, id: &str) {
    let body = json!({"command": "sh", "args": ["-c", "md5sum -c /root/sum && echo w > /root/w && cat /root/w"], "timeout_secs": 120});
    let data = server
        .api
        .post(&format!("/v1/runtimes/{id}/exec"), &body)
        .data(200);
    assert_eq!(data["stdout"], "/root/big: OK\nw\n", "{data}");
}

fn states(server: &Server) -> Vec<String> {
    let list = server.api.get("/v1/checkpoints").json();
    let all = list["data"].as_array().expect("a list");
    let state = |item: &Value| item["state"].as_str().expect("a state").to_owned();
    all.iter().map(state).collect()
}

#[test]
fn an_end_in_the_midst_of_a_copy_leaves_nothing_frozen() {
    needs!(Root);
    let _turn = alone();
    let mut server = Server::start(Options::default());
    let runtime = large(&server);

    // Only the warden, with the job that copies.
    let warden = server.warden_pid();
    interrupted(&server, &runtime, || {
        // SAFETY: kill(2) takes numbers only; the pid is a process of this test's own server.
        unsafe { libc::kill(warden as i32, libc::SIGKILL) };
    })
    .ends();
    assert!(eventually(bound(20_000), || unfinished(&server).is_empty()));
    whole(&server, &runtime.id);
    assert_eq!(
        states(&server),
        [""; 0],
        "a failure that was told leaves nothing"
    );

    // Only the job.
    let warden = server.warden_pid();
    interrupted(&server, &runtime, || {
        let children = procs::children(warden).into_iter();
        let jobs: Vec<u32> = children.filter(|pid| is_job(*pid)).collect();
        assert_eq!(jobs.len(), 1, "one job copies: {jobs:?}");
        // SAFETY: as above.
        unsafe { libc::kill(jobs[0] as i32, libc::SIGKILL) };
    })
    .ends();
    whole(&server, &runtime.id);
    assert!(
        eventually(bound(10_000), || unfinished(&server).is_empty()),
        "a half-made copy is left"
    );

    // Everything at once.
    let writer = interrupted(&server, &runtime, || server.kill());
    server = server.restart();
    // With version 1 alone, what is frozen dies only when it is thawed: by the next server.
    writer.ends();
    assert!(unfinished(&server).is_empty(), "a half-made copy is left");
    assert_eq!(states(&server), ["failed"], "somebody may wait for it");
    whole(&server, &runtime.id);
    let list = server.api.get("/v1/checkpoints").json();
    let failed = list["data"][0]["id"].as_str().expect("an id").to_owned();
    let body = json!({"checkpoint_id": failed});
    let refused = server.api.post("/v1/runtimes", &body);
    assert_error(&refused, 409, "failed_precondition");
    assert!(refused.text().contains("failed"), "{}", refused.text());
    server
        .api
        .delete(&format!("/v1/checkpoints/{failed}"))
        .data(200);

    // The orderly way.
    interrupted(&server, &runtime, || {
        server.signal(libc::SIGTERM);
    })
    .ends();
    assert!(server.stop().success(), "{}", server.log());
    Counts::default().assert_again(|| Counts::left_by(&server));
    server = server.restart();
    whole(&server, &runtime.id);
    server
        .api
        .delete(&format!("/v1/runtimes/{}", runtime.id))
        .data(200);
}

/// A forked copy of the warden in the groups of the warden; a cell's init has another name.
fn is_job(pid: u32) -> bool {
    procs::status(pid, "Name").is_some_and(|name| name.starts_with("cellblock"))
}

#[test]
fn checkpoints_outlive_restarts_and_their_runtimes() {
    needs!(Root);
    let _turn = alone();
    let mut server = Server::start(Options::default());
    let runtime = Runtime::create(
        &server.api,
        &json!({"name": "source", "limits": {"disk_mib": 32}}),
    );
    runtime.sh("echo kept > /root/file").assert_code(0);
    let made = server
        .api
        .post("/v1/runtimes/source/checkpoints", &json!({"name": "c"}))
        .data(200);
    let path = format!("/v1/checkpoints/{}", made["id"].as_str().expect("an id"));
    server.api.delete("/v1/runtimes/source").data(200);
    for crash in [true, false] {
        if crash {
            server.kill();
        } else {
            server.stop();
        }
        server = server.restart();
        assert_eq!(server.api.get(&path).data(200), made);
        let body = json!({"checkpoint_id": made["id"]});
        let restored = Runtime::create(&server.api, &body);
        restored.sh("cat /root/file").assert_stdout("kept\n");
        server
            .api
            .delete(&format!("/v1/runtimes/{}", restored.id))
            .data(200);
    }
    // Its copy is lost: said at the next start, not found out by a restore.
    server.stop();
    let disk = server
        .data_dir()
        .join("checkpoints")
        .join(made["id"].as_str().expect("an id"));
    std::fs::remove_dir_all(disk).expect("lose the copy");
    server = server.restart();
    assert_eq!(server.api.get(&path).data(200)["state"], "failed");
    server.api.delete(&path).data(200);
    assert_error(&server.api.get(&path), 404, "not_found");
}

#[test]
fn a_copy_that_has_no_room_leaves_nothing_and_harms_nothing() {
    needs!(Root, Unshare);
    let _turn = alone();
    let server = Server::start(Options::on_small_disk(112, ""));
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 80}}));
    runtime
        .sh("head -c 60M /dev/urandom > /root/big")
        .assert_code(0);
    let path = format!("/v1/runtimes/{}/checkpoints", runtime.id);
    let reply = server.api.post(&path, &json!({}));
    assert_error(&reply, 503, "unavailable");
    assert_eq!(states(&server), [""; 0]);
    let left = std::fs::read_dir(server.own_data_dir().join("checkpoints"))
        .expect("list")
        .count();
    assert_eq!(left, 0, "a half-made copy is left");
    runtime
        .sh("rm /root/big; echo goes-on > /root/x; cat /root/x")
        .assert_stdout("goes-on\n");
}

#[test]
fn a_disk_that_was_not_unmounted_grows_with_all_that_is_on_it() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 64}}));
    let path = format!("/v1/runtimes/{}/checkpoints", runtime.id);
    let made = server.api.post(&path, &json!({})).data(200);
    let id = made["id"].as_str().expect("an id");
    // On disk, but in the journal only.
    let line = "mkdir /root/d; i=0; while [ $i -lt 900 ]; do echo $i > /root/d/$i; i=$((i+1)); done; sync /root/d";
    runtime
        .sh_with(line, json!({"timeout_secs": 120}))
        .assert_code(0);
    // As after a power cut: a copy of the disk as it is while it is mounted.
    let disk = |kind: &str, id: &str| server.data_dir().join(kind).join(id).join("disk.img");
    let copy = disk("checkpoints", id);
    std::fs::copy(disk("runtimes", &runtime.id), &copy).expect("copy the disk");
    let bytes = std::fs::read(&copy).expect("read the copy");
    // s_feature_incompat of the superblock: EXT4_FEATURE_INCOMPAT_RECOVER.
    assert_eq!(bytes[1024 + 96] & 4, 4, "nothing is to be recovered");
    for disk_mib in [64, 128] {
        let body = json!({"checkpoint_id": id, "limits": {"disk_mib": disk_mib}});
        let restored = Runtime::create(&server.api, &body);
        restored.sh("ls /root/d | wc -l").assert_stdout("900\n");
    }
}
