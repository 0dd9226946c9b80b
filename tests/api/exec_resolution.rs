//! What a command string means: an executable, a shell line, or neither.

use crate::needs;
use crate::support::{runtime, together};
use serde_json::json;

#[test]
fn a_lone_line_with_spaces_or_metacharacters_runs_in_a_shell() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let exec = runtime.exec(&json!({"command": "echo hi; exit 3"}));
    assert_eq!((exec.stdout(), exec.code()), ("hi\n", 3));
    for (line, output) in [
        ("echo a b", "a b\n"),
        ("echo $((6*7))", "42\n"),
        ("true&&echo yes", "yes\n"),
        ("echo x|cat", "x\n"),
        ("echo $0", "sh\n"),
    ] {
        runtime
            .exec(&json!({"command": line}))
            .assert_stdout(output);
        runtime
            .exec(&json!({"command": line, "args": []}))
            .assert_stdout(output);
    }
}

#[test]
fn with_args_no_shell_is_involved() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime
        .exec(&json!({"command": "echo", "args": ["$HOME;", "`id`"]}))
        .assert_stdout("$HOME; `id`\n");
    runtime
        .exec(&json!({"command": "echo hi", "args": ["x"]}))
        .assert_code(127);
    runtime
        .exec(&json!({"command": "exit 3;", "args": [""]}))
        .assert_code(127);
}

#[test]
fn an_executable_with_a_space_in_its_name_is_argv() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime
        .sh("printf '#!/bin/sh\\necho spaced $#\\n' > '/root/echo hi'; chmod +x '/root/echo hi'");
    runtime
        .exec(&json!({"command": "/root/echo hi"}))
        .assert_stdout("spaced 0\n");
    runtime
        .exec(&json!({"command": "./echo hi"}))
        .assert_stdout("spaced 0\n");
}

#[test]
fn what_does_not_exist_is_127_and_says_so_on_stderr() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for command in [
        "no-such-command",
        "/no/such/command",
        "./no-such",
        "no-such\u{e9}",
    ] {
        let exec = runtime.exec(&json!({"command": command, "args": ["x"]}));
        assert_eq!(
            (exec.code(), exec.outcome(), exec.stdout()),
            (127, "exited", ""),
            "{exec:?}"
        );
        assert!(exec.stderr().contains(command), "{exec:?}");
        assert_eq!(exec.data["signal"], json!(null));
    }
    runtime
        .exec(&json!({"command": "no-such-command"}))
        .assert_code(127);
}

#[test]
fn what_cannot_be_executed_is_126_and_says_so_on_stderr() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime.sh(
        "echo text > /root/plain; printf '#!/no/such/interpreter\\n' > /root/shebang; \
                chmod +x /root/shebang; printf '\\177ELFbroken' > /root/elf; chmod +x /root/elf",
    );
    for command in ["/tmp", "/root/plain", "/root/shebang", "/root/elf"] {
        let exec = runtime.exec(&json!({"command": command}));
        assert_eq!(
            (exec.code(), exec.outcome()),
            (126, "exited"),
            "{command}: {exec:?}"
        );
        assert!(!exec.stderr().is_empty(), "{command}: {exec:?}");
    }
}

#[test]
fn a_directory_on_the_path_does_not_hide_the_program_behind_it() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime.sh("mkdir -p /root/first/echo");
    runtime
        .exec(&json!({"command": "echo", "args": ["x"], "env": {"PATH": "/root/first:/bin"}}))
        .assert_stdout("x\n");
}

#[test]
fn python_runs_where_the_host_has_it() {
    needs!(Root, Python);
    let _turn = together();
    runtime()
        .exec(&json!({"command": "python3", "args": ["-c", "print(6*7)"]}))
        .assert_stdout("42\n");
}
