//! One of the server's processes is killed: the others go on, nobody waits for ever.

use crate::needs;
use crate::support::server::Options;
use crate::support::{Runtime, Server, alone, bound, eventually, files, procs};
use serde_json::json;

pub fn kill(pid: u32) {
    // SAFETY: kill(2) takes numbers only; the pid is a process of this test's own server.
    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
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
        eventually(bound(10_000), || server.api.can_exec(&path)),
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
        assert!(server.api.can_exec(path), "{}", server.log());
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
            eventually(bound(20_000), || server.api.can_exec(path)),
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
        eventually(bound(20_000), || server.api.can_exec(path)),
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
    assert!(server.works());
}

#[test]
fn what_the_host_kills_nobody_cancelled() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let api = &server.api;
    let runtime = Runtime::create(api, &json!({}));
    let warden = server.warden_pid();
    let marker = procs::marker();
    // As the host's OOM killer may choose it: the first process of the command's cell.
    let strike = || {
        let command = || procs::with_arg(&marker);
        assert!(eventually(bound(5_000), || !command().is_empty()));
        let init = procs::parent(command()[0]).expect("a parent");
        assert_eq!(procs::parent(init), Some(warden));
        kill(init);
    };
    let body = json!({"command": "sleep", "args": [marker]});
    let reply = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.try_exec(&body));
        strike();
        waiting.join().expect("no panic")
    });
    crate::support::assert_error(&reply, 503, "unavailable");
    let details = reply.json()["error"]["details"].clone();
    assert_eq!(details["reason"], "killed_by_host", "{details}");
    let buffered = details["exec_id"].as_str().expect("an id").to_owned();
    let gone = || procs::with_arg(&marker).is_empty();
    assert!(eventually(bound(2_000), gone), "the command lives on");
    let detached = runtime.detach(&format!("exec sleep {marker}"), json!({}));
    strike();
    for id in [buffered, detached] {
        let record = api.ended(&id, bound(5_000));
        assert_eq!(record["outcome"], "unknown", "{record}");
        assert!(record["exit_code"].is_null(), "{record}");
    }

    assert!(eventually(bound(5_000), || procs::children(warden).is_empty()));
    // The first process of a file's cell, and the one that works on the file.
    for deep in [false, true] {
        let uri = files::uri(&runtime, "file");
        let upload = files::begin(api, "PUT", &uri, "Content-Length: 1000\r\n");
        let victim = || {
            let init = *procs::children(warden).first()?;
            let payload = *procs::children(init).first()?;
            // It waits for the file's first bytes in its fresh user namespace.
            let waits =
                procs::status(payload, "NoNewPrivs")? == "1" && procs::state(payload)? == 'S';
            waits.then_some(if deep { payload } else { init })
        };
        assert!(eventually(bound(5_000), || victim().is_some()));
        kill(victim().expect("it waits"));
        let answer = files::answer(upload);
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, 503, "{body}");
        assert!(body.contains("killed_by_host"), "{body}");
    }
    assert_eq!(files::read(api, &runtime, "file").status, 404);
    assert!(api.can_exec(&runtime.exec_path()));
}
