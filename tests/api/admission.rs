//! How many may run at once, and what the next one hears.

use crate::needs;
use crate::support::{Reply, alone, api, assert_error, bound, runtime, runtime_with};
use serde_json::{Value, json};
use std::thread;

fn at_once(count: usize, send: impl Fn(usize) -> Reply + Sync) -> Vec<Reply> {
    thread::scope(|scope| {
        let send = &send;
        let threads: Vec<_> = (0..count).map(|n| scope.spawn(move || send(n))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    })
}

#[test]
fn sixty_four_at_once_each_get_their_own_answer() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let replies = at_once(64, |n| {
        runtime.try_exec(&json!({
            "command": "sh", "args": ["-c", "cat; echo $N; echo e$N >&2; exit $N"],
            "stdin": format!("in{n}\n"), "env": {"N": n.to_string()},
        }))
    });
    for (n, reply) in replies.iter().enumerate() {
        let data: Value = reply.data(200);
        assert_eq!(data["stdout"], format!("in{n}\n{n}\n"), "{data}");
        assert_eq!(data["stderr"], format!("e{n}\n"), "{data}");
        assert_eq!(data["exit_code"], n, "{data}");
    }
}

#[test]
fn more_than_the_runtimes_bound_are_429_after_a_wait() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime_with(json!({"limits": {"pids": 1024}}));
    // 128 run, the rest wait up to five seconds; the sleep outlasts that wait even where starting all takes long.
    let seconds = (9.0 + bound(3_000).as_secs_f64()).to_string();
    let body = json!({"command": "sleep", "args": [seconds], "timeout_secs": 60, "max_output_bytes": 4096});
    let replies = at_once(132, |_| runtime.try_exec(&body));
    let done = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(
        done,
        128,
        "{:?}",
        replies.iter().map(|reply| reply.status).collect::<Vec<_>>()
    );
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_error(reply, 429, "rate_limited");
        assert!(
            reply.took.as_secs_f64() >= 4.5,
            "it was not let wait: {:?}",
            reply.took
        );
        assert!(
            reply.took < bound(9_000),
            "it waited too long: {:?}",
            reply.took
        );
    }
    runtime.sh("echo again").assert_stdout("again\n");
}

#[test]
fn a_full_runtime_does_not_hold_up_another() {
    needs!(Root);
    let _turn = alone();
    let full = runtime_with(json!({"limits": {"pids": 1024}}));
    let other = runtime();
    let body = json!({"command": "sleep", "args": ["4"], "max_output_bytes": 4096});
    thread::scope(|scope| {
        let load = scope.spawn(|| at_once(132, |_| full.try_exec(&body)));
        full.while_sleeping(|_| {
            let exec = other.sh("echo through");
            exec.assert_stdout("through\n");
            assert!(exec.took < bound(4_000), "{exec:?}");
        });
        load.join().expect("no panic");
    });
    api().get("/v1/runtimes").data(200);
}
