//! What bounds a transfer: sizes, places, silence. On a server of their own with small bounds.

use crate::needs;
use crate::support::files::{
    Answer, answer, begin, head, must_read, must_write, pattern, read, uri, write,
};
use crate::support::mounts::TestDir;
use crate::support::server::Options;
use crate::support::{
    Reply, Runtime, Server, alone, assert_error, bound, eventually, leaks, procs,
};
use serde_json::json;
use std::io::{BufReader, Read, Write};
use std::time::Instant;

const SMALL: &str = "max_file_bytes = 100000\nmax_file_read_bytes = 60000\nmax_file_transfers = 3\n\
                     max_file_transfers_per_runtime = 2\nqueue_secs = 1\n";

/// Seconds of silence that end a transfer here.
pub fn idle() -> u64 {
    bound(2_000).as_secs_f64().ceil() as u64
}

/// One with these lines in its configuration.
pub fn server(text: &str, idle_secs: u64) -> Server {
    let text = format!("{text}file_idle_secs = {idle_secs}\n");
    let dir = TestDir::new();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, text).expect("write the configuration");
    let options = Options {
        args: vec!["--config".to_owned(), file.display().to_string()],
        ..Options::default()
    };
    Server::start_in(dir, options).unwrap_or_else(|text| panic!("{text}"))
}

/// Cells of a runtime, by the processes in its uid range.
fn cells(server: &Server, uids: &std::ops::Range<u32>) -> usize {
    let mut pids = procs::in_uids(uids);
    pids.retain(|pid| !leaks::is_foreign(server, *pid));
    pids.len()
}

#[test]
fn sizes_are_bounded_in_both_directions() {
    needs!(Root);
    let _turn = alone();
    let server = server(SMALL, idle());
    let api = &server.api;
    let runtime = Runtime::create(api, &json!({}));
    must_write(api, &runtime, "file", &pattern(100_000));
    let reply = read(api, &runtime, "file");
    assert_error(&reply, 422, "invalid_argument");
    assert!(
        reply.text().contains("file is too large"),
        "{}",
        reply.text()
    );
    runtime.sh("head -c 60000 file > small").assert_code(0);
    assert_eq!(must_read(api, &runtime, "small"), pattern(60_000));

    let too_large = |answer: &Answer| {
        assert_eq!(answer.status, 413, "{}", answer.head);
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(body.contains("100000"), "{body}");
    };
    // By its length alone, before a byte of it was sent.
    let start = Instant::now();
    let headers = "Content-Length: 100001\r\n";
    too_large(&answer(begin(api, "PUT", &uri(&runtime, "file"), headers)));
    assert!(start.elapsed() < bound(6_000), "{:?}", start.elapsed());
    // By what came.
    let headers = "Transfer-Encoding: chunked\r\n";
    let mut stream = begin(api, "PUT", &uri(&runtime, "file"), headers);
    for _ in 0..2 {
        let chunk = [b"C351\r\n".as_slice(), &[b'x'; 0xC351], b"\r\n"].concat();
        stream.write_all(&chunk).expect("send a chunk");
    }
    let _ = stream.write_all(b"0\r\n\r\n");
    too_large(&answer(stream));
    runtime
        .sh("ls -A; stat -c %s file")
        .assert_stdout("file\nsmall\n100000\n");
}

#[test]
fn transfers_have_places_of_their_own() {
    needs!(Root);
    let _turn = alone();
    let server = server(SMALL, 3600);
    let api = &server.api;
    let (full, other) = (
        Runtime::create(api, &json!({})),
        Runtime::create(api, &json!({})),
    );
    must_write(api, &full, "file", b"x");
    let begun = |runtime: &Runtime, name: &str| {
        let headers = "Content-Length: 10\r\nExpect: 100-continue\r\n";
        let stream = begin(api, "PUT", &uri(runtime, name), headers);
        let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
        assert_eq!(head(&mut reader).status, 100);
        stream
    };
    let refused = |reply: &Reply, status, code| {
        assert_error(reply, status, code);
        assert!(
            reply.took.as_secs_f64() >= 0.9,
            "not let wait: {:?}",
            reply.took
        );
    };
    let in_full = ["a", "b"].map(|name| begun(&full, name));
    refused(&read(api, &full, "file"), 429, "rate_limited");
    must_write(api, &other, "file", b"y");
    let in_other = begun(&other, "c");
    refused(&read(api, &other, "file"), 503, "unavailable");
    // They keep no command from running, wherever.
    full.sh("echo through").assert_stdout("through\n");
    drop((in_full, in_other));
    let free = || read(api, &full, "file").status == 200 && read(api, &other, "file").status == 200;
    assert!(eventually(bound(5_000), free), "the places are still taken");
    full.sh("ls -A").assert_stdout("file\n");
}

#[test]
fn silence_ends_a_transfer() {
    needs!(Root);
    let _turn = alone();
    let server = server(SMALL, idle());
    let api = &server.api;
    let runtime = Runtime::create(api, &json!({}));
    let uids = runtime.host_uids();
    must_write(api, &runtime, "file", b"old");
    let mut stream = begin(api, "PUT", &uri(&runtime, "file"), "Content-Length: 10\r\n");
    stream.write_all(b"abc").expect("send a part");
    let start = Instant::now();
    let silent = answer(stream);
    assert_eq!(silent.status, 400, "{}", silent.head);
    let took = start.elapsed();
    assert!(
        took.as_secs_f64() > 0.9 * idle() as f64 && took < bound(6_000),
        "{took:?}"
    );
    let gone = || cells(&server, &uids) == 0;
    assert!(eventually(bound(2_000), gone), "the cell is still there");
    assert_eq!(must_read(api, &runtime, "file"), b"old");
}

#[test]
fn slow_is_not_silent() {
    needs!(Root);
    let _turn = alone();
    let server = server(SMALL, idle());
    let api = &server.api;
    let runtime = Runtime::create(api, &json!({}));
    let mut stream = begin(api, "PUT", &uri(&runtime, "slow"), "Content-Length: 6\r\n");
    // Longer in all than what would be too long a silence.
    for byte in b"slowly" {
        std::thread::sleep(std::time::Duration::from_millis(idle() * 1000 / 4));
        stream.write_all(&[*byte]).expect("send a byte");
    }
    assert_eq!(answer(stream).status, 204);
    assert_eq!(must_read(api, &runtime, "slow"), b"slowly");
}

#[test]
fn a_client_that_reads_nothing_is_given_up() {
    needs!(Root);
    let _turn = alone();
    let server = server("", idle());
    let api = &server.api;
    let runtime = Runtime::create(api, &json!({}));
    let uids = runtime.host_uids();
    // More than all buffers between the file and the client hold.
    runtime.sh("truncate -s 200M large").assert_code(0);
    let mut stream = begin(api, "GET", &uri(&runtime, "large"), "");
    let mut first = [0; 1000];
    stream.read_exact(&mut first).expect("the answer begins");
    assert!(first.starts_with(b"HTTP/1.1 200"));
    assert!(cells(&server, &uids) > 0, "nothing sends");
    let gone = || cells(&server, &uids) == 0;
    assert!(eventually(bound(10_000), gone), "the cell waits for ever");
    // What came is short of what was announced: nobody can take it for the file.
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < 200 << 20, "all of it came");
    let _ = write(api, &runtime, "after", b"x");
    assert_eq!(must_read(api, &runtime, "after"), b"x");
}
