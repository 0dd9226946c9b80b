//! Children that don't start, don't speak or don't end: the supervisor tries again, and ends when it is told to.

use crate::needs;
use crate::support::mounts::TestDir;
use crate::support::server::Options;
use crate::support::{Server, alone, bound, eventually, procs};
use serde_json::json;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

fn signal(pid: u32, signal: i32) {
    // SAFETY: kill(2) takes numbers only; the pid is a process of this test's own server.
    unsafe { libc::kill(pid as i32, signal) };
}

fn with_profiles(dir: &Path) -> Options {
    Options {
        args: vec!["--profiles-dir".into(), dir.display().to_string()],
        ..Options::default()
    }
}

fn works(server: &Server) -> bool {
    let body = json!({"command": "echo", "args": ["again"]}).to_string();
    let headers = [("Content-Type", "application/json")];
    let path = "/v1/runtimes/example/exec";
    let reply = server
        .api
        .try_send("POST", path, &headers, Some(body.as_bytes()));
    reply.is_ok_and(|reply| reply.status == 200)
}

#[test]
fn a_warden_that_can_not_start_for_a_moment_is_started_again() {
    needs!(Root);
    let _turn = alone();
    let profiles = TestDir::new();
    let server = Server::start(with_profiles(profiles.path()));
    let api = server.api_pid();
    let broken = profiles.path().join("broken.toml");
    std::fs::write(&broken, "this is no profile").expect("break the profiles");
    signal(server.warden_pid(), libc::SIGKILL);
    let refused = || server.log().contains("the warden could not start");
    assert!(eventually(bound(10_000), refused), "{}", server.log());
    std::fs::remove_file(&broken).expect("mend the profiles");
    assert!(
        eventually(bound(30_000), || works(&server)),
        "{}",
        server.log()
    );
    assert_eq!(server.api_pid(), api, "the api did not live through it");
}

#[test]
fn a_warden_that_does_not_get_ready_does_not_keep_the_service_from_stopping() {
    needs!(Root);
    let _turn = alone();
    let profiles = TestDir::new();
    let server = Server::start(with_profiles(profiles.path()));
    let pipe = profiles.path().join("silent.toml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).expect("make a pipe to hang on");
    let first = server.warden_pid();
    signal(first, libc::SIGKILL);
    let second = || {
        procs::all().into_iter().find(|pid| {
            *pid != first && procs::parent(*pid) == Some(server.pid) && procs::uid(*pid) == Some(0)
        })
    };
    let hangs = || second().and_then(procs::state) == Some('S');
    assert!(eventually(bound(10_000), hangs), "{}", server.log());
    server.signal(libc::SIGTERM);
    let gone = || procs::state(server.pid).is_none_or(|state| state == 'Z');
    assert!(eventually(bound(20_000), gone), "it ignored SIGTERM");
    server.stop();
    // What a killed warden leaves of cgroups goes with the next start.
    std::fs::remove_file(&pipe).expect("remove the pipe");
    let server = server.restart();
    assert!(works(&server), "{}", server.log());
    assert!(server.stop().success(), "{}", server.log());
}

#[test]
fn an_api_process_that_hangs_does_not_keep_the_service_from_stopping() {
    needs!(Root);
    let _turn = alone();
    let dir = TestDir::new();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "drain_secs = 0").expect("write the configuration");
    let server = Server::start(Options {
        args: vec!["--config".into(), file.display().to_string()],
        ..Options::default()
    });
    signal(server.api_pid(), libc::SIGSTOP);
    server.signal(libc::SIGTERM);
    let gone = || procs::state(server.pid).is_none_or(|state| state == 'Z');
    // It waits half a minute before it takes the api process to be stuck.
    assert!(eventually(bound(60_000), gone), "it waits for ever");
    assert!(!server.stop().success(), "as if all had gone well");
}

#[test]
fn an_upload_that_does_not_come_to_its_end_does_not_keep_the_service_from_stopping() {
    needs!(Root);
    let _turn = alone();
    let mut config = tempfile::NamedTempFile::new().expect("make a file");
    config.write_all(b"drain_secs = 1\n").expect("write it");
    let server = Server::start(Options {
        args: vec!["--config".into(), config.path().display().to_string()],
        ..Options::default()
    });
    let mut stream = server.api.connect();
    let head = format!(
        "PUT /v1/runtimes/example/files?path=f HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Length: 2000\r\n\r\nhalf",
        server.api.token
    );
    stream.write_all(head.as_bytes()).expect("send the half");
    let running = |server: &Server| {
        let metrics = server.api.get("/metrics").text();
        metrics.contains("cellblock_file_transfers_running 1")
    };
    assert!(
        eventually(bound(5_000), || running(&server)),
        "it never ran"
    );
    let since = Instant::now();
    assert!(server.stop().success());
    let took = since.elapsed();
    // A second to drain, a second of silence.
    assert!(took < bound(4_000), "stopping took {took:?}");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}
