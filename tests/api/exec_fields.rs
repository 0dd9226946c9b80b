//! The exec body's fields: each does what the contract says, and its default holds.

use crate::needs;
use crate::support::probe::{base64, unbase64};
use crate::support::{api, bound, runtime, runtime_with, together};
use serde_json::json;

#[test]
fn the_documented_example_is_refused_for_its_cwd_and_works_with_another() {
    needs!(Root);
    let _turn = together();
    let mut body = json!({
        "args": [], "command": "example", "cwd": "example", "env": {"additionalProperty": "example"},
        "max_output_bytes": 1, "stdin": "example", "timeout_secs": 1,
    });
    let path = "/v1/runtimes/example/exec";
    crate::support::assert_invalid(&api().post(path, &body), "cwd");
    body["command"] = json!("cat");
    body["cwd"] = json!("/tmp");
    let data = api().post(path, &body).data(200);
    assert_eq!(data["stdout"], "e");
    assert_eq!(data["stdout_truncated"], true);
    assert_eq!(data["exit_code"], 0);
}

#[test]
fn only_the_command_is_needed_and_null_means_absent() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime.exec(&json!({"command": "true"})).assert_code(0);
    let nulls = json!({
        "command": "cat", "args": null, "cwd": null, "env": null, "stdin": null,
        "stdin_base64": null, "timeout_secs": null, "max_output_bytes": null,
        "output_encoding": null, "limits": null,
    });
    runtime.exec(&nulls).assert_stdout("");
}

#[test]
fn args_reach_the_command_unchanged() {
    needs!(Root);
    let _turn = together();
    let args = [
        "[%s]\\n",
        "",
        " a  b ",
        "$HOME",
        "*",
        "`id`",
        "a\nb",
        "\u{e9}\u{1f600}",
        "--",
        "'\"",
    ];
    let exec = runtime().exec(&json!({"command": "printf", "args": args}));
    let expected: String = args[1..].iter().map(|arg| format!("[{arg}]\n")).collect();
    exec.assert_stdout(&expected);
}

#[test]
fn a_hundred_thousand_bytes_of_argument_pass() {
    needs!(Root);
    let _turn = together();
    let exec = runtime().exec(&json!({
        "command": "sh", "args": ["-c", "echo ${#1}", "sh", "x".repeat(131_000)],
    }));
    exec.assert_stdout("131000\n");
}

#[test]
fn cwd_is_the_home_by_default_and_relative_to_it() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime
        .exec(&json!({"command": "pwd"}))
        .assert_stdout("/root\n");
    runtime
        .exec(&json!({"command": "pwd", "cwd": "/tmp"}))
        .assert_stdout("/tmp\n");
    runtime
        .sh("mkdir -p /root/a/b && ln -s /root/a /root/link")
        .assert_code(0);
    runtime
        .exec(&json!({"command": "pwd", "cwd": "a/b"}))
        .assert_stdout("/root/a/b\n");
    runtime
        .exec(&json!({"command": "pwd", "args": ["-P"], "cwd": "link/b"}))
        .assert_stdout("/root/a/b\n");
}

#[test]
fn the_environment_is_exactly_what_was_promised() {
    needs!(Root);
    let _turn = together();
    let runtime =
        runtime_with(json!({"environment_variables": {"ONE": "runtime", "TWO": "runtime"}}));
    let exec = runtime.exec(&json!({"command": "env", "env": {"TWO": "exec", "THREE": "x y=z"}}));
    let mut lines = exec.lines();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "HOME=/root",
            "LANG=C.UTF-8",
            "ONE=runtime",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "THREE=x y=z",
            "TWO=exec",
            "USER=root",
        ]
    );
}

#[test]
fn a_given_path_is_where_the_command_is_looked_up() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime.sh("mkdir -p /root/bin; printf '#!/bin/sh\\necho mine\\n' > /root/bin/mine; chmod +x /root/bin/mine");
    runtime
        .exec(&json!({"command": "mine", "env": {"PATH": "/root/bin:/bin"}}))
        .assert_stdout("mine\n");
    runtime.exec(&json!({"command": "mine"})).assert_code(127);
    runtime
        .exec(&json!({"command": "true", "env": {"PATH": "/nowhere"}}))
        .assert_code(127);
}

#[test]
fn stdin_is_text_bytes_or_an_end_at_once() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime
        .exec(&json!({"command": "cat", "stdin": "a\u{e9}\n\0b"}))
        .assert_stdout("a\u{e9}\n\0b");
    let absent = runtime.exec(&json!({"command": "cat"}));
    absent.assert_stdout("");
    assert!(absent.took < bound(2_000), "{absent:?}");
    runtime
        .exec(&json!({"command": "cat", "stdin": ""}))
        .assert_stdout("");
    let bytes: Vec<u8> = (0..=255).collect();
    let exec = runtime.exec(&json!({
        "command": "cat", "stdin_base64": base64(&bytes), "output_encoding": "base64",
    }));
    assert_eq!(unbase64(exec.stdout()), bytes);
}

#[test]
fn output_in_base64_is_the_bytes_as_written() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let line = "printf '\\377\\000\\303'; printf '\\200' >&2";
    let exec = runtime.sh_with(line, json!({"output_encoding": "base64"}));
    assert_eq!(unbase64(exec.stdout()), [0xff, 0, 0xc3]);
    assert_eq!(unbase64(exec.stderr()), [0x80]);
    let cut = runtime.sh_with(
        "printf 'a\\303\\251'",
        json!({"output_encoding": "base64", "max_output_bytes": 2}),
    );
    assert_eq!(
        unbase64(cut.stdout()),
        [b'a', 0xc3],
        "bytes are cut where the cap is"
    );
    runtime
        .sh_with("printf x", json!({"output_encoding": "utf8"}))
        .assert_stdout("x");
}

#[test]
fn a_timeout_ends_the_command_and_keeps_what_it_wrote() {
    needs!(Root);
    let _turn = together();
    let exec = runtime().sh_with(
        "echo before; echo error >&2; sleep 60; echo after",
        json!({"timeout_secs": 1}),
    );
    exec.assert_timed_out();
    assert_eq!((exec.stdout(), exec.stderr()), ("before\n", "error\n"));
    let duration = exec.number("duration_ms");
    assert!(
        duration >= 990 && duration < 1_000 + bound(1_000).as_millis() as u64,
        "{exec:?}"
    );
}

#[test]
fn a_timeout_of_zero_is_the_default() {
    needs!(Root);
    let _turn = together();
    runtime()
        .sh_with("sleep 1.2; echo done", json!({"timeout_secs": 0}))
        .assert_stdout("done\n");
}

#[test]
fn the_largest_timeout_and_cap_are_taken() {
    needs!(Root);
    let _turn = together();
    let fields = json!({"timeout_secs": 3600, "max_output_bytes": 32 << 20});
    runtime().sh_with("echo ok", fields).assert_stdout("ok\n");
}

#[test]
fn a_cell_has_its_own_smaller_memory_limit() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let line = "head -c 256M /dev/zero | tail | wc -c";
    runtime
        .sh_with(line, json!({"limits": {"memory_mib": 64}}))
        .assert_oom_killed();
    runtime.sh(line).assert_stdout("268435456\n");
}

#[test]
fn a_cell_has_its_own_process_limit() {
    needs!(Root);
    let _turn = together();
    let line = "i=0; while [ $i -lt 20 ]; do sleep 2 & i=$((i+1)); done; echo all; kill $(jobs -p)";
    let runtime = runtime();
    let few = runtime.sh_with(line, json!({"limits": {"pids": 8}}));
    assert!(!few.stdout().contains("all"), "{few:?}");
    assert!(few.stderr().to_lowercase().contains("fork"), "{few:?}");
    assert!(few.number("peak_pids") <= 8, "{few:?}");
    assert!(runtime.sh(line).stdout().contains("all"));
}

#[test]
fn used_up_cpu_seconds_end_the_command_as_xcpu() {
    needs!(Root);
    let _turn = together();
    let exec = runtime().sh_with(
        "while :; do :; done",
        json!({"limits": {"cpu_secs": 1}, "timeout_secs": 30}),
    );
    assert_eq!((exec.outcome(), exec.code()), ("signaled", 152), "{exec:?}");
    assert_eq!(exec.data["signal"], "XCPU");
    let used = exec.number("cpu_ms");
    assert!((900..2_500).contains(&used), "{exec:?}");
}
