//! Nothing stays behind: not after a thousand execs, not after a stop, not after a crash under load.

use crate::needs;
use crate::support::leaks::{Counts, groups};
use crate::support::server::{Options, run};
use crate::support::{Runtime, Server, alone, bound, times};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Execs of many kinds, some of which end badly.
fn bodies() -> Vec<Value> {
    let line = |line: &str| json!({"command": "sh", "args": ["-c", line]});
    vec![
        json!({"command": "true"}),
        json!({"command": "no-such-command"}),
        line("(sleep 1000 &); echo hi"),
        line("kill -9 $$"),
        line("setsid sleep 1000 & exit 3"),
        json!({"command": "cat", "stdin": "x"}),
        json!({"command": "head", "args": ["-c", "5M", "/dev/zero"], "max_output_bytes": 1000}),
        json!({"command": "true", "cwd": "/no/such"}),
    ]
}

/// Runs so many from eight threads at once.
fn load(server: &Server, ids: &[String], count: usize) {
    let bodies = bodies();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (bodies, ids) = (&bodies, &ids);
            scope.spawn(move || {
                for n in 0..count / 8 {
                    let path = format!("/v1/runtimes/{}/exec", ids[n % ids.len()]);
                    let reply = server.api.post(&path, &bodies[(n + thread) % bodies.len()]);
                    assert!(matches!(reply.status, 200 | 422), "{}", reply.text());
                }
            });
        }
    });
}

fn three_runtimes(server: &Server) -> Vec<Runtime> {
    ["persistent", "ephemeral", "read_only"]
        .iter()
        .map(|kind| {
            let body = json!({"filesystem": kind, "limits": {"disk_mib": 64}});
            Runtime::create(&server.api, &body)
        })
        .collect()
}

fn ids(runtimes: &[Runtime]) -> Vec<String> {
    runtimes.iter().map(|runtime| runtime.id.clone()).collect()
}

#[test]
fn a_thousand_execs_leave_nothing() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let runtimes = three_runtimes(&server);
    let ids = ids(&runtimes);
    // Whatever is made on first use is made by these.
    load(&server, &ids, 48);
    let before = Counts::at_rest(&server, bound(10_000));
    load(&server, &ids, times(1_000));
    before.assert_again(|| Counts::of(&server));
}

#[test]
fn a_start_that_fails_leaves_no_group() {
    needs!(Root);
    let _turn = alone();
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().to_str().expect("UTF-8");
    // Where a directory has to be.
    std::fs::write(directory.path().join("images"), "").expect("write");
    let ran = run(
        &["serve", "--listen", "127.0.0.1:0", "--data-dir", data],
        &[],
    );
    assert!(!ran.status.success(), "it started");
    let instance = std::fs::read_to_string(directory.path().join("instance"));
    let name = format!("cellblock-{}", instance.expect("it began to start").trim());
    assert_eq!(groups(&name), [""; 0].map(PathBuf::from));
}

#[test]
fn creating_and_deleting_runtimes_leaves_nothing() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let round = || {
        for runtime in three_runtimes(&server) {
            runtime.sh("echo x > /tmp/x").assert_code(0);
        }
    };
    round();
    let before = Counts::at_rest(&server, bound(10_000));
    (0..5).for_each(|_| round());
    before.assert_again(|| Counts::of(&server));
}

#[test]
fn a_stop_leaves_nothing_on_the_host() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let runtimes = three_runtimes(&server);
    load(&server, &ids(&runtimes), 48);
    assert!(server.stop().success(), "{}", server.log());
    Counts::default().assert_again(|| Counts::left_by(&server));
}

#[test]
fn a_stop_under_load_answers_or_refuses_and_ends() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 64}}));
    let path = runtime.exec_path();
    let short = json!({"command": "sh", "args": ["-c", "sleep 1; echo drained"]}).to_string();
    std::thread::scope(|scope| {
        let api = &server.api;
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| api.try_send("POST", &path, JSON, Some(short.as_bytes()))))
            .collect();
        runtime.while_sleeping(|_| {
            server.signal(libc::SIGTERM);
        });
        for thread in threads {
            // Drained to its end, refused, or never accepted; never a made-up result.
            if let Ok(reply) = thread.join().expect("no panic")
                && reply.status == 200
            {
                let data = reply.json()["data"].clone();
                let drained = data["stdout"] == "drained\n" && data["exit_code"] == 0;
                assert!(drained || data["outcome"] == "cancelled", "{data}");
            }
        }
    });
    assert!(server.stop().success(), "{}", server.log());
    Counts::default().assert_again(|| Counts::left_by(&server));
}

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];

#[test]
fn a_crash_under_load_and_a_restart_leave_nothing_more_than_before() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let runtimes = three_runtimes(&server);
    let ids = ids(&runtimes);
    load(&server, &ids, 48);
    server.stop();
    let server = server.restart();
    load(&server, &ids, 48);
    let before = Counts::at_rest(&server, bound(10_000));
    std::thread::scope(|scope| {
        for id in &ids {
            let api = server.api.clone();
            scope.spawn(move || {
                let path = format!("/v1/runtimes/{id}/exec");
                let line = "sleep 1000 & sleep 0.05";
                let body = json!({"command": "sh", "args": ["-c", line]}).to_string();
                // Until the server is gone, and no longer than that can take.
                for _ in 0..2_000 {
                    if api
                        .try_send("POST", &path, JSON, Some(body.as_bytes()))
                        .is_err()
                    {
                        break;
                    }
                }
            });
        }
        for runtime in &runtimes {
            runtime.while_sleeping(|_| ());
        }
        server.kill();
    });
    let server = server.restart();
    load(&server, &ids, 48);
    before.assert_again(|| Counts::of(&server));
    for id in &ids {
        server.api.delete(&format!("/v1/runtimes/{id}")).data(200);
    }
}
