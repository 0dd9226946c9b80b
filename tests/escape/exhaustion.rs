//! What the kernel holds for a command beside its memory has a bound too.

use crate::needs;
use crate::support::probe::Probe;
use crate::support::{bound, eventually, runtime, runtime_with, together};
use serde_json::json;

#[test]
fn a_cell_has_a_few_netlink_sockets_however_many_processes_ask() {
    needs!(Root);
    let _turn = together();
    for profile in ["default", "strict"] {
        let probe = Probe::in_runtime(runtime_with(json!({"profile": profile})));
        let refused = libc::ENOBUFS;
        for _ in 0..2 {
            let alone = probe.run(&["netlink-sockets", "1"]);
            alone.assert_stdout(&format!("16 [{refused}]\n"));
        }
        let exec = probe.run(&["netlink-sockets", "20"]);
        let many = exec.stdout();
        let (count, refusals) = many.split_once(' ').expect("two words");
        let count: u32 = count.parse().expect("a number");
        // Those that ask at the same moment may get one more each.
        assert!((16..=36).contains(&count), "{many}");
        assert_eq!(refusals.trim(), format!("[{refused}]"));
    }
}

#[test]
fn unread_datagrams_are_within_the_memory_limit() {
    needs!(Root);
    let _turn = together();
    let most = 64 << 20;
    let probe = Probe::in_runtime(runtime_with(
        json!({"resources": {"limits": {"memory_mib": 64}}}),
    ));
    let exec = probe.run(&["datagrams", "1000", &most.to_string()]);
    // Where they are the command's memory, it may have been killed for them.
    if exec.data["outcome"] != "oom_killed" {
        let stdout = exec.stdout();
        let (at_once, at_last) = stdout.trim().split_once(' ').expect("two words");
        let bytes = |word: &str| word.parse::<u64>().expect("a number");
        assert!(bytes(at_last) > 0, "nothing was sent");
        assert!(bytes(at_last) < most, "{at_last} bytes wait");
        // Only version 2 lets them pass the limit for a moment.
        if std::path::Path::new("/sys/fs/cgroup/memory").is_dir() {
            assert!(bytes(at_once) < most, "{at_once} bytes wait");
        }
    }
}

/// TCP sockets on the whole machine that no process has any more (the number is the machine's in all of its namespaces).
fn orphans() -> u64 {
    let text = std::fs::read_to_string("/proc/net/sockstat").expect("the kernel's figures");
    let line = text.lines().find(|line| line.starts_with("TCP:"));
    let mut words = line.expect("TCP").split_whitespace();
    words.find(|word| *word == "orphan").expect("orphans");
    words.next().and_then(|n| n.parse().ok()).expect("a number")
}

#[test]
fn connections_that_hear_nothing_do_not_outlive_their_cell_by_much() {
    needs!(Root);
    let _turn = together();
    let before = orphans();
    let probe = Probe::in_runtime(runtime());
    probe.run(&["orphans", "100"]).assert_stdout("100\n");
    let gone = eventually(bound(15_000), || orphans() < before + 50);
    assert!(gone, "{before} before, and {} now", orphans());
}

#[test]
fn no_program_can_be_put_on_a_socket() {
    needs!(Root);
    let _turn = together();
    let probe = Probe::in_runtime(runtime());
    let refused = |option| format!("{option} {}\n", libc::EPERM).repeat(2);
    let all: String = [26, 50, 51, 52].into_iter().map(refused).collect();
    probe.run(&["socket-filters"]).assert_stdout(&all);
}

#[test]
fn as_many_cells_as_may_run_cannot_take_all_terminals() {
    needs!(Root);
    let _turn = together();
    let probe = Probe::in_runtime(runtime());
    let exec = probe.run(&["terminals"]);
    let (count, errno) = exec.stdout().trim().split_once(' ').expect("two words");
    assert_eq!(errno, libc::ENOSPC.to_string());
    // 512 commands by default, and 3,072 terminals beside the host's own (drivers/tty/pty.c).
    let count: u64 = count.parse().expect("a number");
    assert!((1..3072 / 512).contains(&count), "{count}");
}
