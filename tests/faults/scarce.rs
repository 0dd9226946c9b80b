//! Memory, processes and descriptors run out around the service: clear refusals, no death of what is not killed, and all is
//! well once there are some again.

use crate::needs;
use crate::support::server::Options;
use crate::support::tight::Tight;
use crate::support::{Server, alone, assert_error, bound, eventually, procs};
use serde_json::json;
use std::time::Duration;

const EXEC: &str = "/v1/runtimes/example/exec";

#[test]
fn an_api_process_that_the_oom_killer_takes_is_replaced() {
    needs!(Root, TightGroups);
    let _turn = alone();
    let server = Server::start(Options::default());
    let detached = json!({"command": "sleep 1000", "detach": true});
    let detached = server.api.post(EXEC, &detached).data(200);
    let once = json!({"command": "echo once"});
    let first = server.api.post_once(EXEC, "before", &once);
    first.data(200);
    let group = Tight::new("memory");
    let api = server.api_pid();
    group.memory(24 << 20);
    group.take(api);
    let flood = json!({"command": "head -c 33554432 /dev/zero", "max_output_bytes": 32 << 20});
    let (text, headers) = (flood.to_string(), [("Idempotency-Key", "flood")]);
    let send = || {
        server
            .api
            .try_send("POST", EXEC, &headers, Some(text.as_bytes()))
    };
    let killed = || send().is_err() || procs::state(api).is_none_or(|state| state == 'Z');
    assert!(eventually(bound(60_000), killed), "it had memory enough");
    assert!(
        eventually(bound(30_000), || server.works()),
        "{}",
        server.log()
    );
    assert_ne!(server.api_pid(), api);
    let again = server.api.post_once(EXEC, "before", &once);
    assert_eq!((again.status, again.text()), (200, first.text()));
    let flood = server.api.post_once(EXEC, "flood", &flood);
    assert_error(&flood, 409, "failed_precondition");
    let record = server
        .api
        .record(detached["exec_id"].as_str().expect("an id"));
    assert_eq!(record["outcome"], "unknown", "{record}");
}

#[test]
fn a_warden_that_can_not_fork_refuses_and_goes_on() {
    needs!(Root, TightGroups);
    let _turn = alone();
    let server = Server::start(Options::default());
    assert!(server.works());
    let warden = server.warden_pid();
    let group = Tight::new("pids");
    group.pids("1");
    group.take(warden);
    let body = json!({"name": "late", "limits": {"disk_mib": 16}});
    let refused = server.api.post("/v1/runtimes", &body);
    assert_error(&refused, 503, "unavailable");
    assert_error(&server.api.get("/v1/runtimes/late"), 404, "not_found");
    // Where a cell is cloned straight into its own group (cgroup v2), it needs no place in this one.
    let reply = server.api.post(EXEC, &json!({"command": "true"}));
    if reply.status != 200 {
        assert_error(&reply, 503, "unavailable");
    }
    group.pids("max");
    assert!(server.works(), "{}", server.log());
    server.api.post("/v1/runtimes", &body).data(200);
    assert_eq!(server.warden_pid(), warden, "it was another one");
}

#[test]
fn with_few_descriptors_connections_wait_and_nothing_spins() {
    needs!(Root, Unshare);
    let _turn = alone();
    let server = Server::start(Options {
        before: Some("ulimit -n 128".to_owned()),
        ..Options::default()
    });
    assert!(server.works());
    // The kernel's queue takes what the process does not.
    let idle: Vec<_> = (0..100).map(|_| server.api.connect()).collect();
    let pids = [server.api_pid(), server.warden_pid()];
    let ticks = || {
        pids.iter()
            .filter_map(|pid| procs::cpu_ticks(*pid))
            .sum::<u64>()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(2));
    let spent = ticks() - before;
    // A hundred in a second of one processor.
    assert!(spent < 60, "{spent} ticks for nothing");
    drop(idle);
    assert!(
        eventually(bound(40_000), || server.works()),
        "{}",
        server.log()
    );
    let now = [server.api_pid(), server.warden_pid()];
    assert_eq!(now, pids, "one died");
}
