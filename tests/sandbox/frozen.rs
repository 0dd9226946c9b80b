//! A paused runtime does nothing at all, and forgets nothing.

use crate::needs;
use crate::support::{Runtime, alone, api, bound, eventually, procs, runtime, together};
use serde_json::json;
use std::time::Duration;

fn operate(runtime: &Runtime, operation: &str) {
    let path = format!("/v1/runtimes/{}/{operation}", runtime.id);
    api().send("POST", &path, &[], None).data(200);
}

/// Clock ticks that a process and its threads have run, user and system: fields 14 and 15 of proc_pid_stat(5).
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let fields: Vec<&str> = fields.split(' ').collect();
    fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
}

#[test]
fn a_paused_runtime_makes_no_progress_and_keeps_its_memory() {
    needs!(Root, Python);
    let _turn = alone();
    let runtime = runtime();
    // Counts in memory and in a file, in two processes and a thread beside it.
    let code = "
import os, threading, time
state = {'n': 0, 'm': 0}
if os.fork() == 0:
    os.setsid()
    while True:
        state['n'] += 1
        open('/root/child', 'w').write(str(state['n']))
def spin():
    while not os.path.exists('/root/end'): state['m'] += 1
threading.Thread(target=spin).start()
while not os.path.exists('/root/end'):
    state['n'] += 1
    open('/root/n', 'w').write(str(state['n']))
    time.sleep(0.001)
time.sleep(0.2)
print(state['n'] == int(open('/root/n').read()), state['m'] > 0, state['n'])
";
    let body = json!({"command": "/usr/bin/python3", "args": ["-c", code]});
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.exec(&body));
        assert!(eventually(bound(10_000), || procs::with_arg(code).len() >= 2));
        assert!(eventually(bound(10_000), || runtime
            .sh("cat /root/n /root/child")
            .code()
            == 0));
        for _ in 0..3 {
            operate(&runtime, "pause");
            let processes = procs::with_arg(code);
            assert!(processes.len() >= 2, "{processes:?}");
            let before: Vec<u64> = processes.iter().map(|pid| ticks(*pid)).collect();
            std::thread::sleep(Duration::from_millis(500));
            let after: Vec<u64> = processes.iter().map(|pid| ticks(*pid)).collect();
            assert_eq!(before, after, "a paused process ran");
            operate(&runtime, "resume");
            let goes_on = || {
                processes
                    .iter()
                    .zip(&before)
                    .all(|(pid, before)| ticks(*pid) > *before)
            };
            assert!(
                eventually(bound(10_000), goes_on),
                "a resumed process stands still"
            );
        }
        runtime.sh("touch /root/end").assert_code(0);
        let ended = waiting.join().expect("no panic");
        assert!(ended.stdout().starts_with("True True "), "{ended:?}");
    });
}

#[test]
fn a_fork_bomb_and_a_stopped_process_are_paused_too() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let marker = procs::marker();
    // Half of what may be at a time: at the limit the shell would give up and take the cell along.
    let line = format!(
        "(sh -c 'kill -STOP $$' {marker} &); while :; do for i in 1 2 3 4 5 6 7 8; do for j in 1 2 3 4 5 6 7 8 9 10 11 \
         12 13 14 15 16; do sh -c : & done; done; wait; done"
    );
    let body = json!({"command": "sh", "args": ["-c", line], "timeout_secs": 120}).to_string();
    let connection = api().begin(&runtime.exec_path(), body.len() as u64, body.as_bytes());
    assert!(eventually(bound(10_000), || !procs::with_arg(&marker).is_empty()));
    let uids = procs::with_arg(&marker)
        .into_iter()
        .flat_map(procs::uid_ranges)
        .next()
        .expect("its uids");
    operate(&runtime, "pause");
    let all = || {
        let mut pids = crate::support::in_uids(&uids);
        pids.sort_unstable();
        pids
    };
    let before = all();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(
        all(),
        before,
        "something forked or died while it was paused"
    );
    operate(&runtime, "resume");
    assert!(
        eventually(bound(10_000), || all() != before),
        "it does not go on"
    );
    operate(&runtime, "pause");
    drop(connection);
    assert!(
        eventually(bound(10_000), || all().is_empty()),
        "a paused bomb outlived its client"
    );
    operate(&runtime, "resume");
    runtime.sh("echo again").assert_stdout("again\n");
}

#[test]
fn pausing_while_commands_start_lets_none_escape() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for _ in 0..6 {
        std::thread::scope(|scope| {
            let starters: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        runtime.try_exec(
                            &json!({"command": "sh", "args": ["-c", "echo ran; date +%s%N"]}),
                        )
                    })
                })
                .collect();
            operate(&runtime, "pause");
            let paused_at = std::time::SystemTime::now();
            std::thread::sleep(Duration::from_millis(200));
            let resumed_at = std::time::SystemTime::now();
            operate(&runtime, "resume");
            for starter in starters {
                let reply = starter.join().expect("no panic");
                if reply.status == 409 {
                    assert!(
                        reply.text().contains("(status: paused)"),
                        "{}",
                        reply.text()
                    );
                    continue;
                }
                let data = reply.data(200);
                let text = data["stdout"].as_str().expect("text");
                let nanos = text
                    .lines()
                    .nth(1)
                    .and_then(|n| n.parse().ok())
                    .expect("a time");
                let at = std::time::UNIX_EPOCH + Duration::from_nanos(nanos);
                assert!(
                    at <= paused_at || at >= resumed_at,
                    "it ran while its runtime was paused: {data}"
                );
            }
        });
    }
}
