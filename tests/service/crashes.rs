//! One of the server's processes is killed: the others go on, nobody waits for ever.

use crate::needs;
use crate::support::server::Options;
use crate::support::{Api, Runtime, Server, alone, bound, eventually, procs};
use serde_json::json;

fn kill(pid: u32) {
    // SAFETY: kill(2) takes numbers only; the pid is a process of this test's own server.
    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
}

fn works(api: &Api, path: &str) -> bool {
    let body = json!({"command": "echo", "args": ["again"]});
    let body = body.to_string();
    let headers = [("Content-Type", "application/json")];
    let reply = api.try_send("POST", path, &headers, Some(body.as_bytes()));
    reply.is_ok_and(|reply| reply.status == 200 && reply.json()["data"]["stdout"] == "again\n")
}

#[test]
fn a_killed_warden_is_restarted_and_its_execs_end() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 64}}));
    runtime.sh("echo kept > /root/file").assert_code(0);
    let (api_pid, warden) = (server.api_pid(), server.warden_pid());
    let marker = procs::marker();
    let body = json!({"command": "sleep", "args": [marker]});
    let reply = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.try_exec(&body));
        assert!(eventually(bound(5_000), || !procs::with_arg(&marker).is_empty()));
        kill(warden);
        waiting.join().expect("no panic")
    });
    assert!(reply.took < bound(10_000), "it hung for {:?}", reply.took);
    crate::support::assert_error(&reply, 503, "unavailable");
    let details = reply.json()["error"]["details"].clone();
    assert_eq!(details["reason"], "launcher_restarted", "{details}");
    assert!(details["exec_id"].is_string(), "{details}");
    assert!(
        eventually(bound(2_000), || procs::with_arg(&marker).is_empty()),
        "its cell lives on"
    );
    let path = runtime.exec_path();
    assert!(
        eventually(bound(10_000), || works(&server.api, &path)),
        "no exec works any more"
    );
    runtime.sh("cat /root/file").assert_stdout("kept\n");
    assert_eq!(server.api_pid(), api_pid, "the api died with it");
    assert_ne!(server.warden_pid(), warden);
}

#[test]
fn signals_to_the_whole_service_end_no_warden() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let warden = server.warden_pid();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: kill(2) takes numbers only; the pid is a process of this test's own server.
        unsafe { libc::kill(warden as i32, signal) };
        let path = "/v1/runtimes/example/exec";
        assert!(works(&server.api, path), "{}", server.log());
    }
    assert_eq!(server.warden_pid(), warden, "it was another one");
    assert!(server.stop().success());
}

#[test]
fn a_warden_killed_again_and_again_comes_back() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    for _ in 0..3 {
        kill(server.warden_pid());
        let path = "/v1/runtimes/example/exec";
        assert!(
            eventually(bound(20_000), || works(&server.api, path)),
            "{}",
            server.log()
        );
    }
}

#[test]
fn a_killed_api_is_restarted_and_takes_its_cells_along() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let marker = procs::marker();
    let body = json!({"command": "sleep", "args": [marker]}).to_string();
    let _stream = server.api.begin(
        "/v1/runtimes/example/exec",
        body.len() as u64,
        body.as_bytes(),
    );
    assert!(eventually(bound(5_000), || !procs::with_arg(&marker).is_empty()));
    kill(server.api_pid());
    assert!(
        eventually(bound(2_000), || procs::with_arg(&marker).is_empty()),
        "its cell lives on"
    );
    let path = "/v1/runtimes/example/exec";
    assert!(
        eventually(bound(20_000), || works(&server.api, path)),
        "{}",
        server.log()
    );
}

#[test]
fn a_killed_supervisor_takes_everything_along() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let marker = procs::marker();
    let body = json!({"command": "sleep", "args": [marker]}).to_string();
    let _stream = server.api.begin(
        "/v1/runtimes/example/exec",
        body.len() as u64,
        body.as_bytes(),
    );
    assert!(eventually(bound(5_000), || !procs::with_arg(&marker).is_empty()));
    let children = [server.api_pid(), server.warden_pid()];
    kill(server.pid);
    let gone = || {
        children
            .iter()
            .all(|pid| procs::state(*pid).is_none_or(|state| state == 'Z'))
    };
    assert!(
        eventually(bound(5_000), gone),
        "api or warden outlived the supervisor"
    );
    assert!(
        eventually(bound(5_000), || procs::with_arg(&marker).is_empty()),
        "a cell lives on"
    );
    // What the crash left is taken away by the next start, so that the directory can be removed.
    server.restart().stop();
}

#[test]
fn a_killed_init_ends_its_exec_and_nothing_else() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 64}}));
    let marker = procs::marker();
    let body = json!({"command": "sleep", "args": [marker]});
    let reply = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.try_exec(&body));
        assert!(eventually(bound(5_000), || !procs::with_arg(&marker).is_empty()));
        let payload = procs::with_arg(&marker)[0];
        kill(procs::parent(payload).expect("its init"));
        waiting.join().expect("no panic")
    });
    assert!(reply.took < bound(10_000), "it hung for {:?}", reply.took);
    assert!(
        reply.status != 200 || reply.json()["data"]["exit_code"] != 0,
        "{}",
        reply.text()
    );
    runtime.sh("echo again").assert_stdout("again\n");
}

#[test]
fn a_service_without_a_warden_is_not_ready() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let ready = |status: u16| {
        let seen = || server.api.get("/readyz").status == status;
        assert!(eventually(bound(20_000), seen), "never {status}");
    };
    ready(200);
    // A supervisor that stands still starts no other one.
    // SAFETY: kill(2) takes numbers only; the pids are processes of this test's own server.
    unsafe { libc::kill(server.pid as i32, libc::SIGSTOP) };
    kill(server.warden_pid());
    ready(503);
    // SAFETY: as above.
    unsafe { libc::kill(server.pid as i32, libc::SIGCONT) };
    ready(200);
    assert!(works(&server.api, "/v1/runtimes/example/exec"));
}
