//! Clients of streams that stall, vanish or never read.

use crate::needs;
use crate::support::procs::{self, growth};
use crate::support::{Runtime, Ws, alone, api, bound, eventually, in_uids, runtime, server};
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, Instant};
use tungstenite::Message;

fn assert_gone(marker: &str) {
    let gone = eventually(bound(100), || procs::with_arg(marker).is_empty());
    assert!(gone, "still there: {:?}", procs::with_arg(marker));
}

/// A stream whose command is known to run.
fn sleeping(runtime: &Runtime, marker: &str, before: &str) -> Ws {
    let mut ws = runtime.stream_sh(&format!(
        "echo up; {before} sleep {marker} & sleep {marker}"
    ));
    ws.expect("up\n");
    let running = || procs::with_arg(marker).len() == 2;
    assert!(eventually(bound(5_000), running), "it never ran");
    ws
}

#[test]
fn a_client_that_vanishes_takes_its_command_with_it() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let marker = procs::marker();
    sleeping(&runtime, &marker, "").vanish();
    assert_gone(&marker);
}

#[test]
fn a_client_that_closes_takes_its_command_with_it() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let marker = procs::marker();
    let mut ws = sleeping(&runtime, &marker, "");
    ws.socket.close(None).expect("close");
    ws.socket.flush().expect("flush");
    assert_gone(&marker);
    while ws.step() {}
    assert!(ws.said.close.is_some(), "the close is answered");
    assert!(ws.said.last.is_null(), "{:?}", ws.said);
}

#[test]
fn a_client_that_vanishes_behind_its_own_input_is_seen() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let marker = procs::marker();
    let mut ws = sleeping(&runtime, &marker, "");
    fill(&mut ws);
    ws.vanish();
    assert_gone(&marker);
}

/// Sends input until nothing more is taken, though nobody reads it.
fn fill(ws: &mut Ws) {
    let socket = ws.socket.get_mut().try_clone().expect("a second handle");
    let short = Some(Duration::from_millis(200));
    socket.set_write_timeout(short).expect("set a timeout");
    let most = Instant::now() + bound(30_000);
    while Instant::now() < most {
        let frame = json!({"type": "stdin", "data_base64": "QUFB".repeat(60_000)}).to_string();
        if ws.socket.send(Message::text(frame)).is_err() {
            return;
        }
    }
    panic!("the server takes input without end");
}

#[test]
fn clients_that_vanish_at_once_leave_nothing_running() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let uids = runtime.host_uids();
    for n in 0..20 {
        let ws = match n % 2 {
            0 => Ws::open(api(), &runtime.stream_path()),
            _ => runtime.stream(json!({"command": "sleep", "args": ["1000"]})),
        };
        ws.vanish();
    }
    runtime.sh("echo after").assert_stdout("after\n");
    let gone = eventually(bound(2_000), || in_uids(&uids).is_empty());
    assert!(gone, "still there: {:?}", in_uids(&uids));
}

/// Starts `yes`, reads nothing for some seconds, and tells by how much the server grew meanwhile.
fn stalled(runtime: &Runtime, start: Value) -> (Ws, u64) {
    let mut ws = runtime.stream(start);
    let grown = growth(server(), || std::thread::sleep(Duration::from_secs(3)));
    assert!(ws.socket.get_mut().flush().is_ok());
    (ws, grown)
}

#[test]
fn a_client_that_does_not_read_blocks_the_command_and_not_the_server() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    runtime.sh("yes | head -c 4M");
    let line = "yes & yes >&2 & sleep 1000";
    let start = json!({"command": "sh", "args": ["-c", line]});
    let (mut ws, grown) = stalled(&runtime, start);
    assert!(grown < 8 << 20, "the server grew by {grown} bytes");
    runtime.sh("echo beside").assert_stdout("beside\n");
    // It can still be told: what it says is behind all that it was sent.
    ws.signal("KILL");
    let said = ws.end();
    assert_eq!(said.code(), 137);
    let written = said.last["stdout_bytes"].as_u64().expect("a number");
    assert_eq!(
        written,
        said.stdout.len() as u64,
        "all that was written came"
    );
    assert!(
        written < 64 << 20,
        "{written} bytes: the command was not blocked"
    );
}

#[test]
fn a_timeout_holds_though_nobody_reads() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let marker = procs::marker();
    let line = format!("yes & sleep {marker}");
    let mut ws = runtime.stream(json!({
        "command": "sh", "args": ["-c", line], "timeout_secs": 2,
    }));
    let running = || procs::with_arg(&marker).len() == 1;
    assert!(eventually(bound(5_000), running), "it never ran");
    let limit = Duration::from_secs(2) + bound(1_000);
    let gone = eventually(limit, || procs::with_arg(&marker).is_empty());
    assert!(gone, "it runs on after its time");
    while ws.said.last.is_null() {
        assert!(ws.step());
    }
    assert_eq!(ws.said.last["outcome"], "timed_out");
}

#[test]
fn an_end_is_known_though_nobody_reads() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let starts = [
        json!({"command": "yes", "timeout_secs": 2}),
        // stderr has its end at once.
        json!({"command": "yes", "tty": true, "timeout_secs": 2}),
        json!({"command": "sh", "args": ["-c", "yes & yes >&2"], "timeout_secs": 2}),
        json!({"command": "yes", "detach": true, "timeout_secs": 2, "env": {"A": "B"}}),
    ];
    let mut open: Vec<Ws> = Vec::new();
    for start in starts {
        open.push(runtime.stream(start));
    }
    let path = format!("/v1/execs?runtime={}", runtime.id);
    let mut list = Value::Null;
    let limit = Duration::from_secs(2) + bound(1_000);
    let ended = eventually(limit, || {
        list = api().get(&path).data(200);
        let mut all = list.as_array().expect("a list").iter();
        all.len() == 4 && all.all(|record| record["outcome"] == "timed_out")
    });
    assert!(ended, "{list}");
    // Longer than the server waits for pipes that stay open.
    std::thread::sleep(Duration::from_secs(3));
    for ws in open {
        let said = ws.end();
        assert_eq!((said.code(), said.outcome()), (124, "timed_out"));
        let written = [&said.last["stdout_bytes"], &said.last["stderr_bytes"]];
        let came = [said.stdout.len(), said.stderr.len()];
        assert_eq!(json!(written), json!(came), "all that was written came");
        let id = said.last["exec_id"].as_str().expect("an id");
        assert_eq!(api().record(id)["stdout_bytes"], *written[0]);
    }
}

#[test]
fn many_that_do_not_read_cost_little_each() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let start = json!({"command": "yes"});
    let mut open = Vec::new();
    let grown = growth(server(), || {
        for _ in 0..16 {
            open.push(runtime.stream(start.clone()));
        }
        std::thread::sleep(Duration::from_secs(2));
    });
    assert!(grown < 16 * (2 << 20), "the server grew by {grown} bytes");
    drop(open);
}

#[test]
fn input_that_nobody_reads_is_bounded() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let mut ws = runtime.stream_sh("echo up; sleep 1000");
    ws.expect("up\n");
    let grown = growth(server(), || fill(&mut ws));
    assert!(grown < 8 << 20, "the server grew by {grown} bytes");
}

#[test]
fn input_for_a_command_that_does_not_want_it_does_not_hang() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let mut ws = runtime.stream_sh("exec 0<&-; echo closed; sleep 1; echo done");
    ws.expect("closed\n");
    for _ in 0..40 {
        ws.stdin(&[b'x'; 100_000]);
    }
    let said = ws.end();
    assert_eq!((said.code(), said.text().as_str()), (0, "done\n"));
    // One that ends before it has read all.
    let start = Instant::now();
    let mut ws = runtime.stream(json!({"command": "true"}));
    for _ in 0..40 {
        ws.stdin(&[b'x'; 100_000]);
    }
    assert_eq!(ws.end().code(), 0);
    assert!(start.elapsed() < bound(3_000), "{:?}", start.elapsed());
}

#[test]
fn a_flood_of_pings_from_a_client_that_does_not_read_is_bounded() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let mut ws = runtime.stream(json!({"command": "yes"}));
    std::thread::sleep(Duration::from_secs(1));
    let ping: Vec<u8> = [&[0x89, 0xfd, 0, 0, 0, 0][..], &[b'p'; 125]].concat();
    let pings = ping.repeat(1000);
    let socket = ws.socket.get_mut();
    let short = Some(Duration::from_millis(200));
    socket.set_write_timeout(short).expect("set a timeout");
    let grown = growth(server(), || {
        for _ in 0..300 {
            if socket.write_all(&pings).is_err() {
                break;
            }
        }
    });
    assert!(grown < 8 << 20, "the server grew by {grown} bytes");
}
