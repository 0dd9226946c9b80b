//! The same events for plain HTTP clients: server-sent events in answer to an exec.

use crate::needs;
use crate::support::probe::{base64, unbase64};
use crate::support::procs::{self, growth};
use crate::support::{
    Runtime, alone, api, assert_error, assert_invalid, bound, eventually, runtime, server, together,
};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The answer to an exec, as it comes.
struct Events {
    reader: BufReader<TcpStream>,
    comments: usize,
}

impl Events {
    /// Sends an exec, and reads the head of the answer.
    fn open(runtime: &Runtime, body: &Value) -> Events {
        let body = body.to_string();
        let mut stream = api().connect();
        let (path, length) = (runtime.exec_path(), body.len());
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nAccept: text/event-stream\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
            api().token
        );
        stream.write_all(head.as_bytes()).expect("send the head");
        stream.write_all(body.as_bytes()).expect("send the body");
        let reader = BufReader::new(stream);
        let mut events = Events {
            reader,
            comments: 0,
        };
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head += &events.line();
        }
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        events
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a line in time");
        line
    }

    /// The next event. Lines of the chunked encoding stand between: an event's own begin with a word and a colon.
    fn next(&mut self) -> (String, Value) {
        let mut kind = None;
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "the answer broke off");
            if let Some(name) = line.strip_prefix("event: ") {
                kind = Some(name.trim().to_owned());
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(data).expect("JSON");
                assert_eq!(data["type"].as_str(), kind.as_deref(), "{data}");
                return (kind.expect("a name"), data);
            } else if line.starts_with(':') {
                self.comments += 1;
            }
        }
    }

    /// Everything up to `exit` or `error`.
    fn end(mut self) -> (Vec<u8>, Vec<u8>, Value) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            let (kind, data) = self.next();
            let bytes = || unbase64(data["data_base64"].as_str().expect("bytes"));
            match kind.as_str() {
                "stdout" => stdout.extend(bytes()),
                "stderr" => stderr.extend(bytes()),
                "exit" | "error" => return (stdout, stderr, data),
                other => panic!("no event of the contract: {other}"),
            }
        }
    }
}

#[test]
fn events_are_the_frames_of_a_stream() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let line = "cat; head -c 300000 /dev/zero >&2; exit 3";
    let body = json!({"command": line, "stdin_base64": base64(&[0, 1, 254, 255])});
    let (stdout, stderr, exit) = Events::open(&runtime, &body).end();
    assert_eq!((stdout, stderr.len()), (vec![0, 1, 254, 255], 300_000));
    assert_eq!((&exit["code"], &exit["exit_code"]), (&json!(3), &json!(3)));
    assert_eq!(exit["outcome"], "exited");
    assert_eq!(exit["stderr_bytes"], 300_000);
    let body = json!({"command": "no-such-program"});
    assert_eq!(Events::open(&runtime, &body).end().2["code"], 127);
}

#[test]
fn events_come_while_the_command_runs() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let mut events = Events::open(
        &runtime,
        &json!({"command": "echo one; sleep 12; echo two"}),
    );
    assert_eq!(events.next().1["data_base64"], base64(b"one\n"));
    assert_eq!(events.next().1["data_base64"], base64(b"two\n"));
    assert_eq!(events.comments, 1, "a heartbeat after ten seconds");
    assert_eq!(events.next().1["code"], 0);
}

#[test]
fn a_cap_cuts_each_output_and_says_so() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let body = json!({
        "command": "head -c 200000 /dev/zero; printf 123 >&2", "max_output_bytes": 100_000,
    });
    let (stdout, stderr, exit) = Events::open(&runtime, &body).end();
    assert_eq!((stdout.len(), stderr), (100_000, b"123".to_vec()));
    assert_eq!(exit["stdout_truncated"], true);
    assert_eq!(exit["stderr_truncated"], false);
    assert_eq!(exit["stdout_bytes"], 200_000);
    let body = json!({"command": "echo x", "max_output_bytes": 0});
    let (stdout, _, exit) = Events::open(&runtime, &body).end();
    assert_eq!(
        (stdout, &exit["stdout_truncated"]),
        (Vec::new(), &json!(true))
    );
}

#[test]
fn what_is_wrong_before_the_start_is_a_normal_error() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let accept = [
        ("Accept", "application/json, text/event-stream"),
        ("Content-Type", "application/json"),
    ];
    let post = |api: &crate::support::Api, path: &str, body: Value| {
        api.send("POST", path, &accept, Some(body.to_string().as_bytes()))
    };
    let path = runtime.exec_path();
    assert_invalid(&post(api(), &path, json!({})), "command");
    assert_invalid(
        &post(api(), &path, json!({"command": "true", "timeout": 1})),
        "timeout",
    );
    let utf8 = json!({"command": "true", "output_encoding": "utf8"});
    assert_invalid(&post(api(), &path, utf8), "output_encoding");
    let missing = "/v1/runtimes/no-such/exec";
    assert_error(
        &post(api(), missing, json!({"command": "true"})),
        404,
        "not_found",
    );
    let stranger = api().with_token("x");
    assert_error(
        &post(&stranger, &path, json!({"command": "true"})),
        401,
        "unauthenticated",
    );
    let fine = post(api(), &path, json!({"command": "true"}));
    assert_eq!(fine.header("content-type"), "text/event-stream");
    for accept in [
        "text/event-stream;q=0",
        "application/json, text/event-stream;q=0.1",
    ] {
        let headers = [("Accept", accept), ("Content-Type", "application/json")];
        let reply = api().send("POST", &path, &headers, Some(br#"{"command":"true"}"#));
        assert_eq!(reply.header("content-type"), "application/json", "{accept}");
    }
    for detach in [false, true] {
        let body = json!({"command": "true", "cwd": "/no/such", "detach": detach});
        assert_invalid(&post(api(), &path, body), "cwd");
    }
    let list = api().get(&format!("/v1/execs?runtime={}&outcome=failed", runtime.id));
    assert_eq!(list.data(200), json!([]), "what was refused has no record");
}

#[test]
fn a_working_directory_delays_nothing_but_the_head() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let body = json!({"command": "pwd; echo err >&2; sleep 2; pwd", "cwd": "/usr"});
    let (stdout, stderr, exit) = Events::open(&runtime, &body).end();
    assert_eq!(
        (stdout, stderr, &exit["code"]),
        (b"/usr\n/usr\n".to_vec(), b"err\n".to_vec(), &json!(0))
    );
    let silent = json!({"command": "sleep 2; exit 3", "cwd": "/usr"});
    assert_eq!(Events::open(&runtime, &silent).end().2["code"], 3);
    let detached = json!({"command": "pwd", "cwd": "/usr", "detach": true});
    let mut events = Events::open(&runtime, &detached);
    assert_eq!(events.next().0, "started");
    assert_eq!(events.end().0, b"/usr\n");
}

#[test]
fn a_client_that_vanishes_takes_its_command_with_it() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    for line in ["", "yes &"] {
        let marker = procs::marker();
        let body = json!({"command": "sh", "args": ["-c", format!("{line} sleep {marker}")]});
        let events = Events::open(&runtime, &body);
        let running = || procs::with_arg(&marker).len() == 1;
        assert!(eventually(bound(5_000), running), "it never ran");
        std::thread::sleep(Duration::from_millis(200));
        drop(events);
        let gone = eventually(bound(100), || procs::with_arg(&marker).is_empty());
        assert!(gone, "{line:?}: it outlived its client");
    }
}

#[test]
fn a_client_that_does_not_read_blocks_the_command_and_not_the_server() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    runtime.sh("yes | head -c 4M");
    let marker = procs::marker();
    let (wait, seconds) = (bound(5_000), bound(7_000).as_secs());
    let body = json!({"command": "yes", "args": [marker], "timeout_secs": seconds});
    let cpu_time = || procs::cpu_ticks(*procs::with_arg(&marker).first()?);
    let mut events = None;
    let mut blocked = false;
    let grown = growth(server(), || {
        events = Some(Events::open(&runtime, &body));
        blocked = eventually(wait, || {
            let before = cpu_time();
            std::thread::sleep(Duration::from_millis(500));
            before.is_some() && before == cpu_time()
        });
    });
    assert!(blocked, "the command was not blocked");
    assert!(grown < 8 << 20, "the server grew by {grown} bytes");
    let (stdout, _, exit) = events.expect("it was opened").end();
    assert_eq!(exit["outcome"], "timed_out");
    assert_eq!(exit["stdout_bytes"], stdout.len());
}

#[test]
fn a_detached_command_tells_its_id_and_goes_on() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let body = json!({"command": "echo one; sleep 1; echo two", "detach": true});
    let mut events = Events::open(&runtime, &body);
    let (kind, started) = events.next();
    assert_eq!(kind, "started");
    let id = started["exec_id"].as_str().expect("an id").to_owned();
    assert_eq!(events.next().1["data_base64"], base64(b"one\n"));
    drop(events);
    let ended = eventually(bound(5_000), || api().record(&id)["outcome"] == "exited");
    assert!(ended, "{}", api().record(&id));
    let output = api().get(&format!("/v1/execs/{id}/output"));
    assert_eq!(output.body, b"one\ntwo\n");
}
