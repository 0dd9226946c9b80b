//! Cells that are opened before a command comes: used once, few, ended when nobody comes, and seen by nobody.

use crate::crashes::kill;
use crate::needs;
use crate::support::leaks::Counts;
use crate::support::mounts::TestDir;
use crate::support::server::{Options, PARKED, Server};
use crate::support::{Runtime, alone, bound, eventually, procs};
use crate::transitions::operate;
use serde_json::json;
use std::collections::HashSet;
use std::time::Duration;

fn parking(most: u32) -> Server {
    Server::start(Options {
        parked: most,
        ..Options::default()
    })
}

/// First processes of the cells that wait, of all runtimes.
fn parked(server: &Server) -> HashSet<u32> {
    let cells = procs::children(server.warden_pid()).into_iter();
    cells
        .filter(|init| procs::is_parked(*init) && !procs::children(*init).is_empty())
        .collect()
}

#[track_caller]
fn assert_parks(server: &Server) -> HashSet<u32> {
    let waits = || !parked(server).is_empty();
    assert!(eventually(bound(10_000), waits), "no cell is parked");
    parked(server)
}

#[test]
fn a_parked_cell_is_used_once_and_shares_nothing() {
    needs!(Root);
    let _turn = alone();
    let server = parking(PARKED);
    let runtime = Runtime::create(&server.api, &json!({}));
    let line = "readlink /proc/self/ns/*; echo $$; touch /tmp/x /dev/shm/x; ls /tmp /dev/shm; sleep 300 & exit 3";
    let (mut last, mut used) = (String::new(), 0);
    for _ in 0..8 {
        let waiting = match last.is_empty() {
            true => HashSet::new(),
            false => assert_parks(&server),
        };
        let exec = runtime.sh(line);
        exec.assert_code(3);
        let text = exec.stdout();
        let (spaces, rest): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.contains(":["));
        assert_eq!(rest, ["2", "/dev/shm:", "x", "", "/tmp:", "x"], "{text}");
        // Of the one before: the kernel gives the numbers of those that are gone to others.
        let spaces = format!("{spaces:?}");
        assert_ne!(last, spaces, "one was used again: {text}");
        last = spaces;
        let gone = || waiting.iter().any(|init| procs::state(*init).is_none());
        used += usize::from(!waiting.is_empty() && eventually(bound(5_000), gone));
    }
    assert_eq!(used, 7, "a cell waited and was not used");
}

#[test]
fn no_more_are_parked_than_may_be_and_those_that_nobody_needs_end() {
    needs!(Root);
    let _turn = alone();
    let server = parking(3);
    let before = Counts::at_rest(&server, bound(20_000));
    let runtimes: Vec<_> = (0..5)
        .map(|_| Runtime::create(&server.api, &json!({})))
        .collect();
    for _ in 0..3 {
        for runtime in &runtimes {
            runtime.sh("true").assert_code(0);
            assert!(parked(&server).len() <= 3, "{:?}", parked(&server));
        }
    }
    assert_parks(&server);
    let ended = eventually(Duration::from_secs(40) + bound(20_000), || {
        parked(&server).is_empty()
    });
    assert!(ended, "they wait for ever: {:?}", parked(&server));
    drop(runtimes);
    before.assert_again(|| Counts::at_rest(&server, bound(20_000)));
}

#[test]
fn they_go_with_their_runtime_and_with_the_service() {
    needs!(Root);
    let _turn = alone();
    let server = parking(PARKED);
    let before = Counts::at_rest(&server, bound(20_000));
    let runtime = Runtime::create(&server.api, &json!({}));
    for operation in ["stop", "delete"] {
        runtime.sh("true").assert_code(0);
        let waiting = assert_parks(&server);
        match operation {
            "stop" => drop(operate(&server.api, &runtime.id, "stop")),
            _ => drop(server.api.delete(&format!("/v1/runtimes/{}", runtime.id))),
        }
        let gone = || waiting.iter().all(|init| procs::state(*init).is_none());
        assert!(
            eventually(bound(10_000), gone),
            "{operation} left {waiting:?}"
        );
        if operation == "stop" {
            operate(&server.api, &runtime.id, "start");
        }
    }
    before.assert_again(|| Counts::at_rest(&server, bound(20_000)));
    let runtime = Runtime::create(&server.api, &json!({}));
    runtime.sh("true").assert_code(0);
    assert_parks(&server);
    std::mem::forget(runtime);
    server.stop();
    assert_eq!(Counts::left_by(&server), Counts::default());
}

#[test]
fn one_that_dies_is_missed_by_nobody() {
    needs!(Root);
    let _turn = alone();
    let server = parking(PARKED);
    let runtime = Runtime::create(&server.api, &json!({}));
    for payload in [false, true] {
        runtime.sh("true").assert_code(0);
        for init in assert_parks(&server) {
            let victims = if payload {
                procs::children(init)
            } else {
                vec![init]
            };
            victims.iter().copied().for_each(kill);
            // A command that one takes while it dies is the host's to answer for: `killed_by_host`, as of any other cell.
            let dead = || {
                victims
                    .iter()
                    .all(|pid| matches!(procs::state(*pid), None | Some('Z')))
            };
            assert!(eventually(bound(5_000), dead), "{victims:?} live on");
        }
        for _ in 0..3 {
            runtime.sh("echo fine").assert_stdout("fine\n");
        }
    }
}

/// What a runtime is changed to holds for its next command, and a paused one runs none.
#[test]
fn one_that_was_parked_before_a_change_is_not_used_after_it() {
    needs!(Root);
    let _turn = alone();
    let server = parking(PARKED);
    let runtime = Runtime::create(&server.api, &json!({"name": "before"}));
    let path = format!("/v1/runtimes/{}", runtime.id);
    runtime.sh("hostname").assert_stdout("before\n");
    let waiting = assert_parks(&server);
    let headers = [("Content-Type", "application/json")];
    let renamed = server.api.send(
        "PATCH",
        &path,
        &headers,
        Some(br#"{"display_name": "after"}"#),
    );
    assert_eq!(renamed.status, 200, "{renamed:?}");
    runtime.sh("hostname").assert_stdout("after\n");
    let untouched = || waiting.iter().all(|init| procs::is_parked(*init));
    assert!(
        untouched(),
        "one of {waiting:?} took a command that it does not fit"
    );
    operate(&server.api, &runtime.id, "pause");
    let waiting = parked(&server);
    assert!(
        !waiting.is_empty(),
        "they wait as long as nobody needs their memory"
    );
    let refused = runtime.try_exec(&json!({"command": "true"}));
    assert_eq!(refused.status, 409, "{refused:?}");
    operate(&server.api, &runtime.id, "resume");
    runtime.sh("echo again").assert_stdout("again\n");
}

/// Of a profile that allows so few that an order could not be received below its limit.
#[test]
fn few_descriptors_for_commands_are_enough_to_start_them() {
    needs!(Root);
    let _turn = alone();
    let profiles = TestDir::new();
    let strict = include_str!("../../sandbox-profiles/strict.toml");
    let few = strict.replace("soft = 1024\nhard = 2048", "soft = 6\nhard = 6");
    assert_ne!(
        few, strict,
        "its limit of descriptors is written in another way"
    );
    std::fs::write(profiles.path().join("few.toml"), few).expect("write a profile");
    let server = Server::start(Options {
        parked: PARKED,
        args: vec![
            "--profiles-dir".into(),
            profiles.path().display().to_string(),
        ],
        ..Options::default()
    });
    let runtime = Runtime::create(&server.api, &json!({"profile": "few"}));
    for _ in 0..2 {
        runtime.sh("ulimit -n; ulimit -Hn").assert_stdout("6\n6\n");
        assert_parks(&server);
    }
}
