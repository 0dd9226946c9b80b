//! What is remembered of execs when the server ends, in order or not, and for how long.

use crate::needs;
use crate::support::server::Options;
use crate::support::{Runtime, Server, alone, assert_error, bound, eventually, procs};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::PathBuf;

const EXEC: &str = "/v1/runtimes/example/exec";

/// Options with a configuration file, which must live as long as the server may be restarted.
pub fn configured(text: &str) -> (Options, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().expect("make a file");
    file.write_all(text.as_bytes()).expect("write a file");
    let path = file.path().to_str().expect("a path").to_owned();
    let options = Options {
        args: vec!["--config".into(), path],
        ..Options::default()
    };
    (options, file)
}

pub fn sh(line: &str, fields: Value) -> Value {
    let mut body = json!({"command": "sh", "args": ["-c", line]});
    for (key, value) in fields.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body
}

pub fn run(server: &Server, line: &str, fields: Value) -> String {
    let data = server.api.post(EXEC, &sh(line, fields)).data(200);
    data["exec_id"].as_str().expect("an id").to_owned()
}

fn output(server: &Server, id: &str) -> Vec<u8> {
    let reply = server.api.get(&format!("/v1/execs/{id}/output"));
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.body
}

fn all(server: &Server) -> Vec<Value> {
    let list = server.api.get("/v1/execs").data(200);
    list.as_array().expect("a list").clone()
}

#[test]
fn after_a_crash_what_ran_is_unknown_and_what_was_answered_is_there() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let ended = run(&server, "echo ended", json!({}));
    let detached = run(&server, "echo kept; sleep 1000", json!({"detach": true}));
    assert!(eventually(bound(5_000), || output(&server, &detached) == b"kept\n"));
    let once = sh("date +%N; head -c 50000 /dev/zero | tr '\\0' x", json!({}));
    let first = server.api.post_once(EXEC, "whole", &once);
    assert_eq!(first.status, 200, "{}", first.text());
    let started = sh("true", json!({"detach": true}));
    let begun = server.api.post_once(EXEC, "detached", &started);
    let body = json!({"name": "once", "limits": {"disk_mib": 16}});
    let made = server.api.post_once("/v1/runtimes", "made", &body);
    assert_eq!(made.status, 200, "{}", made.text());

    let marker = procs::marker();
    let cut = sh(&format!("echo x >> /root/ran; sleep {marker}"), json!({}));
    std::thread::scope(|scope| {
        let text = cut.to_string();
        let (api, headers) = (&server.api, [("Idempotency-Key", "cut")]);
        let waiting =
            scope.spawn(move || api.try_send("POST", EXEC, &headers, Some(text.as_bytes())));
        assert!(eventually(bound(5_000), || !procs::with_arg(&marker).is_empty()));
        server.kill();
        assert!(
            waiting.join().expect("no panic").is_err(),
            "it was answered"
        );
    });

    let server = server.restart();
    let record = server.api.record(&detached);
    assert_eq!(record["outcome"], "unknown");
    assert_eq!(
        (&record["exit_code"], &record["ended_at"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(output(&server, &detached), b"kept\n");
    let record = server.api.record(&ended);
    assert_eq!(
        (&record["outcome"], &record["exit_code"]),
        (&json!("exited"), &json!(0))
    );
    assert_eq!(output(&server, &ended), b"ended\n");

    let again = server.api.post_once(EXEC, "whole", &once);
    assert_eq!((again.status, again.text()), (200, first.text()));
    let again = server.api.post_once(EXEC, "detached", &started);
    assert_eq!(again.text(), begun.text());
    let again = server.api.post_once("/v1/runtimes", "made", &body);
    assert_eq!(again.text(), made.text());
    for _ in 0..2 {
        let again = server.api.post_once(EXEC, "cut", &cut);
        assert_error(&again, 409, "failed_precondition");
        let details = &again.json()["error"]["details"];
        assert_eq!(
            (&details["outcome"], &details["reason"]),
            (&json!("unknown"), &json!("interrupted"))
        );
        let id = details["exec_id"].as_str().expect("an id");
        assert_eq!(server.api.record(id)["outcome"], "unknown");
    }
    let ran = server
        .api
        .post(EXEC, &sh("cat /root/ran", json!({})))
        .data(200);
    assert_eq!(ran["stdout"], "x\n", "it was run again");
    assert!(
        all(&server)
            .iter()
            .all(|record| record["outcome"] != "running")
    );
}

#[test]
fn an_orderly_end_loses_and_doubles_nothing() {
    needs!(Root);
    let _turn = alone();
    let (options, _file) = configured("drain_secs = 1");
    let server = Server::start(options);
    let detached = run(&server, "echo begun; sleep 1000", json!({"detach": true}));
    let mut answered: Vec<String> = std::thread::scope(|scope| {
        let some = || {
            (0..20)
                .map(|_| run(&server, "echo x", json!({})))
                .collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(some)).collect();
        let joined = threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no panic"));
        joined.collect()
    });
    // In the same moment: the newest records are not written yet.
    assert!(server.stop().success());
    let server = server.restart();
    answered.push(detached.clone());
    answered.sort();
    let mut found: Vec<String> = all(&server)
        .iter()
        .map(|record| record["exec_id"].as_str().expect("an id").to_owned())
        .collect();
    found.sort();
    assert_eq!(found, answered);
    let record = server.api.record(&detached);
    assert_eq!(
        (&record["outcome"], &record["exit_code"]),
        (&json!("cancelled"), &json!(137))
    );
    assert_eq!(output(&server, &detached), b"begun\n");
}

#[test]
fn a_detached_exec_may_end_while_the_server_drains() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let id = run(
        &server,
        "echo begun; sleep 3; echo done",
        json!({"detach": true}),
    );
    assert!(eventually(bound(5_000), || output(&server, &id) == b"begun\n"));
    assert!(server.stop().success());
    let server = server.restart();
    let record = server.api.record(&id);
    assert_eq!(
        (&record["outcome"], &record["exit_code"]),
        (&json!("exited"), &json!(0))
    );
    assert_eq!(output(&server, &id), b"begun\ndone\n");
}

fn output_files(server: &Server) -> Vec<PathBuf> {
    let entries = fs::read_dir(server.data_dir().join("state/output")).expect("list the output");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[test]
fn old_records_go_with_their_output_and_running_ones_stay() {
    needs!(Root);
    let _turn = alone();
    let (options, _file) = configured("record_retention_secs = 2");
    let server = Server::start(options);
    let running = run(&server, "echo here; sleep 1000", json!({"detach": true}));
    let old = run(&server, "head -c 100000 /dev/zero", json!({}));
    assert_eq!(output(&server, &old).len(), 100_000);
    assert_eq!(output_files(&server).len(), 2);
    let gone = || server.api.get(&format!("/v1/execs/{old}")).status == 404;
    assert!(eventually(bound(10_000), gone), "it is kept for ever");
    assert!(eventually(bound(2_000), || output_files(&server).len() == 1));
    assert_eq!(server.api.record(&running)["outcome"], "running");
    assert_eq!(output(&server, &running), b"here\n");
    server.api.delete(&format!("/v1/execs/{running}")).data(200);
}

#[test]
fn only_the_newest_records_are_kept() {
    needs!(Root);
    let _turn = alone();
    let (options, _file) = configured("max_records = 5\nrecord_retention_secs = 10");
    let server = Server::start(options);
    let made: Vec<String> = (0..12).map(|_| run(&server, "true", json!({}))).collect();
    let count = || server.api.get("/v1/execs").json()["pagination"]["total"].as_u64();
    // Looked at a few times a second with so short a retention, whose end is not reached.
    assert!(
        eventually(bound(8_000), || count() == Some(5)),
        "{:?}",
        count()
    );
    let newest: Vec<String> = made.iter().rev().take(5).cloned().collect();
    let found = all(&server);
    let ids: Vec<&str> = found
        .iter()
        .filter_map(|record| record["exec_id"].as_str())
        .collect();
    assert_eq!(ids, newest);
}

#[test]
fn the_oldest_output_makes_room_for_the_newest() {
    needs!(Root);
    let _turn = alone();
    let (options, _file) = configured("max_kept_output_mib = 1");
    let server = Server::start(options);
    let line = "head -c 400000 /dev/zero";
    let made: Vec<String> = (0..4)
        .map(|n| {
            let id = run(&server, line, json!({"detach": n % 2 == 0}));
            server.api.ended(&id, bound(10_000));
            id
        })
        .collect();
    let newest = made.last().expect("four");
    assert_eq!(output(&server, newest).len(), 400_000);
    let oldest = server.api.get(&format!("/v1/execs/{}/output", made[0]));
    assert_error(&oldest, 404, "not_found");
    assert_eq!(
        oldest.json()["error"]["details"]["reason"],
        "output_not_kept"
    );
    let record = server.api.record(&made[0]);
    assert_eq!(
        (&record["outcome"], &record["output_kept"]),
        (&json!("exited"), &json!(false))
    );
    let bytes: u64 = output_files(&server)
        .iter()
        .map(|path| fs::metadata(path).map_or(0, |file| file.len()))
        .sum();
    assert!(bytes <= 1 << 20, "{bytes} bytes are kept");
    // One that alone is more than all may be is cut, and ends like any other.
    let id = run(
        &server,
        "head -c 3000000 /dev/zero",
        json!({"detach": true}),
    );
    let record = server.api.ended(&id, bound(10_000));
    assert_eq!(
        (&record["exit_code"], &record["stdout_truncated"]),
        (&json!(0), &json!(true))
    );
    assert_eq!(record["stdout_bytes"], 3_000_000);
    assert!((1..=1 << 20).contains(&output(&server, &id).len()));
}

#[test]
fn output_without_a_record_is_removed_at_start() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let id = run(&server, "echo kept", json!({"detach": true}));
    server.api.ended(&id, bound(5_000));
    assert!(server.stop().success());
    let directory = server.data_dir().join("state/output");
    let orphan = directory.join("0198f3c2-7b5e-7cc3-98d5-1f2a3b4c5d6e.stdout");
    fs::write(&orphan, "left by a crash").expect("write a file");
    let server = server.restart();
    assert!(
        eventually(bound(5_000), || !orphan.exists()),
        "it is still there"
    );
    assert_eq!(output(&server, &id), b"kept\n");
}

#[test]
fn detached_execs_count_like_any_other() {
    needs!(Root);
    let _turn = alone();
    let (options, _file) = configured("max_execs_per_runtime = 1\nqueue_secs = 1");
    let server = Server::start(options);
    let id = run(&server, "sleep 1000", json!({"detach": true}));
    let refused = server.api.post(EXEC, &sh("true", json!({"detach": true})));
    assert_error(&refused, 429, "rate_limited");
    server.api.delete(&format!("/v1/execs/{id}")).data(200);
    let id = run(&server, "true", json!({"detach": true}));
    assert_eq!(server.api.ended(&id, bound(5_000))["exit_code"], 0);
}

#[test]
fn a_full_disk_loses_output_and_no_record() {
    needs!(Root, Unshare);
    let _turn = alone();
    let server = Server::start(Options::on_small_disk(112, ""));
    // The usual one would not fit.
    let body = json!({"name": "example", "limits": {"disk_mib": 16}});
    server.api.post("/v1/runtimes", &body).data(200);
    let flood = run(
        &server,
        "head -c 200M /dev/zero; exit 3",
        json!({"detach": true}),
    );
    let record = server.api.ended(&flood, bound(60_000));
    assert_eq!(
        (&record["outcome"], &record["exit_code"]),
        (&json!("exited"), &json!(3))
    );
    assert_eq!(
        (&record["stdout_bytes"], &record["stdout_truncated"]),
        (&json!(200 << 20), &json!(true))
    );
    // Something was kept, and room was left for the records.
    let kept = output(&server, &flood).len();
    assert!((1 << 20..96 << 20).contains(&kept), "{kept}");
    let told = server
        .log()
        .matches("no room for a command's output")
        .count();
    assert_eq!(told, 1, "{}", server.log());

    let filler = server.own_data_dir().join("filler");
    fill(&filler);
    let without_room = run(&server, "echo x", json!({}));
    let refused = server.api.post(EXEC, &sh("true", json!({"detach": true})));
    if refused.status != 200 {
        assert_error(&refused, 503, "unavailable");
    }
    fs::remove_file(&filler).expect("make room");
    let listed = || {
        all(&server)
            .iter()
            .any(|record| record["exec_id"] == json!(without_room))
    };
    assert!(eventually(bound(10_000), listed), "a record was lost");
}

/// Writes until there is no room.
fn fill(path: &std::path::Path) {
    let mut file = fs::File::create(path).expect("start to fill the disk");
    let mut size = 1 << 20;
    while size > 0 {
        if file.write(&vec![0; size]).is_err() {
            size /= 2;
        }
    }
}

#[test]
fn what_goes_wrong_after_ten_seconds_is_told_in_the_late_answer() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 16}}));
    let marker = procs::marker();
    let reply = std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| runtime.try_exec(&json!({"command": "sleep", "args": [marker]})));
        assert!(eventually(bound(5_000), || !procs::with_arg(&marker).is_empty()));
        std::thread::sleep(std::time::Duration::from_secs(11));
        // SAFETY: kill(2) takes numbers only; the pid is a process of this test's own server.
        unsafe { libc::kill(server.warden_pid() as i32, libc::SIGKILL) };
        waiting.join().expect("no panic")
    });
    assert_eq!(reply.status, 200);
    assert!(reply.body.starts_with(b" "), "{}", reply.text());
    let answer = reply.json();
    assert_eq!(answer["error"]["code"], "unavailable", "{answer}");
    assert_eq!(answer["request_id"], reply.header("x-request-id"));
    let id = answer["error"]["details"]["exec_id"]
        .as_str()
        .expect("an id");
    assert_eq!(server.api.record(id)["outcome"], "unknown");
}
