//! What uses up processes, memory or CPU.

use crate::needs;
use crate::support::files;
use crate::support::probe::Probe;
use crate::support::{
    Reply, alone, assert_error, bound, eventually, in_uids, procs, runtime, runtime_with, server,
};
use serde_json::json;
use std::time::Duration;

/// The slowest of some execs elsewhere while a bomb goes off.
fn slowest_elsewhere(bomb: impl FnOnce() + Send) -> Duration {
    let elsewhere = runtime();
    std::thread::scope(|scope| {
        let bomb = scope.spawn(bomb);
        let mut slowest = Duration::ZERO;
        while !bomb.is_finished() {
            let exec = elsewhere.sh("echo fine");
            exec.assert_stdout("fine\n");
            slowest = slowest.max(exec.took);
        }
        bomb.join().expect("no panic");
        slowest
    })
}

#[test]
fn a_fork_bomb_ends_at_its_timeout_and_hurts_nobody() {
    needs!(Root);
    let _turn = alone();
    let probe = Probe::in_runtime(runtime());
    let uids = probe.runtime.host_uids();
    let slowest = slowest_elsewhere(|| {
        let exec = probe.runtime.exec(&json!({
            "command": crate::support::probe::INSIDE, "args": ["fork-bomb"], "timeout_secs": 2,
        }));
        exec.assert_timed_out();
        assert!(
            exec.took < Duration::from_secs(2) + bound(2_000),
            "{exec:?}"
        );
    });
    assert!(slowest < bound(2_000), "an exec elsewhere took {slowest:?}");
    assert!(
        eventually(bound(1_000), || in_uids(&uids).is_empty()),
        "some were left"
    );
    probe.runtime.sh("echo again").assert_stdout("again\n");
}

#[track_caller]
fn assert_no_room(reply: &Reply) {
    assert_error(reply, 503, "unavailable");
    let reason = &reply.json()["error"]["details"]["reason"];
    assert_eq!(reason, "no_room", "{}", reply.text());
    assert_ne!(reply.header("retry-after"), "");
}

#[test]
fn a_command_that_has_no_room_beside_others_of_its_runtime_is_told_so() {
    needs!(Root);
    let _turn = alone();
    let probe = Probe::in_runtime(runtime_with(json!({"limits": {"pids": 32}})));
    let (runtime, api) = (&probe.runtime, &server().api);
    let path = runtime.exec_path();
    runtime.sh("printf fine > /root/file").assert_code(0);
    let body = json!({
        "command": crate::support::probe::INSIDE, "args": ["fork-bomb"], "timeout_secs": 600,
    });
    let body = body.to_string();
    // Some of the first processes of cells are allowed beside the limit: one bomb leaves these.
    let begin = || api.begin(&path, body.len() as u64, body.as_bytes());
    let bombs = [(); 3].map(|()| begin());
    let mut refused = [0; 2];
    let all_refused = eventually(bound(60_000), || {
        let body = json!({"command": "sh", "args": ["-c", "echo fine"], "timeout_secs": 600});
        let reply = api.post(&path, &body);
        if reply.status == 200 {
            assert_eq!(reply.data(200)["stdout"], "fine\n");
        } else {
            assert_no_room(&reply);
            refused[0] += 1;
        }
        let reply = files::read(api, runtime, "/root/file");
        if reply.status == 200 {
            assert_eq!(reply.body, b"fine");
        } else {
            assert_no_room(&reply);
            refused[1] += 1;
        }
        !refused.contains(&0)
    });
    // They end with their connections.
    drop(bombs);
    assert!(all_refused, "there was room: {refused:?}");
    let body = json!({"command": "true", "args": ["x"]});
    let again = || api.post(&path, &body).status == 200;
    assert!(eventually(bound(10_000), again), "they still run");
}

#[test]
fn a_shell_fork_bomb_cannot_start_more_than_its_limit() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime_with(json!({"limits": {"pids": 32}}));
    let line = "f() { f | f & }; f; sleep 9";
    let exec = runtime.sh_with(line, json!({"timeout_secs": 1}));
    assert!(
        exec.outcome() == "timed_out" || exec.code() == 2,
        "{exec:?}"
    );
    assert!(
        exec.stderr().to_lowercase().contains("fork"),
        "it never reached its limit: {exec:?}"
    );
    // Told where the kernel tells it (pids.peak; version 1 has only the limit).
    let peak = exec.data["usage"]["peak_pids"].as_u64();
    assert!(peak.is_none_or(|peak| (8..=33).contains(&peak)), "{exec:?}");
}

#[test]
fn a_memory_bomb_is_oom_killed_and_hurts_nobody() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime_with(json!({"resources": {"limits": {"memory_mib": 128}}}));
    let slowest = slowest_elsewhere(|| {
        for _ in 0..3 {
            let exec = runtime.sh("echo start; head -c 1G /dev/zero | tail");
            exec.assert_oom_killed();
            assert!(exec.number("peak_memory_bytes") <= 130 << 20, "{exec:?}");
        }
    });
    assert!(slowest < bound(2_000), "an exec elsewhere took {slowest:?}");
    runtime.sh("echo again").assert_stdout("again\n");
    assert_eq!(crate::support::api().get("/healthz").status, 200);
}

#[test]
fn a_bomb_in_a_child_takes_the_whole_cell() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime_with(json!({"resources": {"limits": {"memory_mib": 64}}}));
    let marker = procs::marker();
    let exec = runtime.sh(&format!(
        "sleep {marker} & (head -c 1G /dev/zero | tail) ; sleep 20; exit 0"
    ));
    exec.assert_oom_killed();
    assert!(exec.took < bound(10_000), "{exec:?}");
    assert!(eventually(bound(1_000), || procs::with_arg(&marker).is_empty()));
}

#[test]
fn swap_is_no_way_around_the_memory_limit() {
    needs!(Root);
    let _turn = alone();
    let probe = Probe::in_runtime(runtime_with(
        json!({"resources": {"limits": {"memory_mib": 64}}}),
    ));
    probe.run(&["eat", "32"]).assert_stdout("32 MiB\n");
    probe.run(&["eat", "200"]).assert_oom_killed();
}

/// Kibibytes of shared memory in use on the host.
fn shmem_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("read meminfo");
    let line = procs::status_value(&text, "Shmem").expect("a Shmem line");
    line.split(' ')
        .next()
        .and_then(|kib| kib.parse().ok())
        .expect("a number")
}

#[test]
fn memory_files_are_bounded_and_given_back() {
    needs!(Root);
    let _turn = alone();
    let before = shmem_kib();
    for filesystem in ["persistent", "ephemeral", "read_only"] {
        let runtime = runtime_with(json!({
            "filesystem": filesystem, "resources": {"limits": {"memory_mib": 128}},
            "limits": {"disk_mib": 256},
        }));
        for place in ["/dev/shm", "/tmp"] {
            let line = format!("dd if=/dev/zero of={place}/big bs=1M count=2048 2>&1");
            let exec = runtime.sh(&line);
            let refused = exec.outcome() == "oom_killed" || exec.stdout().contains("No space left");
            assert!(refused, "{filesystem} {place}: {exec:?}");
            let most = exec.number("peak_memory_bytes");
            assert!(most <= 130 << 20, "{filesystem} {place}: {most} bytes");
        }
        runtime
            .sh("rm -f /tmp/big; echo again")
            .assert_stdout("again\n");
    }
    let given_back = || shmem_kib() < before + 16 * 1024;
    assert!(
        eventually(bound(5_000), given_back),
        "{before} KiB before, {} now",
        shmem_kib()
    );
}

#[test]
fn a_kill_by_the_tenant_is_no_oom() {
    needs!(Root);
    let _turn = alone();
    let exec = runtime().sh("kill -9 $$");
    assert_eq!((exec.outcome(), exec.code()), ("signaled", 137), "{exec:?}");
    assert_eq!(exec.data["oom_killed"], false);
}

#[test]
fn one_cpu_means_one_cpu_however_many_spin() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime_with(json!({"resources": {"requests": {"vcpus": 1}}}));
    let line = "for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; wait";
    let slowest = slowest_elsewhere(|| {
        let exec = runtime.sh_with(line, json!({"timeout_secs": 3}));
        exec.assert_timed_out();
        let share = exec.number("cpu_ms") as f64 / exec.number("duration_ms") as f64;
        assert!(share <= 1.1, "{share:.2} CPUs: {exec:?}");
        assert!(share > 0.05, "it did not even spin: {exec:?}");
    });
    assert!(slowest < bound(2_000), "an exec elsewhere took {slowest:?}");
}

#[test]
fn the_cpu_limit_holds_over_parallel_execs_of_a_runtime() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime_with(json!({"resources": {"requests": {"vcpus": 1}}}));
    let spin = || runtime.sh_with("while :; do :; done", json!({"timeout_secs": 3}));
    let used: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(spin)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic").number("cpu_ms"))
            .sum()
    });
    assert!(used <= 3_500, "{used} ms of CPU in three seconds");
}

#[test]
fn the_payload_is_the_first_to_be_killed_when_memory_runs_out() {
    needs!(Root);
    let _turn = alone();
    let score = |pid: u32| -> i32 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("a score");
        text.trim().parse().expect("a number")
    };
    runtime().while_sleeping(|payload| {
        let init = procs::parent(payload).expect("its init");
        assert!(
            score(payload) > score(init),
            "{} against {}",
            score(payload),
            score(init)
        );
        assert!(score(payload) > score(server().warden_pid()));
    });
}
