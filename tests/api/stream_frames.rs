//! What a stream says and does: output, input, exit, signals, limits.

use crate::needs;
use crate::support::{alone, bound, runtime, runtime_with, together};
use serde_json::json;
use std::time::Instant;

#[test]
fn output_comes_whole_and_before_the_exit() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for _ in 0..20 {
        let said = runtime
            .stream_sh("head -c 200000 /dev/zero; head -c 100000 /dev/zero >&2; exit 3")
            .end();
        assert_eq!(said.code(), 3);
        assert_eq!((said.stdout.len(), said.stderr.len()), (200_000, 100_000));
        assert!(said.largest <= 64 * 1024, "{}", said.largest);
    }
}

#[test]
fn the_exit_holds_the_fields_of_the_buffered_result() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let said = runtime.stream_sh("echo out; echo err >&2").end();
    assert_eq!(said.code(), 0);
    let buffered = runtime.sh("true").data;
    for (name, value) in buffered.as_object().expect("an object") {
        let here = &said.last[name];
        let kind = |value: &serde_json::Value| std::mem::discriminant(value);
        match name.as_str() {
            "stdout" | "stderr" | "output_encoding" => assert!(here.is_null(), "{name}"),
            _ => assert_eq!(kind(here), kind(value), "{name} in {}", said.last),
        }
    }
    assert_eq!(said.last["stdout_bytes"], 4);
    assert_eq!(said.last["stderr_bytes"], 4);
    assert_eq!(said.last["stdout_truncated"], false, "{}", said.last);
}

#[test]
fn output_is_sent_while_the_command_runs() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let mut ws = runtime.stream(json!({"command": "cat"}));
    for line in ["one\n", "two\n", "three\n"] {
        ws.stdin(line.as_bytes());
        ws.expect(line);
    }
    ws.close_stdin();
    assert_eq!(ws.end().code(), 0);
}

#[test]
fn input_of_all_sizes_and_bytes_arrives_in_order() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let mut ws = runtime.stream(json!({"command": "cat"}));
    let bytes: Vec<u8> = (0..1_000_000u32).map(|n| (n * 7 % 256) as u8).collect();
    let (mut rest, mut size) = (&bytes[..], 0);
    let mut sent = 0;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(size.min(rest.len()));
        ws.stdin(now);
        sent += now.len();
        rest = later;
        size = (size * 3 + 1).min(256 * 1024);
        // Reads along, so that neither side waits for the other for ever.
        while ws.said.stdout.len() + 512 * 1024 < sent {
            assert!(ws.step());
        }
    }
    ws.close_stdin();
    let said = ws.end();
    assert_eq!(said.code(), 0);
    assert!(said.stdout == bytes, "something was lost or changed");
}

#[test]
fn what_can_not_run_is_an_exit_and_no_shell_is_asked() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let code = |start| runtime.stream(start).end().code();
    assert_eq!(code(json!({"command": "no-such-program"})), 127);
    assert_eq!(code(json!({"command": "/"})), 126);
    assert_eq!(code(json!({"command": "echo hi; echo ho"})), 127);
    // The buffered exec takes the same for a shell line.
    runtime
        .exec(&json!({"command": "echo hi; echo ho"}))
        .assert_code(0);
}

#[test]
fn start_has_the_fields_of_an_exec() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({"environment_variables": {"A": "runtime", "B": "runtime"}}));
    let said = runtime
        .stream(json!({
            "command": "sh", "args": ["-c", "pwd; echo $A $B; ulimit -t; cat; echo $TERM ${COLUMNS-}"],
            "env": {"B": "exec"}, "cwd": "/tmp", "stdin": "none", "tty": false, "rows": null, "cols": null,
        }))
        .end();
    assert_eq!(said.text(), "/tmp\nruntime exec\nunlimited\n\n");
    let said = runtime
        .stream(json!({"command": "sleep", "args": ["100"], "timeout_secs": 1}))
        .end();
    assert_eq!((said.code(), said.outcome()), (124, "timed_out"));
    let burn =
        json!({"command": "sh", "args": ["-c", "while :; do :; done"], "limits": {"cpu_secs": 1}});
    let said = runtime.stream(burn).end();
    assert_eq!((said.code(), said.outcome()), (152, "signaled"));
}

#[test]
fn memory_is_limited_like_an_execs() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let code = "x = bytearray(200 << 20); print(len(x))";
    let said = runtime
        .stream(json!({
            "command": "/usr/bin/python3", "args": ["-c", code], "limits": {"memory_mib": 64},
        }))
        .end();
    assert_eq!((said.code(), said.outcome()), (137, "oom_killed"));
}

#[test]
fn signals_reach_the_process_group() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for (sent, name, code) in [
        ("INT", "INT", 130),
        ("sigterm", "TERM", 143),
        ("SigHup", "HUP", 129),
        ("quit", "QUIT", 131),
        ("USR1", "USR1", 138),
        ("SIGUSR2", "USR2", 140),
        ("KILL", "KILL", 137),
    ] {
        // The child is in the group as well; it would hold the pipe open for ever.
        let mut ws = runtime.stream_sh("sleep 100 & echo up; sleep 100");
        ws.expect("up\n");
        ws.signal(sent);
        let said = ws.end();
        assert_eq!(
            (said.code(), said.outcome()),
            (code, "signaled"),
            "{sent}: {said:?}"
        );
        assert_eq!(said.last["signal"], name);
    }
}

#[test]
fn a_command_may_handle_its_signals() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let line = "trap 'echo got usr1' USR1; trap 'echo got term; exit 5' TERM; echo up; \
                while :; do sleep 0.05; done";
    let mut ws = runtime.stream_sh(line);
    ws.expect("up\n");
    for _ in 0..3 {
        ws.signal("USR1");
        ws.expect("got usr1\n");
    }
    ws.signal("TERM");
    ws.expect("got term\n");
    assert_eq!(ws.end().code(), 5);
}

#[test]
fn a_signal_right_behind_start_is_not_lost() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({"filesystem": "ephemeral"}));
    for _ in 0..20 {
        let mut ws = runtime.stream(json!({"command": "sleep", "args": ["100"]}));
        ws.signal("TERM");
        let said = ws.end();
        assert_eq!((said.code(), said.outcome()), (143, "signaled"), "{said:?}");
    }
}

#[test]
fn a_flood_of_signals_neither_harms_nor_overtakes() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let line = "trap : USR1; echo up; while :; do sleep 0.01; done";
    let mut ws = runtime.stream_sh(line);
    ws.expect("up\n");
    for _ in 0..200 {
        ws.signal("USR1");
    }
    let exec = runtime.sh("echo beside");
    exec.assert_stdout("beside\n");
    assert!(exec.took < bound(2_000), "{exec:?}");
    ws.signal("KILL");
    assert_eq!(ws.end().code(), 137);
}

#[test]
fn a_child_that_holds_the_pipes_does_not_delay_the_exit() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let start = Instant::now();
    let said = runtime
        .stream_sh("(sleep 1000 &); setsid sleep 1000 & echo hi")
        .end();
    assert_eq!((said.code(), said.text().as_str()), (0, "hi\n"));
    assert!(start.elapsed() < bound(1_000), "{:?}", start.elapsed());
}

#[test]
fn the_server_is_heard_in_silence() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let mut ws = runtime.stream(json!({"command": "sleep", "args": ["15"]}));
    ws.send(&json!({"type": "heartbeat"}));
    let said = ws.end();
    assert_eq!(said.code(), 0);
    assert_eq!(said.heartbeats, 1, "after ten seconds");
}

#[test]
fn many_streams_at_once_keep_apart() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    std::thread::scope(|scope| {
        for n in 0..16 {
            let runtime = &runtime;
            scope.spawn(move || {
                let mut ws = runtime.stream(json!({"command": "cat"}));
                let text = format!("{n} ").repeat(30_000);
                for piece in text.as_bytes().chunks(10_000) {
                    ws.stdin(piece);
                }
                ws.close_stdin();
                let said = ws.end();
                assert_eq!(said.code(), 0);
                assert!(said.text() == text, "stream {n} got another's");
            });
        }
    });
}
