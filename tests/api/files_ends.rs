//! What happens to a runtime while one of its files is on its way, or waits to be: stop, delete, pause, new limits, no room for
//! another process. On servers of their own, whose logs tell of what no answer does.

use crate::files_limits::{idle, server};
use crate::needs;
use crate::support::files::{
    answer, begin, head, must_read, must_write, pattern, read, uri, write,
};
use crate::support::{Runtime, Server, alone, bound, eventually, procs};
use serde_json::json;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

/// Nothing in the server's log tells of a panic: in a release build that would have been the end of the server.
#[track_caller]
fn assert_calm(server: &Server) {
    assert!(server.stop().success());
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}

fn operate(server: &Server, runtime: &Runtime, operation: &str) {
    let path = format!("/v1/runtimes/{}/{operation}", runtime.id);
    server.api.send("POST", &path, &[], None).data(200);
}

/// An upload whose cell waits for the first byte.
fn upload(server: &Server, runtime: &Runtime, path: &str, length: usize) -> TcpStream {
    let headers = format!("Content-Length: {length}\r\nExpect: 100-continue\r\n");
    let stream = begin(&server.api, "PUT", &uri(runtime, path), &headers);
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    assert_eq!(head(&mut reader).status, 100);
    stream
}

#[test]
fn the_end_of_a_runtime_is_an_end_like_any_other() {
    needs!(Root);
    let _turn = alone();
    let server = server("max_file_transfers = 3\n", 3600);
    for operation in ["stop", "delete"] {
        let runtime = Runtime::create(&server.api, &json!({}));
        runtime.sh("truncate -s 500M large").assert_code(0);
        let download = begin(&server.api, "GET", &uri(&runtime, "large"), "");
        let mut download = BufReader::with_capacity(1, download);
        assert_eq!(head(&mut download).status, 200);
        let mut uploads = ["a", "b"].map(|path| upload(&server, &runtime, path, 1000));
        uploads[0].write_all(b"x").expect("send a byte");
        match operation {
            "stop" => operate(&server, &runtime, "stop"),
            _ => {
                let path = format!("/v1/runtimes/{}", runtime.id);
                server.api.delete(&path).data(200);
            }
        }
        let mut body = Vec::new();
        let _ = download.read_to_end(&mut body);
        assert!(body.len() < 500 << 20, "all of it came");
        // They hear of it at once: nothing more is sent.
        for upload in uploads {
            upload
                .set_read_timeout(Some(bound(2_000)))
                .expect("a timeout");
            let answer = answer(upload);
            assert_eq!(answer.status, 409, "{operation}: {answer:?}");
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(
                body.contains(r#""reason":"stopped""#),
                "{operation}: {body}"
            );
        }
    }
    assert_calm(&server);
}

#[test]
fn a_cell_that_finds_no_room_is_an_answer() {
    needs!(Root);
    let _turn = alone();
    let server = server("", 3600);
    let api = &server.api;
    let runtime = Runtime::create(api, &json!({"limits": {"pids": 8}}));
    must_write(api, &runtime, "file", b"x");
    let marker = procs::marker();
    let line = format!("while :; do sleep {marker} & done 2> /dev/null");
    let body = json!({"command": "bash", "args": ["-c", line]}).to_string();
    // No command may have more than eight, but all together fill the runtime, with its room for their inits.
    let commands =
        [(); 6].map(|()| api.begin(&runtime.exec_path(), body.len() as u64, body.as_bytes()));
    let refused = || {
        let replies = [
            read(api, &runtime, "file"),
            write(api, &runtime, "file", b"y"),
        ];
        replies.iter().all(|reply| reply.status >= 500)
    };
    assert!(eventually(bound(10_000), refused), "there is always room");
    drop(commands);
    let free = || read(api, &runtime, "file").status == 200;
    assert!(eventually(bound(10_000), free), "the room is still taken");
    assert_calm(&server);
}

#[test]
fn one_that_waited_for_its_place_brings_no_old_limits_back() {
    needs!(Root);
    let _turn = alone();
    let text = "max_file_transfers_per_runtime = 1\nmax_queue_per_runtime = 1\nqueue_secs = 120\n";
    let server = server(text, 3600);
    let api = &server.api;
    let runtime = Runtime::create(api, &json!({"limits": {"pids": 64}}));
    let line = "i=0; until [ -e go ] || [ $i -ge 400 ]; do sleep 0.05; i=$((i+1)); done; \
                i=0; while [ $i -lt 22 ]; do sleep 3 & i=$((i+1)); done; wait";
    std::thread::scope(|scope| {
        let running = [(); 3].map(|()| scope.spawn(|| runtime.sh(line)));
        let all = || procs::with_arg(line).len() >= 3;
        assert!(eventually(bound(10_000), all));
        let mut upload = upload(&server, &runtime, "first", 1);
        let (tell, replies) = mpsc::channel();
        for _ in 0..2 {
            let (tell, runtime) = (tell.clone(), &runtime);
            scope.spawn(move || drop(tell.send(write(api, runtime, "go", b""))));
        }
        // One of them finds the queue full, so the other one is in it.
        let reply = replies.recv().expect("a reply");
        assert_eq!(reply.status, 429, "{}", reply.text());
        let path = format!("/v1/runtimes/{}", runtime.id);
        let headers = [("Content-Type", "application/json")];
        api.send(
            "PATCH",
            &path,
            &headers,
            Some(br#"{"limits": {"pids": 25}}"#),
        )
        .data(200);
        upload.write_all(b"x").expect("send the file");
        assert_eq!(replies.recv().expect("a reply").status, 204);
        let ended = running.map(|one| one.join().expect("no panic"));
        let refused = ended.iter().any(|one| one.stderr().contains("fork"));
        assert!(
            refused,
            "69 processes where 25 may be, and 32 inits: {ended:?}"
        );
    });
}

#[test]
fn one_that_waited_for_its_place_finds_its_runtime_paused() {
    needs!(Root);
    let _turn = alone();
    let text = "max_file_transfers_per_runtime = 1\nmax_queue_per_runtime = 1\nqueue_secs = 120\n";
    let server = server(text, 3600);
    let api = &server.api;
    let runtime = Runtime::create(api, &json!({}));
    must_write(api, &runtime, "file", b"x");
    let upload = upload(&server, &runtime, "first", 1);
    std::thread::scope(|scope| {
        let (tell, replies) = mpsc::channel();
        for _ in 0..2 {
            let (tell, runtime) = (tell.clone(), &runtime);
            scope.spawn(move || drop(tell.send(read(api, runtime, "file"))));
        }
        assert_eq!(replies.recv().expect("a reply").status, 429);
        operate(&server, &runtime, "pause");
        // The place is free when the cell of the upload is gone.
        drop(upload);
        let reply = replies.recv().expect("a reply");
        assert_eq!(reply.status, 409, "{}", reply.text());
        assert!(reply.text().contains("paused"), "{}", reply.text());
    });
    operate(&server, &runtime, "stop");
    assert_eq!(must_read(api, &runtime, "file"), b"x");
}

#[test]
fn a_pause_is_no_silence() {
    needs!(Root);
    let _turn = alone();
    let server = server("", idle());
    let api = &server.api;
    let runtime = Runtime::create(api, &json!({}));
    // More than all buffers on the way hold, in both directions.
    let bytes = pattern(32 << 20);
    must_write(api, &runtime, "down", &bytes);
    let mut up = upload(&server, &runtime, "up", bytes.len());
    let down = begin(api, "GET", &uri(&runtime, "down"), "");
    let mut down = BufReader::with_capacity(1, down);
    assert_eq!(head(&mut down).status, 200);
    operate(&server, &runtime, "pause");
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| {
            let _ = up.write_all(&bytes);
            answer(up)
        });
        let received = scope.spawn(|| {
            let mut body = Vec::new();
            let _ = down.read_to_end(&mut body);
            body
        });
        // Longer than a silence may be.
        std::thread::sleep(Duration::from_secs(idle()) + bound(1_000));
        operate(&server, &runtime, "resume");
        let answer = sent.join().expect("no panic");
        assert_eq!(answer.status, 204, "{}", answer.head);
        assert!(received.join().expect("no panic") == bytes, "cut off");
    });
    assert!(must_read(api, &runtime, "up") == bytes);
}
