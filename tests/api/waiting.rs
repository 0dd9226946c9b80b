//! Commands that can't start yet: their clients are not left in silence, and who gives up gets a plain end.

use crate::needs;
use crate::support::held::Held;
use crate::support::{Runtime, Ws, alone, api, bound, eventually, runtime, server};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::thread;
use std::time::{Duration, Instant};

/// The id of the runtime's one command that is said to run.
fn only_one(runtime: &Runtime) -> String {
    let path = format!("/v1/execs?outcome=running&runtime={}", runtime.id);
    let mut list = Value::Null;
    let there = eventually(bound(5_000), || {
        list = api().get(&path).data(200);
        list.as_array().is_some_and(|list| list.len() == 1)
    });
    assert!(there, "{list}");
    list[0]["exec_id"].as_str().expect("an id").to_owned()
}

/// Cancels the runtime's one command, which the warden has not started, and then lets the warden go on.
fn cancel(runtime: &Runtime, held: Held) -> String {
    let id = only_one(runtime);
    thread::scope(|scope| {
        let cancelled = scope.spawn(|| api().delete(&format!("/v1/execs/{id}")).data(200));
        // The kill follows the start on its way to the warden; nothing outside tells when it was sent.
        thread::sleep(bound(300));
        drop(held);
        cancelled.join().expect("no panic");
    });
    id
}

fn assert_cancelled(id: &str) {
    let record = api().ended(id, bound(10_000));
    assert_eq!(
        (&record["outcome"], &record["exit_code"]),
        (&json!("cancelled"), &json!(137)),
        "{record}"
    );
}

#[test]
fn a_stream_that_is_cancelled_before_it_starts_ends_like_any_other() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    runtime.sh("true");
    let held = server().hold_warden();
    let ws = runtime.stream_sh("echo never");
    let id = cancel(&runtime, held);
    let said = ws.end();
    assert_eq!((said.code(), said.outcome()), (137, "cancelled"));
    assert_eq!(said.text(), "");
    assert_cancelled(&id);
}

#[test]
fn events_of_one_that_is_cancelled_before_it_starts_tell_its_end() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    runtime.sh("true");
    let held = server().hold_warden();
    thread::scope(|scope| {
        let answer = scope.spawn(|| {
            let headers = [("Accept", "text/event-stream")];
            let body = json!({"command": "echo", "args": ["never"]}).to_string();
            let path = runtime.exec_path();
            api().send("POST", &path, &headers, Some(body.as_bytes()))
        });
        let id = cancel(&runtime, held);
        let reply = answer.join().expect("no panic");
        assert_eq!(reply.status, 200, "{}", reply.text());
        let text = reply.text();
        assert!(text.starts_with("event: exit\n"), "{text}");
        assert!(text.contains("\"outcome\":\"cancelled\""), "{text}");
        assert_cancelled(&id);
    });
}

#[test]
fn a_detached_command_that_is_cancelled_before_it_starts_has_that_record() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    runtime.sh("true");
    for cwd in [Value::Null, json!("/root")] {
        let held = server().hold_warden();
        thread::scope(|scope| {
            let answer = scope.spawn(|| runtime.detach("echo never", json!({"cwd": cwd})));
            let id = cancel(&runtime, held);
            assert_eq!(answer.join().expect("no panic"), id);
            assert_cancelled(&id);
        });
    }
}

#[test]
fn a_detached_command_that_can_not_start_yet_is_answered() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    runtime.sh("true");
    let held = server().hold_warden();
    let began = Instant::now();
    let id = runtime.detach("echo later", json!({"cwd": "/"}));
    assert!(began.elapsed() < bound(3_000), "{:?}", began.elapsed());
    assert_eq!(api().record(&id)["outcome"], "running");
    drop(held);
    assert_eq!(api().ended(&id, bound(10_000))["exit_code"], 0);
    let output = api().get(&format!("/v1/execs/{id}/output"));
    assert_eq!(output.body, b"later\n");
}

#[test]
fn streams_that_can_not_start_yet_show_that_the_server_is_there() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    runtime.sh("true");
    let held = server().hold_warden();
    let mut ws = runtime.stream_sh("cat");
    // What the client says meanwhile is not lost.
    ws.stdin(b"input");
    ws.close_stdin();
    let body = json!({"command": "echo later"}).to_string();
    let mut events = api().connect();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nAccept: text/event-stream\r\n\
         Content-Length: {}\r\n\r\n{body}",
        runtime.exec_path(),
        api().token,
        body.len()
    );
    events.write_all(head.as_bytes()).expect("send");
    let began = Instant::now();
    let mut reader = BufReader::new(events);
    let mut text = String::new();
    while !text.contains("\r\n\r\n") {
        assert!(reader.read_line(&mut text).expect("a line") > 0, "{text}");
    }
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    while ws.said.heartbeats == 0 {
        assert!(ws.step(), "{:?}", ws.said);
    }
    let waited = began.elapsed();
    assert!(
        waited > Duration::from_secs(9) && waited < Duration::from_secs(10) + bound(3_000),
        "{waited:?}"
    );
    drop(held);
    let said = ws.end();
    assert_eq!((said.code(), said.text().as_str()), (0, "input"));
    while !text.contains("event: exit") {
        assert!(reader.read_line(&mut text).expect("a line") > 0, "{text}");
    }
    assert!(text.contains("event: stdout"), "{text}");
}

#[test]
fn a_client_that_leaves_before_the_start_takes_its_command_with_it() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    runtime.sh("true");
    let held = server().hold_warden();
    let mut ws = Ws::open(api(), &runtime.stream_path());
    ws.start(json!({"command": "touch", "args": ["/root/ran"]}));
    let id = only_one(&runtime);
    ws.vanish();
    thread::sleep(bound(300));
    drop(held);
    assert_cancelled(&id);
    runtime.sh("test -e /root/ran").assert_code(1);
}
