//! Streams are execs: they have a record, and with `detach` they outlive their client.

use crate::needs;
use crate::support::procs::{self, marker};
use crate::support::{
    Runtime, Ws, alone, api, assert_error, assert_invalid, bound, eventually, runtime, together,
};
use serde_json::{Value, json};

fn ended(id: &str) -> Value {
    api().ended(id, bound(5_000))
}

fn output(id: &str, stream: &str) -> Vec<u8> {
    let path = format!("/v1/execs/{id}/output?stream={stream}");
    let reply = api().get(&path);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.body
}

/// A detached stream, and its id.
fn detached(runtime: &Runtime, line: &str) -> (Ws, String) {
    let mut ws = runtime.stream(json!({
        "command": "sh", "args": ["-c", line], "detach": true,
    }));
    while ws.said.started.is_none() {
        assert!(ws.step(), "{:?}", ws.said);
    }
    let id = ws.said.started.clone().expect("an id");
    (ws, id)
}

#[test]
fn a_stream_has_a_record() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let said = runtime.stream_sh("echo out; echo err >&2; exit 7").end();
    assert_eq!(said.code(), 7);
    let record = ended(said.last["exec_id"].as_str().expect("an id"));
    for name in [
        "exec_id",
        "outcome",
        "exit_code",
        "stdout_bytes",
        "stderr_bytes",
        "usage",
    ] {
        assert_eq!(record[name], said.last[name], "{name} of {record}");
    }
    assert_eq!(
        (&record["command"], &record["detached"]),
        (&json!("sh"), &json!(false))
    );
}

#[test]
fn the_record_of_a_stream_claims_no_output() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let marker = marker();
    let mut ws = runtime.stream_sh(&format!("echo up; read line; : {marker}"));
    ws.expect("up\n");
    let list = api().get(&format!("/v1/execs?runtime={}", runtime.id));
    let id = list.data(200)[0]["exec_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let check = || {
        let record = api().record(&id);
        assert_eq!(record["output_kept"], false, "{record}");
        assert_eq!(record["stdout_truncated"], Value::Null, "{record}");
        assert_eq!(record["stderr_truncated"], Value::Null, "{record}");
        for query in ["", "?follow=true"] {
            let reply = api().get(&format!("/v1/execs/{id}/output{query}"));
            assert_error(&reply, 404, "not_found");
            let reason = &reply.json()["error"]["details"]["reason"];
            assert_eq!(reason, "output_not_kept");
        }
    };
    check();
    ws.stdin(b"go\n");
    assert_eq!(ws.end().code(), 0);
    assert_eq!(ended(&id)["stdout_bytes"], 3);
    check();
}

#[test]
fn the_record_of_a_stream_whose_client_left_says_cancelled() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let marker = marker();
    let mut ws = runtime.stream_sh(&format!("echo up; sleep {marker}"));
    ws.expect("up\n");
    let mine = format!("/v1/execs?runtime={}", runtime.id);
    let rows = || {
        api()
            .get(&mine)
            .data(200)
            .as_array()
            .expect("a list")
            .clone()
    };
    assert_eq!(rows()[0]["outcome"], "running");
    ws.vanish();
    let id = rows()[0]["exec_id"].as_str().expect("an id").to_owned();
    let record = ended(&id);
    assert_eq!(
        (&record["outcome"], &record["exit_code"]),
        (&json!("cancelled"), &json!(137))
    );
    assert!(procs::with_arg(&marker).is_empty());
}

#[test]
fn a_stream_can_be_cancelled_by_its_id() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let (ws, id) = detached(&runtime, "sleep 1000");
    assert_eq!(api().delete(&format!("/v1/execs/{id}")).status, 200);
    let said = ws.end();
    assert_eq!((said.code(), said.outcome()), (137, "cancelled"));
}

#[test]
fn a_detached_stream_goes_on_when_its_client_leaves() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    for politely in [false, true] {
        let line = "echo one; cat; echo two >&2; sleep 1; echo three";
        let (mut ws, id) = detached(&runtime, line);
        ws.expect("one\n");
        ws.stdin(b"input\n");
        ws.expect("input\n");
        if politely {
            ws.socket.close(None).expect("close");
            while ws.step() {}
        }
        ws.vanish();
        let record = ended(&id);
        assert_eq!(
            (&record["outcome"], &record["exit_code"]),
            (&json!("exited"), &json!(0))
        );
        assert_eq!(record["detached"], true);
        assert_eq!(output(&id, "stdout"), b"one\ninput\nthree\n");
        assert_eq!(output(&id, "stderr"), b"two\n");
    }
}

#[test]
fn a_detached_stream_whose_client_stays_says_everything() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let (ws, id) = detached(&runtime, "head -c 300000 /dev/zero; exit 5");
    let said = ws.end();
    assert_eq!((said.code(), said.stdout.len()), (5, 300_000));
    assert_eq!(said.last["exec_id"], json!(id));
    assert_eq!(output(&id, "stdout").len(), 300_000);
}

#[test]
fn a_detached_stream_survives_its_clients_mistakes() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let (mut ws, id) = detached(&runtime, "sleep 1; echo survived");
    ws.send(&json!({"type": "nonsense"}));
    ws.end().error();
    let record = ended(&id);
    assert_eq!(record["outcome"], "exited");
    assert_eq!(output(&id, "stdout"), b"survived\n");
}

#[test]
fn a_client_that_does_not_stay_for_the_start_still_gets_its_command_run() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let before = runtime.sh("ls /root").stdout().to_owned();
    assert_eq!(before, "");
    for n in 0..5 {
        let start = json!({"command": "touch", "args": [format!("/root/{n}")], "detach": true});
        runtime.stream(start).vanish();
    }
    let all = || runtime.sh("ls /root").stdout() == "0\n1\n2\n3\n4\n";
    assert!(eventually(bound(5_000), all));
}

#[test]
fn a_terminal_can_not_be_detached() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let start = json!({"command": "sh", "tty": true, "detach": true});
    let said = runtime.stream(start).end();
    assert_eq!(said.last["details"]["field"], "detach", "{said:?}");
}

#[test]
fn a_stream_is_never_the_answer_to_an_idempotency_key() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let json = ("Content-Type", "application/json");
    let body = br#"{"command":"true"}"#;
    let headers = [
        ("Accept", "text/event-stream"),
        ("Idempotency-Key", "k1"),
        json,
    ];
    let reply = api().send("POST", &runtime.exec_path(), &headers, Some(body));
    assert_invalid(&reply, "Idempotency-Key");
    let reply = api().send(
        "GET",
        &runtime.stream_path(),
        &[("Idempotency-Key", "k2")],
        None,
    );
    assert_invalid(&reply, "Idempotency-Key");
}
