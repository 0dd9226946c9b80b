//! Changes of status against each other, against crashes, and across restarts.

use crate::needs;
use crate::support::leaks::Counts;
use crate::support::server::Options;
use crate::support::{
    Api, Reply, Runtime, Server, alone, assert_error, bound, eventually, procs, times,
};
use serde_json::{Value, json};

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];

fn small(server: &Server) -> Runtime {
    Runtime::create(&server.api, &json!({"limits": {"disk_mib": 32}}))
}

pub fn operate(api: &Api, id: &str, operation: &str) -> Reply {
    api.send("POST", &format!("/v1/runtimes/{id}/{operation}"), &[], None)
}

fn status(api: &Api, id: &str) -> String {
    let data = api.get(&format!("/v1/runtimes/{id}")).data(200);
    data["status"].as_str().expect("a status").to_owned()
}

fn echo(api: &Api, id: &str) {
    let body = json!({"command": "echo", "args": ["again"]});
    let data = api
        .post(&format!("/v1/runtimes/{id}/exec"), &body)
        .data(200);
    assert_eq!(data["stdout"], "again\n", "{data}");
}

/// Resumes a runtime that rests paused, and tells whether it is at rest in another status, or gone.
fn not_paused(api: &Api, id: &str) -> bool {
    let reply = api.get(&format!("/v1/runtimes/{id}"));
    if reply.status == 404 {
        return true;
    }
    match reply.data(200)["status"].as_str() {
        Some("paused") => {
            operate(api, id, "resume");
            false
        }
        Some("running" | "shutdown") => true,
        _ => false,
    }
}

/// Brings a runtime from any status in which it can rest back to work.
fn revive(api: &Api, id: &str) {
    let operation = match status(api, id).as_str() {
        "running" => return echo(api, id),
        "paused" => "resume",
        "shutdown" => "start",
        other => panic!("a runtime rests in {other}"),
    };
    assert_eq!(operate(api, id, operation).data(200)["status"], "running");
    echo(api, id);
}

/// A number that follows from another, so that a failed run can be read.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    *seed >> 33
}

#[test]
fn eight_clients_at_once_leave_a_legal_status_and_nothing_else() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let survivors: Vec<Runtime> = (0..2).map(|_| small(&server)).collect();
    for runtime in &survivors {
        echo(&server.api, &runtime.id);
        operate(&server.api, &runtime.id, "stop").data(200);
    }
    let before = Counts::at_rest(&server, bound(20_000));
    let victims: Vec<Runtime> = (0..2).map(|_| small(&server)).collect();
    let all: Vec<&Runtime> = survivors.iter().chain(&victims).collect();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (all, api) = (&all, &server.api);
            scope.spawn(move || {
                let mut seed = thread;
                let count = times(40);
                for round in 0..count {
                    let runtime = all[next(&mut seed) as usize % all.len()];
                    let is_victim = runtime.id == all[2].id || runtime.id == all[3].id;
                    let reply = match next(&mut seed) % 9 {
                        0 => operate(api, &runtime.id, "start"),
                        1 => operate(api, &runtime.id, "stop"),
                        2 => operate(api, &runtime.id, "pause"),
                        3 | 4 => operate(api, &runtime.id, "resume"),
                        5 => {
                            let path = format!("/v1/runtimes/{}", runtime.id);
                            let pids = 50 + next(&mut seed) % 50;
                            let body = json!({"limits": {"pids": pids}}).to_string();
                            api.send("PATCH", &path, JSON, Some(body.as_bytes()))
                        }
                        6 if is_victim && round + 2 > count => {
                            api.delete(&format!("/v1/runtimes/{}", runtime.id))
                        }
                        _ => {
                            let line = "echo hi; (sleep 1000 &) ; sleep 0.02";
                            let body =
                                json!({"command": "sh", "args": ["-c", line], "timeout_secs": 5});
                            api.post(&format!("/v1/runtimes/{}/exec", runtime.id), &body)
                        }
                    };
                    let allowed = match reply.status {
                        404 => is_victim,
                        status => matches!(status, 200 | 409),
                    };
                    assert!(allowed, "{}", reply.text());
                    if reply.status == 200
                        && let Some(outcome) = reply.json()["data"]["outcome"].as_str()
                    {
                        assert!(
                            matches!(outcome, "exited" | "cancelled"),
                            "{}",
                            reply.text()
                        );
                    }
                }
                // What it left paused, nobody else might resume: the commands of others would wait in there.
                for runtime in all.iter() {
                    let rests = || not_paused(api, &runtime.id);
                    assert!(eventually(bound(20_000), rests), "it stays paused");
                }
            });
        }
    });
    for runtime in &victims {
        let gone = server.api.delete(&format!("/v1/runtimes/{}", runtime.id));
        assert!(matches!(gone.status, 200 | 404), "{}", gone.text());
    }
    for runtime in &survivors {
        revive(&server.api, &runtime.id);
        operate(&server.api, &runtime.id, "stop").data(200);
    }
    before.assert_again(|| Counts::of(&server));
}

#[test]
fn deleted_by_many_it_is_deleted_once() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    for operation in ["pause", "stop", "start"] {
        let runtime = small(&server);
        echo(&server.api, &runtime.id);
        let path = format!("/v1/runtimes/{}", runtime.id);
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let api = &server.api;
            let other = scope.spawn(|| operate(api, &runtime.id, operation).status);
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| api.delete(&path).status))
                .collect();
            let other = other.join().expect("no panic");
            assert!(matches!(other, 200 | 404 | 409), "{operation}: {other}");
            threads
                .into_iter()
                .map(|t| t.join().expect("no panic"))
                .collect()
        });
        assert_eq!(
            statuses.iter().filter(|s| **s == 200).count(),
            1,
            "{statuses:?}"
        );
        assert_eq!(
            statuses.iter().filter(|s| **s == 404).count(),
            3,
            "{statuses:?}"
        );
    }
}

#[test]
fn a_status_survives_a_restart_and_no_process_does() {
    needs!(Root);
    let _turn = alone();
    let mut server = Server::start(Options::default());
    let runtimes: Vec<Runtime> = ["running", "paused", "shutdown"]
        .iter()
        .map(|status| {
            let runtime = small(&server);
            runtime.sh("echo kept > /root/file").assert_code(0);
            match *status {
                "paused" => drop(operate(&server.api, &runtime.id, "pause").data(200)),
                "shutdown" => drop(operate(&server.api, &runtime.id, "stop").data(200)),
                _ => {}
            }
            runtime
        })
        .collect();
    for crash in [false, true] {
        // A command in the paused one, frozen when the end comes.
        let marker = procs::marker();
        let paused = &runtimes[1];
        operate(&server.api, &paused.id, "resume").data(200);
        let body = json!({"command": "sleep", "args": [marker]}).to_string();
        let path = format!("/v1/runtimes/{}/exec", paused.id);
        let connection = server.api.begin(&path, body.len() as u64, body.as_bytes());
        assert!(eventually(bound(10_000), || !procs::with_arg(&marker).is_empty()));
        operate(&server.api, &paused.id, "pause").data(200);
        if crash {
            server.kill();
        } else {
            drop(connection);
            assert!(server.stop().success(), "{}", server.log());
            Counts::default().assert_again(|| Counts::left_by(&server));
        }
        server = server.restart();
        assert!(
            procs::with_arg(&marker).is_empty(),
            "a paused command lives on"
        );
        let found: Vec<String> = runtimes
            .iter()
            .map(|r| status(&server.api, &r.id))
            .collect();
        assert_eq!(
            found,
            ["running", "paused", "shutdown"],
            "after a crash: {crash}"
        );
        let refused = server.api.post(&path, &json!({"command": "true"}));
        assert_error(&refused, 409, "failed_precondition");
    }
    for runtime in &runtimes {
        revive(&server.api, &runtime.id);
        let body = json!({"command": "cat", "args": ["/root/file"]});
        let data = server
            .api
            .post(&format!("/v1/runtimes/{}/exec", runtime.id), &body)
            .data(200);
        assert_eq!(data["stdout"], "kept\n");
        server
            .api
            .delete(&format!("/v1/runtimes/{}", runtime.id))
            .data(200);
    }
}

#[test]
fn a_crash_in_a_transition_leaves_a_status_that_is_true() {
    needs!(Root);
    let _turn = alone();
    let mut server = Server::start(Options::default());
    let runtimes: Vec<String> = (0..2)
        .map(|_| {
            let runtime = small(&server);
            let id = runtime.id.clone();
            // It is to survive this value.
            std::mem::forget(runtime);
            id
        })
        .collect();
    for round in 0..times(6) {
        std::thread::scope(|scope| {
            for (thread, id) in (0u64..).zip(runtimes.iter().chain(&runtimes)) {
                let api = server.api.clone();
                scope.spawn(move || {
                    let mut seed = thread + round as u64 * 7;
                    // Until the server is gone, and no longer than that can take.
                    for _ in 0..2_000 {
                        let operation =
                            ["start", "stop", "pause", "resume"][next(&mut seed) as usize % 4];
                        let path = format!("/v1/runtimes/{id}/{operation}");
                        if api.try_send("POST", &path, &[], None).is_err() {
                            break;
                        }
                    }
                });
            }
            let api = server.api.clone();
            scope.spawn(move || {
                let body = json!({"limits": {"disk_mib": 32}}).to_string();
                for _ in 0..2_000 {
                    let Ok(made) =
                        api.try_send("POST", "/v1/runtimes", JSON, Some(body.as_bytes()))
                    else {
                        break;
                    };
                    let id = made.json()["data"]["id"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned();
                    if api
                        .try_send("DELETE", &format!("/v1/runtimes/{id}"), &[], None)
                        .is_err()
                    {
                        break;
                    }
                }
            });
            std::thread::sleep(bound(150 + 90 * round as u64));
            server.kill();
        });
        server = server.restart();
        let list = server.api.get("/v1/runtimes").json();
        let all = list["data"].as_array().expect("a list");
        for runtime in all {
            let legal = ["running", "paused", "shutdown"];
            let found = runtime["status"].as_str().expect("a status");
            assert!(legal.contains(&found), "{runtime}");
            revive(&server.api, runtime["id"].as_str().expect("an id"));
        }
        // The example, the two, and at the most one that was finished and not deleted.
        assert!((3..=4 + round).contains(&all.len()), "{all:?}");
        let on_disk = std::fs::read_dir(server.data_dir().join("runtimes")).expect("list");
        assert_eq!(on_disk.count(), all.len(), "disk and list differ");
    }
    for id in &runtimes {
        server.api.delete(&format!("/v1/runtimes/{id}")).data(200);
    }
}

#[test]
fn a_warden_that_dies_in_a_transition_is_asked_again() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let runtime = small(&server);
    for operation in ["stop", "start", "pause", "resume"] {
        let warden = server.warden_pid();
        let reply = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| operate(&server.api, &runtime.id, operation));
            // SAFETY: kill(2) takes numbers only; the pid is a process of this test's own server.
            unsafe { libc::kill(warden as i32, libc::SIGKILL) };
            waiting.join().expect("no panic")
        });
        let found = status(&server.api, &runtime.id);
        match reply.status {
            200 => assert_eq!(reply.json()["data"]["status"], found),
            _ => assert_error(&reply, 503, "unavailable"),
        }
        assert!(eventually(bound(20_000), || {
            let body = json!({"command": "true"}).to_string();
            let probe = server.api.try_send(
                "POST",
                "/v1/runtimes/example/exec",
                JSON,
                Some(body.as_bytes()),
            );
            probe.is_ok_and(|reply| reply.status == 200)
        }));
        // Whatever became of it, it can go on.
        revive(&server.api, &runtime.id);
        if operation == "stop" || operation == "pause" {
            operate(&server.api, &runtime.id, operation).data(200);
        }
    }
}

#[test]
fn statuses_that_only_a_store_can_have_lead_on_as_they_should() {
    needs!(Root);
    let _turn = alone();
    let mut server = Server::start(Options::default());
    // start, stop, pause, resume; "" is a 409.
    let table = [
        ("suspended", ["", "shutdown", "", "running"]),
        ("crashed", ["running", "shutdown", "", ""]),
        ("error", ["", "", "", ""]),
    ];
    for (status_now, leads_to) in table {
        for (operation, next) in ["start", "stop", "pause", "resume"]
            .into_iter()
            .zip(leads_to)
        {
            server.stop();
            let store = server.data_dir().join("state/cellblock.db");
            let connection = rusqlite::Connection::open(store).expect("open the store");
            let changed = connection.execute("UPDATE runtimes SET status = ?1", [status_now]);
            assert_eq!(changed.expect("set the status"), 1);
            drop(connection);
            server = server.restart();
            assert_eq!(status(&server.api, "example"), status_now);
            let refused = server
                .api
                .post("/v1/runtimes/example/exec", &json!({"command": "true"}));
            assert_error(&refused, 409, "failed_precondition");
            let reply = operate(&server.api, "example", operation);
            match next {
                "" => {
                    assert_error(&reply, 409, "failed_precondition");
                    assert!(reply.text().contains(status_now), "{}", reply.text());
                }
                next => assert_eq!(
                    reply.data(200)["status"],
                    next,
                    "{operation} from {status_now}"
                ),
            }
        }
    }
    server.api.delete("/v1/runtimes/example").data(200);
}

#[test]
fn with_version_1_groups_alone_it_is_all_the_same() {
    needs!(Root, Unshare, CgroupV1);
    let _turn = alone();
    // As a host would be that has no version 2 tree.
    let before =
        "for m in $(awk '$3 == \"cgroup2\" {print $2}' /proc/mounts); do umount \"$m\"; done";
    let mut server = Server::start(Options {
        before: Some(before.to_owned()),
        ..Options::default()
    });
    let runtime = small(&server);
    let marker = procs::marker();
    let line = format!("(setsid sleep {marker} &) ; i=0; while :; do i=$((i+1)); done # {marker}");
    let body = json!({"command": "sh", "args": ["-c", line], "timeout_secs": 2}).to_string();
    let path = runtime.exec_path();
    for last in ["resume", "disconnect", "stop", "checkpoint", "crash"] {
        revive(&server.api, &runtime.id);
        let connection = server.api.begin(&path, body.len() as u64, body.as_bytes());
        let running = || procs::with_arg(&marker).len() + procs::with_arg(&line).len();
        assert!(eventually(bound(10_000), || running() >= 2), "{last}");
        operate(&server.api, &runtime.id, "pause").data(200);
        let spinner = procs::with_arg(&line)[0];
        let stat = || std::fs::read_to_string(format!("/proc/{spinner}/stat")).expect("it lives");
        let frozen = stat();
        std::thread::sleep(std::time::Duration::from_millis(3_000));
        assert_eq!(stat(), frozen, "a paused process ran");
        match last {
            // Its time begins to count again, and is up.
            "resume" => drop(operate(&server.api, &runtime.id, "resume").data(200)),
            "disconnect" => drop(connection),
            "stop" => drop(operate(&server.api, &runtime.id, "stop").data(200)),
            "checkpoint" => {
                let path = format!("/v1/runtimes/{}/checkpoints", runtime.id);
                let made: Value = server.api.post(&path, &json!({})).data(200);
                assert_eq!(stat(), frozen, "the copy let it go on");
                let id = made["id"].as_str().expect("an id");
                server
                    .api
                    .delete(&format!("/v1/checkpoints/{id}"))
                    .data(200);
                operate(&server.api, &runtime.id, "stop").data(200);
            }
            _ => {
                server.kill();
                server = server.restart();
            }
        }
        assert!(
            eventually(bound(10_000), || running() == 0),
            "it outlived its {last}"
        );
    }
    server
        .api
        .delete(&format!("/v1/runtimes/{}", runtime.id))
        .data(200);
    assert!(server.stop().success(), "{}", server.log());
    Counts::default().assert_again(|| Counts::left_by(&server));
}
