//! What a command inherits: three descriptors and nothing else, and no way through the program that starts it.

use crate::needs;
use crate::support::probe::Probe;
use crate::support::{alone, assert_invalid, runtime, together};
use serde_json::json;
use std::collections::BTreeSet;

#[test]
fn only_stdio_is_open() {
    needs!(Root);
    let _turn = together();
    let probe = Probe::in_runtime(runtime());
    let exec = probe.run(&["fds"]);
    let numbers: Vec<&str> = exec
        .lines()
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(
        BTreeSet::from_iter(numbers),
        BTreeSet::from(["0", "1", "2"]),
        "{exec:?}"
    );
    for line in exec.lines() {
        let target = line.split_once(' ').map_or("", |(_, target)| target);
        assert!(
            target.starts_with("pipe:") || target == "/dev/null",
            "{line}"
        );
    }
    probe
        .runtime
        .sh("ls /proc/self/fd")
        .assert_stdout("0\n1\n2\n3\n");
}

#[test]
fn parallel_execs_see_nothing_of_each_other() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let seen: Vec<Vec<String>> = std::thread::scope(|scope| {
        let list = || {
            let exec = runtime.exec(&json!({
                "command": "ls", "args": ["-l", "/proc/self/fd"], "stdin": "x",
            }));
            let link = |line: &&str| line.split_once(" -> ").map(|(_, target)| target.to_owned());
            let lines = exec.lines();
            lines.iter().filter_map(link).collect::<Vec<String>>()
        };
        let threads: Vec<_> = (0..64).map(|_| scope.spawn(list)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    for links in &seen {
        assert_eq!(links.len(), 4, "three pipes and ls's own: {links:?}");
        assert!(
            links[..3].iter().all(|link| link.starts_with("pipe:")),
            "{links:?}"
        );
        assert!(links[3].starts_with("/proc/"), "{links:?}");
    }
}

#[test]
fn a_leaked_descriptor_as_working_directory_is_refused() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for fd in 0..100 {
        for cwd in [format!("/proc/self/fd/{fd}"), format!("/proc/1/fd/{fd}")] {
            assert_invalid(
                &runtime.try_exec(&json!({"command": "pwd", "cwd": cwd})),
                "cwd",
            );
        }
    }
    for cwd in ["/proc/1/cwd", "/proc/1/root", "/proc/1/root/etc"] {
        assert_invalid(
            &runtime.try_exec(&json!({"command": "pwd", "cwd": cwd})),
            "cwd",
        );
    }
    // Inside the root whatever it is written like.
    let exec =
        runtime.exec(&json!({"command": "pwd", "args": ["-P"], "cwd": "/../../../tmp/../.."}));
    exec.assert_stdout("/\n");
}

#[test]
fn our_own_binary_cannot_be_run_or_read_from_inside() {
    needs!(Root);
    let _turn = together();
    let binary = env!("CARGO_BIN_EXE_cellblock");
    let before = std::fs::read(binary).expect("read the binary");
    let runtime = runtime();
    runtime.sh("printf '#!/proc/self/exe\\n' > /root/s1; printf '#!/proc/1/exe serve\\n' > /root/s2; \
                chmod +x /root/s1 /root/s2; ln -s /proc/self/exe /root/l1; ln -s /proc/1/exe /root/l2");
    for command in [
        "/proc/1/exe",
        "/proc/self/exe",
        "/root/s1",
        "/root/s2",
        "/root/l1",
        "/root/l2",
    ] {
        for args in [json!([]), json!(["--help"]), json!(["serve"])] {
            let exec = runtime.exec(&json!({"command": command, "args": args}));
            let said = format!("{}{}", exec.stdout(), exec.stderr());
            assert!(
                !said.contains("untrusted commands") && !said.contains("--data-dir"),
                "{command} is our program: {exec:?}"
            );
            assert_ne!(exec.code(), 0, "{command}: {exec:?}");
        }
    }
    runtime.sh("exec 3> /proc/1/exe").assert_failed();
    let after = std::fs::read(binary).expect("read the binary");
    assert!(before == after, "the binary was changed");
}

#[test]
fn stdio_can_be_reopened_by_its_owner() {
    needs!(Root);
    let _turn = together();
    let line = "echo a >/dev/stderr; cat /dev/stdin; yes | head -1; echo b | awk '{print}'";
    let exec = runtime().sh_with(line, json!({"stdin": "x"}));
    assert_eq!(
        (exec.code(), exec.stdout(), exec.stderr()),
        (0, "xy\nb\n", "a\n"),
        "{exec:?}"
    );
    runtime()
        .sh("echo 1 > /dev/stdout; echo 2 > /dev/fd/2; echo 3 > /proc/self/fd/1")
        .assert_code(0);
}
