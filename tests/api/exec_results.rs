//! The result object: its fields, exit codes, signals and usage.

use crate::needs;
use crate::support::client::is_uuid_v7;
use crate::support::{bound, runtime, together};
use serde_json::{Value, json};

/// Whether a value is as the contract says.
type Fits = fn(&Value) -> bool;

#[test]
fn every_field_is_there_with_its_type() {
    needs!(Root);
    let _turn = together();
    let exec = runtime().exec(&json!({"command": "true"}));
    let kinds: &[(&str, Fits)] = &[
        ("/duration_ms", |v| v.as_u64().is_some_and(|ms| ms >= 1)),
        ("/exit_code", |v| *v == json!(0)),
        ("/stdout", |v| *v == json!("")),
        ("/stderr", |v| *v == json!("")),
        ("/stdout_truncated", |v| *v == json!(false)),
        ("/stderr_truncated", |v| *v == json!(false)),
        ("/exec_id", |v| v.as_str().is_some_and(is_uuid_v7)),
        ("/outcome", |v| *v == json!("exited")),
        ("/signal", Value::is_null),
        ("/timed_out", |v| *v == json!(false)),
        ("/oom_killed", |v| *v == json!(false)),
        ("/stdout_bytes", |v| *v == json!(0)),
        ("/stderr_bytes", |v| *v == json!(0)),
        ("/usage/cpu_ms", Value::is_u64),
        ("/usage/user_ms", Value::is_u64),
        ("/usage/system_ms", Value::is_u64),
        ("/usage/peak_memory_bytes", |v| {
            v.as_u64().is_some_and(|bytes| bytes > 0)
        }),
        ("/usage/peak_pids", |v| {
            v.is_null() || v.as_u64().is_some_and(|pids| pids >= 1)
        }),
    ];
    for (pointer, fits) in kinds {
        let value = exec.data.pointer(pointer);
        assert!(
            value.is_some_and(fits),
            "{pointer} is {value:?} in {exec:?}"
        );
    }
}

#[test]
fn exit_codes_are_the_commands_own() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for code in [0, 1, 3, 125, 126, 127, 128, 137, 143, 255] {
        let exec = runtime.sh(&format!("exit {code}"));
        assert_eq!((exec.code(), exec.outcome()), (code, "exited"), "{exec:?}");
        assert!(exec.data["signal"].is_null(), "{exec:?}");
    }
}

#[test]
fn signals_are_named_and_add_128() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for (signal, number) in [
        ("TERM", 15),
        ("KILL", 9),
        ("HUP", 1),
        ("INT", 2),
        ("SEGV", 11),
        ("ABRT", 6),
        ("USR1", 10),
    ] {
        let exec = runtime.sh(&format!("echo partial; kill -{signal} $$; sleep 9"));
        assert_eq!(
            (exec.code(), exec.outcome()),
            (128 + number, "signaled"),
            "{exec:?}"
        );
        assert_eq!(exec.data["signal"], signal);
        assert_eq!(exec.data["oom_killed"], false, "a plain SIGKILL is no OOM");
        assert_eq!(exec.stdout(), "partial\n");
    }
}

#[test]
fn the_duration_is_wall_clock() {
    needs!(Root);
    let _turn = together();
    let exec = runtime().sh("sleep 0.3");
    let duration = exec.number("duration_ms");
    assert!(
        duration >= 300 && u128::from(duration) <= exec.took.as_millis() + 1,
        "{exec:?}"
    );
    assert!(
        u128::from(duration) < 300 + bound(1_000).as_millis(),
        "{exec:?}"
    );
}

#[test]
fn usage_tells_cpu_memory_and_processes() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let spin = runtime.sh("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done");
    assert!(
        spin.number("cpu_ms") >= 30 && spin.number("user_ms") >= 10,
        "{spin:?}"
    );
    let parts = spin.number("user_ms") + spin.number("system_ms");
    assert!(parts.abs_diff(spin.number("cpu_ms")) <= 20, "{spin:?}");
    let idle = runtime.sh("sleep 0.3");
    let most = bound(150).as_millis();
    assert!(u128::from(idle.number("cpu_ms")) < most, "{idle:?}");
    let large = runtime.sh("head -c 64M /dev/zero | tail | wc -c");
    let peak = large.number("peak_memory_bytes");
    assert!((64 << 20..512 << 20).contains(&peak), "{large:?}");
    let small = runtime.sh("true").number("peak_memory_bytes");
    assert!(
        small < 32 << 20,
        "{small} bytes for true: a cell's peak is its own"
    );
    let many = runtime.sh("for i in 1 2 3 4 5 6 7 8; do sleep 0.3 & done; wait");
    let peak = &many.data["usage"]["peak_pids"];
    assert!(
        peak.is_null() || (9..=12).contains(&peak.as_u64().unwrap_or(0)),
        "{many:?}"
    );
}

#[test]
fn what_a_background_child_used_counts_too() {
    needs!(Root);
    let _turn = together();
    let exec = runtime().sh("(i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done) & wait");
    assert!(exec.number("cpu_ms") >= 30, "{exec:?}");
}

#[test]
fn exec_ids_differ() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let id = || runtime.sh("true").data["exec_id"].clone();
    assert_ne!(id(), id());
}
