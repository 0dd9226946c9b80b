//! Everything that takes a right which commands lack, asked for with arguments that the kernel would take.

use crate::needs;
use crate::support::probe::Probe;
use crate::support::runtime::Exec;
use crate::support::{runtime, runtime_with, server, together};
use serde_json::json;

/// Lines `what<TAB>errno` that were not refused.
fn let_through(exec: &Exec, refusals: &[i32]) -> Vec<String> {
    exec.assert_code(0);
    let through = |line: &&str| {
        let errno = line.rsplit('\t').next().and_then(|n| n.parse().ok());
        !refusals.contains(&errno.unwrap_or_else(|| panic!("no errno: {line}")))
    };
    let lines = exec.lines();
    lines
        .into_iter()
        .filter(through)
        .map(str::to_owned)
        .collect()
}

#[test]
fn nothing_that_needs_a_right_is_done() {
    needs!(Root);
    let _turn = together();
    for profile in ["default", "strict"] {
        let probe = Probe::in_runtime(runtime_with(json!({"profile": profile})));
        let exec = probe.run(&["powers"]);
        assert!(exec.lines().len() > 80, "{exec:?}");
        let through = let_through(&exec, &[libc::EPERM, libc::ENOSYS, libc::EACCES]);
        assert_eq!(through, Vec::<String>::new(), "{profile}");
    }
}

#[test]
fn no_way_leads_into_pid_1() {
    needs!(Root);
    let _turn = together();
    let exec = Probe::in_runtime(runtime()).run(&["into", "1"]);
    assert!(exec.lines().len() >= 30, "{exec:?}");
    let refused = [libc::EPERM, libc::ENOSYS, libc::EACCES, libc::EROFS];
    let through = let_through(&exec, &refused);
    assert_eq!(through, Vec::<String>::new());
}

#[test]
fn no_way_leads_into_processes_of_the_host() {
    needs!(Root);
    let _turn = together();
    let probe = Probe::in_runtime(runtime());
    let ours = [std::process::id(), server().pid, server().api_pid()];
    for pid in ours {
        let exec = probe.run(&["into", &pid.to_string()]);
        // No process, no directory, no descriptor of it; and what the filter refuses before anybody looks.
        let refused = [
            libc::ESRCH,
            libc::ENOENT,
            libc::EBADF,
            libc::EPERM,
            libc::ENOSYS,
        ];
        assert_eq!(let_through(&exec, &refused), Vec::<String>::new(), "{pid}");
    }
}

#[test]
fn no_link_in_proc_leads_out_of_the_root() {
    needs!(Root);
    let _turn = together();
    let exec = Probe::in_runtime(runtime()).run(&["walk"]);
    exec.assert_code(0);
    let lines = exec.lines();
    let [tried] = lines.as_slice() else {
        panic!("{exec:?}");
    };
    let count: u32 = tried
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a count");
    assert!(count >= 300, "{tried}");
}
