//! Floods in both directions: the server's memory stays flat, nothing blocks.

use crate::needs;
use crate::support::probe::base64;
use crate::support::timing::factor;
use crate::support::{Server, alone, api, bound, procs, runtime, server};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How much more memory the server's two processes had at the worst moment of some work than before it, in bytes.
fn growth(server: &Server, work: impl FnOnce()) -> u64 {
    let pids = [server.api_pid(), server.warden_pid()];
    let rss = || pids.iter().map(|pid| procs::rss(*pid)).sum::<u64>();
    let before = rss();
    let done = AtomicBool::new(false);
    /// However the work ends, a failed assertion included: the scope waits for the watcher.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = rss();
            while !done.load(Ordering::Relaxed) {
                most = most.max(rss());
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        let ended = Done(&done);
        work();
        drop(ended);
        watcher.join().expect("no panic").saturating_sub(before)
    })
}

#[test]
fn an_output_flood_is_capped_counted_and_leaves_memory_flat() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    runtime.sh_with("yes | head -c 16M", json!({}));
    let grown = growth(server(), || {
        let exec = runtime.exec(&json!({"command": "yes", "timeout_secs": 2}));
        exec.assert_timed_out();
        assert_eq!(exec.stdout().len(), 4 << 20);
        assert_eq!(exec.data["stdout_truncated"], true);
        // Far more than is kept, however slow the machine.
        let least = ((64 << 20) as f64 / factor()) as u64;
        let written = exec.number("stdout_bytes");
        assert!(written > least.max(5 << 20), "only {written}");
    });
    assert!(grown < 48 << 20, "the server grew by {grown} bytes");
}

#[test]
fn parallel_floods_leave_memory_bounded() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let flood = json!({"command": "yes", "timeout_secs": 2, "max_output_bytes": 1 << 20});
    let grown = growth(server(), || {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    runtime
                        .exec(&flood)
                        .assert_timed_out()
                        .number("stdout_bytes")
                });
            }
        });
    });
    assert!(grown < 96 << 20, "the server grew by {grown} bytes");
}

#[test]
fn ten_megabytes_into_a_command_that_reads_nothing() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let stdin = "x".repeat(10 << 20);
    let exec = runtime.exec(&json!({"command": "true", "stdin": stdin}));
    exec.assert_code(0);
    assert!(exec.took < bound(3_000), "{:?}", exec.took);
    // Reads a little, closes its end, goes on.
    let exec = runtime.exec(&json!({
        "command": "sh", "args": ["-c", "head -c 5; exec 0<&-; sleep 0.3; echo done"], "stdin": stdin,
    }));
    exec.assert_stdout("xxxxxdone\n");
}

#[test]
fn ten_megabytes_through_cat_come_back_whole() {
    needs!(Root);
    let _turn = alone();
    let bytes: Vec<u8> = (0..10u32 << 20).map(|n| b'a' + (n % 23) as u8).collect();
    let exec = runtime().exec(&json!({
        "command": "cat", "stdin_base64": base64(&bytes), "max_output_bytes": 16 << 20,
    }));
    assert!(
        exec.stdout().as_bytes() == bytes,
        "something was lost or changed"
    );
}

#[test]
fn a_client_that_does_not_read_its_answer_holds_nobody_up() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let body = json!({"command": "sh", "args": ["-c", "yes | head -c 4M"]}).to_string();
    let lazy: Vec<_> = (0..8)
        .map(|_| api().begin(&runtime.exec_path(), body.len() as u64, body.as_bytes()))
        .collect();
    let exec = runtime.sh("echo quick");
    exec.assert_stdout("quick\n");
    assert!(exec.took < bound(3_000), "{exec:?}");
    drop(lazy);
}

#[test]
fn many_execs_leave_memory_flat() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let some = || {
        (0..100).for_each(|_| {
            runtime.exec(&json!({"command": "true"})).assert_code(0);
        })
    };
    some();
    let grown = growth(server(), || (0..4).for_each(|_| some()));
    assert!(
        grown < 16 << 20,
        "the server grew by {grown} bytes in 400 execs"
    );
}
