//! A process of the server has no room for another descriptor: what needs one is refused, the next exec after that works,
//! and nobody dies or waits for ever.

use crate::needs;
use crate::support::server::Options;
use crate::support::{Reply, Server, alone, bound, eventually, procs};
use serde_json::json;
use std::collections::HashSet;

/// The descriptors that a process has open.
pub fn open_fds(pid: u32) -> HashSet<u64> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("list descriptors");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Sets the soft limit of open files of another process, as its own user: that takes no capability (prlimit(2)).
pub fn limit(pid: u32, most: u64) {
    let user = procs::uid(pid).expect("it runs").to_string();
    let status = std::process::Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .args(["prlimit", &format!("--nofile={most}:")])
        .args(["--pid", &pid.to_string()])
        .status()
        .expect("run setpriv");
    assert!(status.success(), "{status}");
}

/// Leaves a process room for exactly so many more descriptors.
pub fn leave_room(pid: u32, more: u64) {
    let open = open_fds(pid);
    let free = |most: u64| (0..most).filter(|number| !open.contains(number)).count() as u64;
    let most = (0..).find(|most| free(*most) == more).expect("a number");
    limit(pid, most);
}

fn exec(server: &Server) -> Reply {
    let body = json!({"command": "cat", "stdin": "through\n"});
    server.api.post("/v1/runtimes/example/exec", &body)
}

fn starve(victim: impl Fn(&Server) -> u32, rooms: std::ops::Range<u64>) {
    let server = Server::start(Options::default());
    exec(&server).data(200);
    let (pid, others) = (victim(&server), (server.api_pid(), server.warden_pid()));
    let calm = open_fds(pid).len();
    let mut refused = 0;
    for room in rooms {
        leave_room(pid, room);
        let reply = exec(&server);
        limit(pid, 1024);
        assert!(
            reply.took < bound(5_000),
            "room for {room}: {:?}",
            reply.took
        );
        match reply.status {
            200 => assert_eq!(reply.json()["data"]["stdout"], "through\n"),
            500 | 503 => refused += 1,
            other => panic!("room for {room}: {other} {}", reply.text()),
        }
        assert_eq!(
            exec(&server).data(200)["stdout"],
            "through\n",
            "after room for {room}"
        );
    }
    assert!(refused > 0, "there was always room: nothing was tested");
    assert_eq!((server.api_pid(), server.warden_pid()), others, "one died");
    // What the last exec held for a moment is closed, and nothing that came half is left.
    assert!(
        eventually(bound(10_000), || open_fds(pid).len() <= calm),
        "{} descriptors, {calm} before",
        open_fds(pid).len()
    );
}

#[test]
fn an_api_process_without_descriptors_refuses_and_goes_on() {
    needs!(Root);
    let _turn = alone();
    // One is the connection itself.
    starve(Server::api_pid, 1..6);
}

#[test]
fn a_warden_without_descriptors_refuses_and_goes_on() {
    needs!(Root);
    let _turn = alone();
    starve(Server::warden_pid, 0..24);
}
