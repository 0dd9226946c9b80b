//! Children that don't start, don't speak or don't end: the supervisor tries again, and ends when it is told to.

use crate::needs;
use crate::support::held::Held;
use crate::support::mounts::TestDir;
use crate::support::server::Options;
use crate::support::{Reply, Runtime, Server, alone, bound, eventually, procs};
use serde_json::json;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

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
        eventually(bound(30_000), || server.works()),
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
        let mut children = procs::children(server.pid).into_iter();
        children.find(|pid| *pid != first && procs::uid(*pid) == Some(0))
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
    assert!(server.works(), "{}", server.log());
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
    let _held = Held::process(server.api_pid());
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

/// Execs from several clients at once, and meanwhile what `disturb` does, again and again. Every one is answered.
fn under_load(runtime: &Runtime, disturb: impl Fn()) -> Vec<Reply> {
    std::thread::scope(|scope| {
        let client = |client: usize| {
            move || {
                let run =
                    |n: usize| runtime.try_exec(&json!({"command": format!("echo {client}-{n}")}));
                (0..12).map(run).collect::<Vec<_>>()
            }
        };
        let clients: Vec<_> = (0..4).map(|n| scope.spawn(client(n))).collect();
        while clients.iter().any(|client| !client.is_finished()) {
            disturb();
        }
        let replies = clients
            .into_iter()
            .map(|client| client.join().expect("no panic"));
        replies.flatten().collect()
    })
}

fn records(server: &Server, runtime: &Runtime) -> Vec<String> {
    let path = format!("/v1/execs?runtime={}&limit=100", runtime.id);
    let list = server.api.get(&path).data(200);
    let ids = list.as_array().expect("a list").iter();
    ids.map(|record| record["exec_id"].as_str().expect("an id").to_owned())
        .collect()
}

#[test]
fn a_stopped_warden_or_api_goes_on_and_nothing_is_lost() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 64}}));
    let pids = [server.warden_pid(), server.api_pid()];
    for pid in pids {
        let before = records(&server, &runtime).len();
        let stops = AtomicUsize::new(0);
        let replies = under_load(&runtime, || {
            signal(pid, libc::SIGSTOP);
            stops.fetch_add(1, Ordering::Relaxed);
            let runs = || procs::state(pid) != Some('T');
            assert!(eventually(bound(5_000), runs), "it stays stopped");
            std::thread::sleep(Duration::from_millis(20));
        });
        assert!(stops.into_inner() > 0);
        let mut said = HashSet::new();
        for reply in &replies {
            assert!(reply.took < bound(10_000), "it took {:?}", reply.took);
            let data = reply.data(200);
            assert!(said.insert(data["stdout"].to_string()), "doubled: {data}");
        }
        assert_eq!(records(&server, &runtime).len() - before, replies.len());
    }
    assert_eq!([server.warden_pid(), server.api_pid()], pids, "one died");
    assert!(server.log().contains("was stopped"), "{}", server.log());
    assert!(server.stop().success());
}

#[test]
fn a_warden_that_hangs_is_replaced_and_its_execs_end() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 64}}));
    runtime.sh("echo kept > /root/file").assert_code(0);
    let (warden, api) = (server.warden_pid(), server.api_pid());
    let marker = procs::marker();
    let runs = json!({"command": "sleep", "args": [marker]});
    let (running, late) = std::thread::scope(|scope| {
        let running = scope.spawn(|| runtime.try_exec(&runs));
        assert!(eventually(bound(5_000), || !procs::with_arg(&marker).is_empty()));
        let _held = Held::process(warden);
        let late = scope.spawn(|| runtime.try_exec(&json!({"command": "true"})));
        // Said long before it is done something about.
        assert_eq!(server.api.get("/readyz").status, 503);
        (
            running.join().expect("no panic"),
            late.join().expect("no panic"),
        )
    });
    for reply in [running, late] {
        // The status of an answer that takes this long was sent before.
        assert!(matches!(reply.status, 200 | 503), "{}", reply.status);
        assert_eq!(reply.json()["error"]["code"], "unavailable");
        let details = &reply.json()["error"]["details"];
        assert_eq!(details["reason"], "launcher_restarted", "{details}");
        // The supervisor is patient for twenty seconds.
        assert!(reply.took < bound(40_000), "it took {:?}", reply.took);
    }
    assert!(eventually(bound(2_000), || procs::with_arg(&marker).is_empty()));
    assert!(
        eventually(bound(10_000), || server.works()),
        "{}",
        server.log()
    );
    runtime.sh("cat /root/file").assert_stdout("kept\n");
    assert_eq!(server.api.get("/readyz").status, 200);
    assert_eq!(server.api_pid(), api, "the api did not live through it");
    assert_ne!(server.warden_pid(), warden);
    assert!(server.log().contains("does not answer and was killed"));
    assert!(server.stop().success());
}

#[test]
fn an_api_process_that_hangs_is_replaced() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let api = server.api_pid();
    let held = Held::process(api);
    let replaced = || {
        let dead = |pid| procs::state(pid).is_none_or(|state| state == 'Z');
        dead(api) || !procs::children(server.pid).contains(&api)
    };
    assert!(eventually(bound(40_000), replaced), "{}", server.log());
    drop(held);
    assert!(
        eventually(bound(20_000), || server.works()),
        "{}",
        server.log()
    );
    assert!(server.log().contains("does not answer and was killed"));
    assert!(server.stop().success());
}

#[test]
fn after_a_command_the_launcher_sleeps() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let waits = || {
        let count = procs::status(server.warden_pid(), "voluntary_ctxt_switches");
        let count = count.and_then(|count| count.parse::<u64>().ok());
        count.expect("it is there")
    };
    let body = json!({"command": "true", "args": ["x"]});
    server
        .api
        .post("/v1/runtimes/example/exec", &body)
        .data(200);
    let before = waits();
    std::thread::sleep(Duration::from_secs(1));
    let often = waits() - before;
    assert!(often < 40, "it woke up {often} times in a second");
}
