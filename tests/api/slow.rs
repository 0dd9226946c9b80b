//! Answers that are late begin before they are known.

use crate::needs;
use crate::support::{alone, api, bound, eventually, procs, runtime};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Reads a response's head; gives its status line and the rest of the stream.
fn head(stream: TcpStream) -> (String, BufReader<TcpStream>) {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        if line == "\r\n" {
            assert!(
                lines
                    .iter()
                    .any(|l: &String| l.eq_ignore_ascii_case("transfer-encoding: chunked\r\n"))
            );
            return (lines.swap_remove(0), reader);
        }
        lines.push(line);
    }
}

/// One chunk of a chunked body.
fn chunk(reader: &mut BufReader<TcpStream>) -> Vec<u8> {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a chunk's size");
    let size = usize::from_str_radix(line.trim(), 16).expect("a size");
    let mut bytes = vec![0; size + 2];
    reader.read_exact(&mut bytes).expect("a chunk");
    bytes.truncate(size);
    bytes
}

#[test]
fn a_command_of_eighteen_seconds_keeps_its_client() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let body = json!({"command": "sh", "args": ["-c", "sleep 18; echo done"]}).to_string();
    let began = Instant::now();
    let stream = api().begin(&runtime.exec_path(), body.len() as u64, body.as_bytes());
    let (status, mut reader) = head(stream);
    assert_eq!(status, "HTTP/1.1 200 OK\r\n");
    let mut json = Vec::new();
    for secs in [10, 15] {
        json.extend(chunk(&mut reader));
        let at = began.elapsed();
        let least = Duration::from_secs(secs) - Duration::from_millis(500);
        assert!(
            at >= least && at < Duration::from_secs(secs) + bound(2_000),
            "a byte after {at:?}"
        );
        assert!(json.iter().all(|byte| *byte == b' '), "{json:?}");
    }
    assert_eq!(json.len(), 2);
    loop {
        let more = chunk(&mut reader);
        if more.is_empty() {
            break;
        }
        json.extend(more);
    }
    let answer: Value = serde_json::from_slice(&json).expect("JSON after spaces");
    assert_eq!(answer["data"]["stdout"], "done\n");
}

#[test]
fn a_client_that_leaves_a_late_answer_takes_its_command_along() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let marker = procs::marker();
    let body = json!({"command": "sleep", "args": [marker]}).to_string();
    let stream = api().begin(&runtime.exec_path(), body.len() as u64, body.as_bytes());
    let (_, mut reader) = head(stream);
    assert_eq!(chunk(&mut reader), b" ");
    assert!(!procs::with_arg(&marker).is_empty());
    drop(reader);
    assert!(
        eventually(bound(100), || procs::with_arg(&marker).is_empty()),
        "it lives on"
    );
}
