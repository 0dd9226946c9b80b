//! Clients that stall, vanish or send halves.

use crate::needs;
use crate::support::{alone, api, bound, eventually, in_uids, procs, runtime, together};
use serde_json::json;
use std::net::{Shutdown, TcpStream};

#[test]
fn a_hundred_half_sent_bodies_do_no_harm() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let body = json!({"command": "true", "stdin": "x".repeat(1000)}).to_string();
    let half = &body.as_bytes()[..body.len() / 2];
    let open: Vec<TcpStream> = (0..100)
        .map(|_| api().begin(&runtime.exec_path(), body.len() as u64, half))
        .collect();
    let exec = runtime.sh("echo between");
    exec.assert_stdout("between\n");
    assert!(
        exec.took < bound(1_000),
        "stalled clients hold others up: {exec:?}"
    );
    for (n, stream) in open.iter().enumerate() {
        if n % 2 == 0 {
            stream.shutdown(Shutdown::Both).expect("shut down");
        }
    }
    drop(open);
    runtime.sh("echo after").assert_stdout("after\n");
}

#[test]
fn a_vanished_client_takes_its_command_with_it() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let marker = procs::marker();
    let line = format!("sleep {marker} & sleep {marker}");
    let body = json!({"command": "sh", "args": ["-c", line]}).to_string();
    let stream = api().begin(&runtime.exec_path(), body.len() as u64, body.as_bytes());
    assert!(
        eventually(bound(5_000), || procs::with_arg(&marker).len() == 2),
        "it never ran"
    );
    drop(stream);
    assert!(
        eventually(bound(100), || procs::with_arg(&marker).is_empty()),
        "still there: {:?}",
        procs::with_arg(&marker)
    );
}

#[test]
fn a_client_that_sends_more_and_vanishes_takes_its_command_with_it() {
    needs!(Root);
    let _turn = alone();
    use std::io::Write;
    let runtime = runtime();
    let marker = procs::marker();
    let body = json!({"command": "sleep", "args": [marker]}).to_string();
    let mut stream = api().begin(&runtime.exec_path(), body.len() as u64, body.as_bytes());
    assert!(
        eventually(bound(5_000), || procs::with_arg(&marker).len() == 1),
        "it never ran"
    );
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send a further request");
    // The server may read it now or with the end; both must be enough.
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(procs::with_arg(&marker).len(), 1, "it ended too early");
    drop(stream);
    assert!(
        eventually(bound(100), || procs::with_arg(&marker).is_empty()),
        "still there: {:?}",
        procs::with_arg(&marker)
    );
}

#[test]
fn a_client_that_sends_far_ahead_and_vanishes_takes_its_command_with_it() {
    needs!(Root);
    let _turn = alone();
    use std::io::Write;
    let runtime = runtime();
    let marker = procs::marker();
    let body = json!({"command": "sleep", "args": [marker]}).to_string();
    let mut stream = api().begin(&runtime.exec_path(), body.len() as u64, body.as_bytes());
    assert!(
        eventually(bound(5_000), || procs::with_arg(&marker).len() == 1),
        "it never ran"
    );
    // More than the server reads and the kernel takes: the end stands behind it. The server may end the connection first.
    let _ = stream.write_all(&[b'x'; 200_000]);
    drop(stream);
    assert!(
        eventually(bound(100), || procs::with_arg(&marker).is_empty()),
        "still there: {:?}",
        procs::with_arg(&marker)
    );
}

#[test]
fn many_short_requests_at_once_are_all_answered() {
    needs!(Root);
    let _turn = together();
    use std::io::{Read, Write};
    const REQUESTS: usize = 5_000;
    let mut stream = api().connect();
    let mut sending = stream.try_clone().expect("a second handle");
    let sender = std::thread::spawn(move || {
        let requests = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(REQUESTS);
        sending.write_all(requests.as_bytes()).expect("send them");
        let last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        sending.write_all(last).expect("send the last");
    });
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("the answers");
    assert_eq!(answers.matches(r#""status":"ok""#).count(), REQUESTS + 1);
    sender.join().expect("no panic");
}

#[test]
fn a_client_that_ends_its_side_after_a_short_request_is_answered() {
    needs!(Root);
    let _turn = alone();
    use std::io::{Read, Write};
    let mut stream = api().connect();
    stream
        .write_all(b"GET /healthz HTTP/1.0\r\n\r\n")
        .expect("send");
    stream.shutdown(Shutdown::Write).expect("end our side");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer");
    assert!(answer.contains(r#""status":"ok""#), "{answer:?}");
}

#[test]
fn clients_that_close_at_once_leave_nothing_running() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let uids = runtime.host_uids();
    let body = json!({"command": "sleep", "args": ["1000"]}).to_string();
    // Closed in the same moment: the command may have started or not.
    for _ in 0..20 {
        drop(api().begin(&runtime.exec_path(), body.len() as u64, body.as_bytes()));
    }
    runtime.sh("echo after").assert_stdout("after\n");
    let gone = eventually(bound(2_000), || in_uids(&uids).is_empty());
    assert!(gone, "still there: {:?}", in_uids(&uids));
}

#[test]
fn one_connection_serves_many_requests() {
    needs!(Root);
    let _turn = alone();
    use std::io::{BufRead, BufReader, Read, Write};
    let mut stream = api().connect();
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    for _ in 0..20 {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("send");
        let (mut length, mut line) = (0usize, String::new());
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).expect("a header");
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the body");
        assert_eq!(body, br#"{"data":{"status":"ok"}}"#);
    }
}
