//! A child of the warden's that makes a runtime is killed while it has a child of its own: that one goes too.

use crate::needs;
use crate::support::leaks::holders;
use crate::support::procs::listed_children;
use crate::support::server::Options;
use crate::support::timing::Raise;
use crate::support::{Server, alone, bound, eventually, procs, times};
use serde_json::json;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Kills a job that has a child, if there is one now that is not `struck` already.
fn strike(warden: u32, struck: &mut HashSet<u32>) {
    for job in listed_children(warden) {
        let in_cell = || procs::status(job, "NSpid").is_none_or(|ids| ids.contains('\t'));
        if !struck.contains(&job) && !listed_children(job).is_empty() && !in_cell() {
            // SAFETY: kill(2) takes numbers only. A number that was just listed is the job's until the warden has waited for
            // it, and then nobody's for a while.
            unsafe { libc::kill(job as i32, libc::SIGKILL) };
            struck.insert(job);
        }
    }
}

#[test]
fn who_kills_a_job_kills_its_child() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let warden = server.warden_pid();
    let wanted = times(300);
    let over = AtomicBool::new(false);
    let mut struck = HashSet::new();
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (api, over) = (&server.api, &over);
            scope.spawn(move || {
                let body = json!({"name": format!("made-{client}"), "limits": {"disk_mib": 16}});
                while !over.load(Ordering::Relaxed) {
                    api.post("/v1/runtimes", &body);
                    api.delete(&format!("/v1/runtimes/made-{client}"));
                }
            });
        }
        let _end = Raise(&over);
        let until = Instant::now() + bound(120_000);
        while struck.len() < wanted && Instant::now() < until {
            strike(warden, &mut struck);
        }
    });
    assert!(struck.len() >= wanted, "only {} were caught", struck.len());
    let orphans = || {
        let tree = procs::tree(server.pid);
        let mut found = holders(&server);
        found.retain(|pid| !tree.contains(pid));
        found
    };
    assert!(
        eventually(bound(10_000), || orphans().is_empty()),
        "they live on: {:?}",
        orphans()
    );
    assert_eq!(server.warden_pid(), warden, "the warden died");
}
