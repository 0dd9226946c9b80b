//! Processes that don't want to end, or don't want the reply to come.

use crate::needs;
use crate::support::probe::{INSIDE, Probe};
use crate::support::{Runtime, alone, bound, eventually, in_uids, procs, runtime};
use serde_json::{Value, json};
use std::time::Duration;

/// Runs a line until its one second timeout; nothing of it may be left after.
fn ends_at_its_timeout(runtime: &Runtime, body: &Value) {
    let uids = runtime.host_uids();
    let mut body = body.clone();
    body["timeout_secs"] = json!(1);
    let exec = runtime.exec(&body);
    exec.assert_timed_out();
    assert!(
        exec.took < Duration::from_secs(1) + bound(500),
        "{:?} for {body}",
        exec.took
    );
    let gone = eventually(bound(500), || in_uids(&uids).is_empty());
    assert!(gone, "{body} left {:?}", in_uids(&uids));
}

fn line_ends_at_its_timeout(line: &str) {
    let runtime = runtime();
    ends_at_its_timeout(&runtime, &json!({"command": "sh", "args": ["-c", line]}));
}

#[test]
fn daemon_holding_pipes_does_not_delay_the_reply() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    runtime.sh("true");
    for line in [
        "(sleep 1000 &); echo hi",
        "(sleep 1000 &) ; echo hi",
        "setsid sleep 1000 & echo hi",
        "(trap '' TERM HUP; setsid sleep 1000 & ); echo hi",
        "nohup sleep 1000 & echo hi",
    ] {
        let exec = runtime.sh(line);
        assert_eq!((exec.code(), exec.stdout()), (0, "hi\n"), "{exec:?}");
        assert!(exec.took < bound(200), "{line} took {:?}", exec.took);
    }
}

#[test]
fn what_a_daemon_still_wrote_is_kept_and_the_daemon_is_gone() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let marker = procs::marker();
    let line = format!("(while :; do echo more; done) & sleep 0.1; sleep {marker} & exit 4");
    let exec = runtime.sh(&line);
    assert_eq!((exec.code(), exec.outcome()), (4, "exited"), "{exec:?}");
    assert!(exec.stdout().starts_with("more\n"), "{exec:?}");
    assert!(eventually(bound(500), || procs::with_arg(&marker).is_empty()));
}

#[test]
fn ignoring_sigterm_does_not_help() {
    needs!(Root);
    let _turn = alone();
    line_ends_at_its_timeout("trap '' TERM INT HUP QUIT; while :; do sleep 1; done");
}

#[test]
fn stopping_oneself_does_not_help() {
    needs!(Root);
    let _turn = alone();
    line_ends_at_its_timeout("kill -STOP $$; sleep 100");
    line_ends_at_its_timeout("sleep 100 & kill -STOP $! ; kill -STOP 0");
}

#[test]
fn a_new_session_does_not_help() {
    needs!(Root);
    let _turn = alone();
    line_ends_at_its_timeout("setsid sleep 1000 & setsid sh -c 'setsid sleep 1000 & sleep 1000'");
}

#[test]
fn forking_twice_does_not_help() {
    needs!(Root);
    let _turn = alone();
    line_ends_at_its_timeout(
        "( ( sleep 1000 & ) & ) ; ( (setsid sh -c 'sleep 1000 & exec sleep 1000' &) & ); sleep 1000",
    );
}

#[test]
fn a_vfork_storm_does_not_help() {
    needs!(Root);
    let _turn = alone();
    let probe = Probe::in_runtime(runtime());
    ends_at_its_timeout(
        &probe.runtime,
        &json!({"command": INSIDE, "args": ["vfork-storm"]}),
    );
}

#[test]
fn a_chain_of_processes_that_replace_each_other_does_not_help() {
    needs!(Root);
    let _turn = alone();
    line_ends_at_its_timeout("f() { (f) & }; trap '' TERM; f; while :; do (sleep 0.01 &); done");
}

#[test]
fn a_timeout_with_a_daemon_on_the_pipes_is_prompt() {
    needs!(Root);
    let _turn = alone();
    line_ends_at_its_timeout("setsid sh -c 'trap \"\" TERM; sleep 1000; sleep 1000' & sleep 1000");
}

#[test]
fn orphans_are_reaped_while_the_command_runs() {
    needs!(Root);
    let _turn = alone();
    let line = "i=0; while [ $i -lt 50 ]; do (sleep 0.01 &); i=$((i+1)); done; sleep 0.5; \
                grep -l '^State:.Z' /proc/[0-9]*/status | wc -l";
    let exec = runtime().sh(line);
    assert_eq!(exec.stdout().trim(), "0", "zombies: {exec:?}");
}

#[test]
fn the_payload_is_not_pid_1_and_default_signals_end_it() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let exec = runtime.sh("kill -TERM $$; echo survived");
    assert_eq!((exec.code(), exec.outcome()), (143, "signaled"), "{exec:?}");
    assert_eq!(
        (exec.data["signal"].as_str(), exec.stdout()),
        (Some("TERM"), "")
    );
    assert_ne!(runtime.sh("echo $$").stdout(), "1\n");
}

#[test]
fn the_main_process_ending_ends_the_cell() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let uids = runtime.host_uids();
    runtime
        .sh("i=0; while [ $i -lt 50 ]; do (setsid sleep 1000 &); i=$((i+1)); done; exit 7")
        .assert_code(7);
    assert!(eventually(bound(500), || in_uids(&uids).is_empty()));
}

/// What ended how, and whether anybody asked, is no matter of the cell's end.
#[test]
fn children_that_a_real_time_signal_ended_do_not_change_the_outcome() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    for _ in 0..5 {
        let line = "for i in 1 2 3; do sleep 1000 & kill -40 $!; done; exit 7";
        runtime.sh(line).assert_code(7);
    }
}
