//! Start, stop, pause, resume: where each leads from each status, and what becomes of commands.

use crate::needs;
use crate::support::{
    Reply, Runtime, alone, api, assert_error, bound, eventually, procs, runtime, together,
};
use serde_json::{Value, json};

const OPERATIONS: [&str; 4] = ["start", "stop", "pause", "resume"];

fn operate(runtime: &Runtime, operation: &str) -> Reply {
    let path = format!("/v1/runtimes/{}/{operation}", runtime.id);
    api().send("POST", &path, &[], None)
}

#[track_caller]
fn go(runtime: &Runtime, operation: &str, status: &str) {
    let data = operate(runtime, operation).data(200);
    assert_eq!(data["status"], status, "{operation}");
    assert_eq!(data["id"], runtime.id);
    assert_eq!(shown(runtime), status);
}

fn shown(runtime: &Runtime) -> Value {
    let path = format!("/v1/runtimes/{}", runtime.id);
    api().get(&path).data(200)["status"].clone()
}

/// Brings a new runtime into a status.
fn in_status(status: &str) -> Runtime {
    let runtime = runtime();
    match status {
        "running" => {}
        "paused" => go(&runtime, "pause", "paused"),
        _ => go(&runtime, "stop", "shutdown"),
    }
    runtime
}

#[test]
fn every_operation_from_every_status() {
    needs!(Root);
    let _turn = together();
    // "" is a 409.
    let table = [
        ("running", ["running", "shutdown", "paused", "running"]),
        ("paused", ["", "shutdown", "paused", "running"]),
        ("shutdown", ["running", "shutdown", "", ""]),
    ];
    for (status, leads_to) in table {
        for (operation, next) in OPERATIONS.into_iter().zip(leads_to) {
            let runtime = in_status(status);
            let reply = operate(&runtime, operation);
            if next.is_empty() {
                assert_error(&reply, 409, "failed_precondition");
                let text = reply.text();
                assert!(
                    text.contains(&format!("(status: {status})")),
                    "{operation} from {status}: {text}"
                );
                assert_eq!(reply.json()["error"]["details"]["status"], status);
                assert_eq!(shown(&runtime), status);
            } else {
                assert_eq!(reply.data(200)["status"], next, "{operation} from {status}");
                assert_eq!(shown(&runtime), next);
            }
        }
    }
}

#[test]
fn commands_run_only_while_it_runs() {
    needs!(Root);
    let _turn = together();
    for status in ["paused", "shutdown"] {
        let runtime = in_status(status);
        let reply = runtime.try_exec(&json!({"command": "true"}));
        assert_error(&reply, 409, "failed_precondition");
        let expected = format!(
            "runtime '{}' is not running (status: {status})",
            runtime.name
        );
        assert_eq!(reply.json()["error"]["message"], expected);
        let back = if status == "paused" {
            "resume"
        } else {
            "start"
        };
        go(&runtime, back, "running");
        runtime.sh("echo again").assert_stdout("again\n");
    }
}

#[test]
fn a_body_may_be_absent_or_an_object_and_nothing_else() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let path = format!("/v1/runtimes/{}/stop", runtime.id);
    let post = |body: &str| api().post_bytes(&path, "application/json", body.as_bytes());
    for body in ["[]", "3", "\"x\""] {
        assert_error(&post(body), 422, "invalid_argument");
    }
    assert_error(&post("{"), 400, "invalid_argument");
    assert_error(
        &api().post_bytes(&path, "text/plain", b"x"),
        415,
        "invalid_argument",
    );
    assert_eq!(
        shown(&runtime),
        "running",
        "a refused request did something"
    );
    for body in ["", "null", "{}", "{\"later\":1}"] {
        assert_eq!(post(body).data(200)["status"], "shutdown");
    }
}

#[test]
fn unknown_runtimes_are_404() {
    needs!(Root);
    let _turn = together();
    for operation in OPERATIONS {
        let reply = api().send(
            "POST",
            &format!("/v1/runtimes/no-such-runtime/{operation}"),
            &[],
            None,
        );
        assert_error(&reply, 404, "not_found");
        let reply = api().get(&format!("/v1/runtimes/no-such-runtime/{operation}"));
        assert_error(&reply, 405, "invalid_argument");
    }
}

#[test]
fn a_stop_ends_commands_as_cancelled_and_keeps_the_files() {
    needs!(Root);
    let _turn = together();
    for paused in [false, true] {
        let runtime = runtime();
        let marker = procs::marker();
        let line = format!("echo kept > /root/file; echo out; (sleep {marker} &); sleep {marker}");
        let body = json!({"command": "sh", "args": ["-c", line]});
        let reply = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| runtime.try_exec(&body));
            assert!(eventually(bound(10_000), || procs::with_arg(&marker).len() >= 2));
            if paused {
                go(&runtime, "pause", "paused");
            }
            go(&runtime, "stop", "shutdown");
            assert!(
                procs::with_arg(&marker).is_empty(),
                "a process outlived the stop"
            );
            waiting.join().expect("no panic")
        });
        let data = reply.data(200);
        assert_eq!(data["outcome"], "cancelled", "{data}");
        assert_eq!(
            (&data["exit_code"], &data["stdout"]),
            (&json!(137), &json!("out\n"))
        );
        go(&runtime, "start", "running");
        runtime.sh("cat /root/file").assert_stdout("kept\n");
    }
}

#[test]
fn a_paused_runtime_can_be_deleted() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let marker = procs::marker();
    let body = json!({"command": "sleep", "args": [marker]});
    let reply = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.try_exec(&body));
        assert!(eventually(bound(10_000), || !procs::with_arg(&marker).is_empty()));
        go(&runtime, "pause", "paused");
        let path = format!("/v1/runtimes/{}", runtime.id);
        api().delete(&path).data(200);
        assert!(procs::with_arg(&marker).is_empty(), "it lives on");
        waiting.join().expect("no panic")
    });
    assert_eq!(reply.data(200)["outcome"], "cancelled");
}

#[test]
fn a_command_whose_client_is_gone_dies_though_it_is_frozen() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    // Closing the connection kills it, which is asserted.
    runtime.while_sleeping(|_| go(&runtime, "pause", "paused"));
    go(&runtime, "resume", "running");
    runtime.sh("echo again").assert_stdout("again\n");
}

#[test]
fn the_time_of_a_command_stands_still_with_it() {
    needs!(Root);
    // Measured.
    let _turn = alone();
    let runtime = runtime();
    let secs = 2 + bound(1_000).as_secs();
    let marker = procs::marker();
    let line = format!("(sleep {marker} &); sleep {secs}; echo done");
    let body = json!({"command": "sh", "args": ["-c", line], "timeout_secs": 2 * secs});
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.exec(&body));
        assert!(eventually(bound(10_000), || !procs::with_arg(&marker).is_empty()));
        go(&runtime, "pause", "paused");
        // Longer than its timeout.
        std::thread::sleep(std::time::Duration::from_secs(3 * secs));
        assert!(
            !procs::with_arg(&marker).is_empty(),
            "it died while it was paused"
        );
        go(&runtime, "resume", "running");
        waiting.join().expect("no panic").assert_stdout("done\n");
    });
    // And it goes on afterwards.
    runtime
        .sh_with("sleep 60", json!({"timeout_secs": 1}))
        .assert_timed_out();
}

#[test]
fn a_stopped_runtime_is_unmounted() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let disk = crate::support::server()
        .data_dir()
        .join("runtimes")
        .join(&runtime.id)
        .join("disk.img");
    let attached = || {
        let loops = std::fs::read_dir("/sys/block")
            .into_iter()
            .flatten()
            .flatten();
        let mut files = loops.filter_map(|entry| {
            std::fs::read_to_string(entry.path().join("loop/backing_file")).ok()
        });
        files.any(|file| std::path::Path::new(file.trim()) == disk)
    };
    runtime.sh("true").assert_code(0);
    assert!(attached(), "a running runtime has its disk attached");
    go(&runtime, "stop", "shutdown");
    assert!(
        eventually(bound(5_000), || !attached()),
        "a stopped runtime holds its disk"
    );
    go(&runtime, "start", "running");
    assert!(attached(), "started, and not mounted");
}

#[test]
fn a_disk_without_inodes_can_still_be_mounted() {
    needs!(Root);
    let _turn = together();
    let body = json!({"limits": {"disk_mib": 16}});
    let runtime = Runtime::create(api(), &body);
    let line = "i=0; while : > /root/$i; do i=$((i+1)); done 2> /dev/null; : > /root/last";
    runtime.sh(line).assert_code(2);
    let free = runtime.sh("df --output=iavail /root | tail -n 1");
    assert_eq!(free.stdout().trim(), "0");
    for _ in 0..2 {
        go(&runtime, "stop", "shutdown");
        assert_eq!(crate::support::files::must_read(api(), &runtime, "0"), b"");
        go(&runtime, "start", "running");
    }
    runtime
        .sh("rm /root/[0-9]* && echo room > /root/again")
        .assert_code(0);
}
