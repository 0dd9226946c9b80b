//! Commands that nobody waits for: answered at once, run to their end, their output kept and followed.

use crate::needs;
use crate::support::{
    alone, api, assert_error, assert_invalid, bound, eventually, procs, runtime, runtime_with,
    server, together,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read};
use std::time::Instant;

fn output(id: &str, query: &str) -> Vec<u8> {
    let reply = api().get(&format!("/v1/execs/{id}/output?{query}"));
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), "application/octet-stream");
    reply.body
}

#[test]
fn a_detached_exec_is_answered_at_once_and_runs_to_its_end() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let began = Instant::now();
    let id = runtime.detach("sleep 2; echo out; echo err >&2; exit 5", json!({}));
    assert!(began.elapsed() < bound(1_000), "{:?}", began.elapsed());
    let record = api().record(&id);
    assert_eq!(
        (&record["outcome"], &record["detached"]),
        (&json!("running"), &json!(true))
    );
    assert_eq!(record["exit_code"], json!(null));
    let record = api().ended(&id, bound(10_000));
    assert_eq!(
        (&record["outcome"], &record["exit_code"]),
        (&json!("exited"), &json!(5))
    );
    assert_eq!(
        (output(&id, ""), output(&id, "stream=stderr")),
        (b"out\n".to_vec(), b"err\n".to_vec())
    );
    assert_eq!(record["stdout_bytes"], 4);
    assert!(record["usage"]["cpu_ms"].is_u64(), "{record}");
}

#[test]
fn it_gets_its_input_and_its_timeout() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let id = runtime.detach(
        "cat; sleep 100",
        json!({"stdin": "given", "timeout_secs": 1}),
    );
    let record = api().ended(&id, bound(10_000));
    assert_eq!(
        (&record["outcome"], &record["exit_code"]),
        (&json!("timed_out"), &json!(124))
    );
    assert_eq!(output(&id, ""), b"given");
}

#[test]
fn a_client_that_leaves_changes_nothing() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let marker = procs::marker();
    let line = format!("sleep {marker}");
    let body = json!({"command": "sh", "args": ["-c", line], "detach": true}).to_string();
    let stream = api().begin(&runtime.exec_path(), body.len() as u64, body.as_bytes());
    let runs = || !procs::with_arg(&marker).is_empty();
    assert!(eventually(bound(5_000), runs), "it never ran");
    drop(stream);
    // Longer than an abandoned command takes to be killed.
    std::thread::sleep(bound(500));
    assert!(runs(), "it was killed");
    let list = api()
        .get(&format!("/v1/execs?runtime={}", runtime.id))
        .data(200);
    let path = format!("/v1/execs/{}", list[0]["exec_id"].as_str().expect("an id"));
    api().delete(&path).data(200);
    assert!(!runs(), "it was not killed");
    assert_eq!(api().get(&path).data(200)["outcome"], "cancelled");
}

#[test]
fn any_part_of_the_output_can_be_read() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let id = runtime.detach("printf 0123456789", json!({}));
    api().ended(&id, bound(10_000));
    for (query, expected) in [
        ("", "0123456789"),
        ("offset=0", "0123456789"),
        ("offset=4", "456789"),
        ("offset=4&limit=3", "456"),
        ("offset=9", "9"),
        ("offset=10", ""),
        ("offset=1000000000000", ""),
        ("limit=0", ""),
        ("offset=2&follow=true", "23456789"),
        ("offset=10&follow=true", ""),
    ] {
        assert_eq!(output(&id, query), expected.as_bytes(), "{query}");
    }
    let whole = api().get(&format!("/v1/execs/{id}/output?offset=3"));
    assert_eq!(whole.header("content-length"), "7");
}

#[test]
fn following_gives_what_comes_until_the_end() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let line = "echo one; while [ ! -e /root/go ]; do sleep 0.05; done; echo two";
    let id = runtime.detach(line, json!({}));
    let mut follower = BufReader::new(api().follow(&format!("/v1/execs/{id}/output?follow=true")));
    let mut first = String::new();
    follower.read_line(&mut first).expect("a line");
    assert_eq!(first, "one\n");
    // It has begun and not ended: what is there so far can be read too.
    assert_eq!(api().record(&id)["outcome"], "running");
    assert_eq!(output(&id, "offset=1"), b"ne\n");
    assert_eq!(api().record(&id)["stdout_bytes"], 4);
    runtime.sh("touch /root/go").assert_code(0);
    let mut rest = String::new();
    follower.read_to_string(&mut rest).expect("the rest");
    assert_eq!(rest, "two\n");
    assert_eq!(api().ended(&id, bound(5_000))["exit_code"], 0);
}

#[test]
fn a_follower_of_some_bytes_ends_with_them() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let id = runtime.detach("printf abcdef; sleep 1000", json!({}));
    let mut seen = String::new();
    let path = format!("/v1/execs/{id}/output?follow=true&offset=2&limit=3");
    api()
        .follow(&path)
        .read_to_string(&mut seen)
        .expect("three bytes");
    assert_eq!(seen, "cde");
    api().delete(&format!("/v1/execs/{id}")).data(200);
}

#[test]
fn one_that_is_waited_for_can_be_followed_to_its_end() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let marker = procs::marker();
    let line = format!(
        "echo begun; sleep {marker} & while [ ! -e /root/go ]; do sleep 0.05; done; echo done"
    );
    let body = json!({"command": "sh", "args": ["-c", line]});
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.try_exec(&body));
        assert!(eventually(bound(5_000), || !procs::with_arg(&marker).is_empty()));
        let list = api()
            .get(&format!("/v1/execs?runtime={}", runtime.id))
            .data(200);
        let id = list[0]["exec_id"].as_str().expect("an id").to_owned();
        // Its output is in memory until then.
        assert_eq!(output(&id, ""), b"");
        let mut follower = api().follow(&format!("/v1/execs/{id}/output?follow=true"));
        runtime.sh("touch /root/go").assert_code(0);
        let mut seen = String::new();
        follower.read_to_string(&mut seen).expect("the output");
        assert_eq!(seen, "begun\ndone\n");
        waiting.join().expect("no panic").data(200);
    });
}

#[test]
fn sixty_eight_megabytes_come_back_byte_by_byte() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime_with(json!({"limits": {"disk_mib": 256}}));
    let line = "head -c 50M /dev/urandom > /root/f; base64 -w0 /root/f; base64 -w0 /root/f | sha256sum >&2";
    let id = runtime.detach(line, json!({"timeout_secs": 600}));
    // Read twice: while it is written, and afterwards.
    let path = format!("/v1/execs/{id}/output?offset=0");
    let live = hash(api().follow(&format!("{path}&follow=true")));
    let record = api().ended(&id, bound(60_000));
    assert_eq!(
        (&record["outcome"], &record["exit_code"]),
        (&json!("exited"), &json!(0)),
        "{record}"
    );
    let length = 4 * (50u64 << 20).div_ceil(3);
    assert_eq!(
        (&record["stdout_bytes"], &record["stdout_truncated"]),
        (&json!(length), &json!(false))
    );
    let before = procs::rss(server().api_pid());
    let kept = hash(api().follow(&path));
    let grown = procs::rss(server().api_pid()).saturating_sub(before);
    assert!(grown < 16 << 20, "the server grew by {grown} bytes");
    let expected = String::from_utf8(output(&id, "stream=stderr")).expect("a sum");
    for (sum, bytes) in [live, kept] {
        assert_eq!(bytes, length);
        assert!(expected.starts_with(&sum), "{sum} is not {expected}");
    }
    let tail = output(&id, &format!("offset={}", length - 10));
    assert_eq!(tail.len(), 10);
}

/// SHA-256 of all that is read, and how much that is.
fn hash(mut from: impl Read) -> (String, u64) {
    let mut hash = Sha256::new();
    let bytes = std::io::copy(&mut from, &mut hash).expect("read it all");
    let sum = hash.finalize();
    (
        sum.iter().map(|byte| format!("{byte:02x}")).collect(),
        bytes,
    )
}

#[test]
fn what_is_beyond_the_cap_is_counted() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let id = runtime.detach(
        "head -c 3M /dev/zero; printf x >&2",
        json!({"max_output_bytes": 100_000}),
    );
    let record = api().ended(&id, bound(10_000));
    assert_eq!(
        (&record["exit_code"], &record["stdout_bytes"]),
        (&json!(0), &json!(3 << 20))
    );
    assert_eq!(record["stdout_truncated"], true);
    assert_eq!(record["stderr_truncated"], false);
    assert_eq!(output(&id, "").len(), 100_000);
    // More than an answer could hold, as much as a file may.
    let most = json!({"command": "true", "detach": true, "max_output_bytes": 256u64 << 20});
    runtime.try_exec(&most).data(200);
    let more = json!({"command": "true", "detach": true, "max_output_bytes": (256u64 << 20) + 1});
    assert_invalid(&runtime.try_exec(&more), "max_output_bytes");
}

#[test]
fn what_is_known_to_be_wrong_is_refused_as_for_any_exec() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let with = |key: &str, value: serde_json::Value| {
        let mut body = json!({"command": "true", "detach": true});
        body[key] = value;
        runtime.try_exec(&body)
    };
    assert_invalid(&with("command", json!("")), "command");
    assert_invalid(&with("timeout_secs", json!(3601)), "timeout_secs");
    assert_invalid(&with("detach", json!("yes")), "detach");
    let unknown = json!({"command": "true", "detach": true});
    let reply = api().post("/v1/runtimes/no-such-runtime/exec", &unknown);
    assert_error(&reply, 404, "not_found");
}

#[test]
fn a_directory_that_does_not_exist_is_told_now_or_in_the_record() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime.sh("true");
    let body = json!({"command": "true", "cwd": "/no/such", "detach": true});
    let reply = runtime.try_exec(&body);
    if reply.status == 422 {
        assert_invalid(&reply, "cwd");
        let list = api().get(&format!(
            "/v1/execs?runtime={}&outcome=running,failed",
            runtime.id
        ));
        assert_eq!(list.data(200), json!([]));
    } else {
        let id = reply.data(200)["exec_id"]
            .as_str()
            .expect("an id")
            .to_owned();
        let record = api().ended(&id, bound(10_000));
        assert_eq!(
            (&record["outcome"], &record["exit_code"]),
            (&json!("failed"), &json!(null))
        );
        let error = record["error"].as_str().expect("an error");
        assert!(error.contains("`cwd`"), "{error}");
    }
}

#[test]
fn a_deleted_runtime_ends_them() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let id = runtime.detach("echo kept; sleep 1000", json!({}));
    assert!(eventually(bound(5_000), || output(&id, "") == b"kept\n"));
    api()
        .delete(&format!("/v1/runtimes/{}", runtime.id))
        .data(200);
    let record = api().ended(&id, bound(5_000));
    assert_eq!(record["outcome"], "cancelled");
    assert_eq!(output(&id, ""), b"kept\n");
}
