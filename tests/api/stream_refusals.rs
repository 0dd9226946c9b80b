//! Streams that are refused: before the upgrade with a normal error, after it in a frame.

use crate::needs;
use crate::support::server::Options;
use crate::support::{
    Api, Server, Ws, api, assert_error, assert_invalid, bound, eventually, procs, runtime, together,
};
use serde_json::{Value, json};
use std::io::{Read, Write};
use tungstenite::Message;

const HANDSHAKE: &[(&str, &str)] = &[
    ("Connection", "keep-alive, Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

fn handshake(api: &Api, path: &str) -> crate::support::Reply {
    api.send("GET", path, HANDSHAKE, None)
}

#[test]
fn what_can_be_refused_before_the_upgrade_is_a_normal_error() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let path = runtime.stream_path();
    assert_error(
        &handshake(&api().with_token(""), &path),
        401,
        "unauthenticated",
    );
    assert_error(
        &handshake(&api().with_token("x"), &path),
        401,
        "unauthenticated",
    );
    let missing = "/v1/runtimes/no-such/exec/stream";
    assert_error(&handshake(api(), missing), 404, "not_found");
    assert!(handshake(api(), missing).text().contains("was not found"));
}

#[test]
fn what_is_no_handshake_is_told_what_is_missing() {
    needs!(Root);
    let _turn = together();
    let path = runtime().stream_path();
    for (index, (name, _)) in HANDSHAKE.iter().enumerate() {
        let mut headers = HANDSHAKE.to_vec();
        headers.remove(index);
        assert_invalid(&api().send("GET", &path, &headers, None), name);
    }
    let mut old = HANDSHAKE.to_vec();
    old[2].1 = "8";
    assert_invalid(
        &api().send("GET", &path, &old, None),
        "Sec-WebSocket-Version",
    );
    assert_invalid(&api().get(&path), "Upgrade");
    let post = api().send("POST", &path, HANDSHAKE, Some(b"{}"));
    assert_error(&post, 405, "invalid_argument");
}

fn refused(start: Value) -> Value {
    let runtime = runtime();
    let said = runtime.stream(start).end();
    said.error();
    assert_eq!(said.close, Some(1008), "{said:?}");
    assert_eq!(said.last["code"], "invalid_argument");
    assert!(said.stdout.is_empty() && said.stderr.is_empty());
    said.last
}

#[test]
fn a_start_that_can_not_be_names_its_field() {
    needs!(Root);
    let _turn = together();
    for (field, start) in [
        ("command", json!({})),
        ("command", json!({"command": ""})),
        ("command", json!({"command": 5})),
        ("args[1]", json!({"command": "true", "args": ["", "a\0b"]})),
        ("env", json!({"command": "true", "env": ["A"]})),
        ("env", json!({"command": "true", "env": {"1": ""}})),
        ("cwd", json!({"command": "true", "cwd": "/no/such"})),
        (
            "timeout_secs",
            json!({"command": "true", "timeout_secs": 3601}),
        ),
        (
            "limits.pids",
            json!({"command": "true", "limits": {"pids": 0}}),
        ),
        ("tty", json!({"command": "true", "tty": "yes"})),
        ("rows", json!({"command": "true", "tty": true, "rows": 0})),
        (
            "cols",
            json!({"command": "true", "tty": true, "cols": 65536}),
        ),
        ("rows", json!({"command": "true", "rows": -1})),
        ("stdin", json!({"command": "true", "stdin": "file"})),
        (
            "stdin",
            json!({"command": "true", "stdin": "none", "tty": true}),
        ),
    ] {
        let error = refused(start.clone());
        let named = error["details"]["field"].as_str().unwrap_or_default();
        assert!(named.contains(field), "{start}: {error}");
    }
}

#[test]
fn an_unknown_field_of_start_is_named_with_the_nearest() {
    needs!(Root);
    let _turn = together();
    for (unknown, near) in [
        ("timeout", "timeout_secs"),
        ("row", "rows"),
        ("workdir", "fields are"),
    ] {
        let mut start = json!({"command": "true"});
        start[unknown] = 1.into();
        let error = refused(start);
        assert_eq!(error["details"]["field"], unknown);
        assert!(
            error["message"].as_str().expect("text").contains(near),
            "{error}"
        );
    }
}

#[test]
fn a_start_that_gives_a_field_twice_is_refused() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for (field, start) in [
        (
            "timeout_secs",
            r#"{"type":"start","command":"true","timeout_secs":1,"timeout_secs":3600}"#,
        ),
        (
            "env.A",
            r#"{"type":"start","command":"true","env":{"A":"","A":""}}"#,
        ),
    ] {
        let mut ws = Ws::open(api(), &runtime.stream_path());
        ws.socket.send(Message::text(start)).expect("send it");
        let said = ws.end();
        assert_eq!(said.last["details"]["field"], field, "{said:?}");
        assert_eq!(said.close, Some(1008));
    }
}

/// A server of the test's own with this configuration file.
fn server_with(config: &str) -> Server {
    let mut file = tempfile::NamedTempFile::new().expect("make a file");
    file.write_all(config.as_bytes()).expect("write it");
    let path = file.path().to_str().expect("a path").to_owned();
    // It is read at the start only.
    Server::start(Options {
        args: vec!["--config".into(), path],
        ..Options::default()
    })
}

#[test]
fn a_full_server_says_so_in_a_frame() {
    needs!(Root);
    let _turn = together();
    let server = server_with("max_execs = 1\nqueue_secs = 0\n");
    let path = "/v1/runtimes/example/exec/stream";
    let mut first = Ws::open(&server.api, path);
    first.start(json!({"command": "cat"}));
    first.stdin(b"up\n");
    first.expect("up\n");
    let mut second = Ws::open(&server.api, path);
    second.start(json!({"command": "true"}));
    let said = second.end();
    assert_eq!(said.last["code"], "unavailable", "{said:?}");
    assert_eq!(said.last["details"]["reason"], "server_busy");
    assert_eq!(said.close, Some(1013), "try again later");
    first.close_stdin();
    assert_eq!(first.end().code(), 0);
    // And the place is free again.
    let free = eventually(bound(2_000), || {
        let mut third = Ws::open(&server.api, path);
        third.start(json!({"command": "true"}));
        third.end().last["type"] == "exit"
    });
    assert!(free);
}

#[test]
fn a_deleted_runtime_ends_its_streams() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let marker = procs::marker();
    let mut ws = runtime.stream_sh(&format!("echo up; sleep {marker}"));
    ws.expect("up\n");
    assert_eq!(
        api().delete(&format!("/v1/runtimes/{}", runtime.id)).status,
        200
    );
    let said = ws.end();
    assert_eq!((said.code(), said.outcome()), (137, "cancelled"));
    assert!(procs::with_arg(&marker).is_empty());
}

#[test]
fn shutdown_tells_every_stream() {
    needs!(Root);
    let _turn = together();
    let server = server_with("drain_secs = 1\n");
    let path = "/v1/runtimes/example/exec/stream";
    let waiting = Ws::open(&server.api, path);
    let mut running = Ws::open(&server.api, path);
    running.start(json!({"command": "sh", "args": ["-c", "echo up; sleep 1000"]}));
    running.expect("up\n");
    std::thread::scope(|scope| {
        let stopped = scope.spawn(|| server.stop());
        let said = waiting.end();
        assert_eq!(said.last["code"], "unavailable", "{said:?}");
        assert_eq!(said.close, Some(1001), "going away");
        let said = running.end();
        assert_eq!((said.code(), said.outcome()), (137, "cancelled"));
        assert!(stopped.join().expect("no panic").success());
    });
}

#[test]
fn a_stream_counts_as_a_connection() {
    needs!(Root);
    let _turn = together();
    let server = server_with("max_connections = 2\n");
    let path = "/v1/runtimes/example/exec/stream";
    let open = || {
        let mut ws = Ws::open(&server.api, path);
        ws.start(json!({"command": "cat"}));
        ws.stdin(b"up\n");
        ws.expect("up\n");
        ws
    };
    let (first, mut second) = (open(), open());
    let mut waiting = server.api.connect();
    waiting
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("send");
    let brief = Some(std::time::Duration::from_millis(300));
    waiting.set_read_timeout(brief).expect("set a timeout");
    let mut answer = [0; 12];
    assert!(
        waiting.read(&mut answer).is_err(),
        "there was room for three"
    );
    first.vanish();
    waiting
        .set_read_timeout(Some(bound(10_000)))
        .expect("set a timeout");
    waiting.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
    second.close_stdin();
    assert_eq!(second.end().code(), 0);
}
