//! Secrets of the server reach no cell, no log and no disk.

use crate::needs;
use crate::support::server::Options;
use crate::support::{Runtime, Server, alone, procs};
use serde_json::json;
use std::path::Path;

const SECRET: &str = "a-secret-of-the-server-5f3a";

fn with_secret() -> Server {
    let env = vec![("SECRET".to_owned(), SECRET.to_owned())];
    Server::start(Options {
        env,
        ..Options::default()
    })
}

#[test]
fn the_servers_environment_is_in_no_process_of_a_cell() {
    needs!(Root);
    let _turn = alone();
    let server = with_secret();
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 64}}));
    let exec = runtime.sh("env; cat /proc/[0-9]*/environ | tr '\\0' '\\n'");
    assert!(exec.stdout().contains("HOME=/root"), "{exec:?}");
    assert!(!exec.stdout().contains(SECRET), "{exec:?}");
    runtime.while_sleeping(|payload| {
        let init = procs::parent(payload).expect("its init");
        for pid in [payload, init, server.warden_pid()] {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).expect("an environment");
            let text = String::from_utf8_lossy(&environ).into_owned();
            assert!(!text.contains(SECRET), "process {pid} has the secret");
            assert!(
                !text.contains(&server.api.token),
                "process {pid} has the token"
            );
        }
    });
}

#[test]
fn tokens_are_in_no_log_and_not_in_the_database() {
    needs!(Root);
    let _turn = alone();
    let server = with_secret();
    let token = server.api.token.clone();
    server
        .api
        .with_token(&format!("{token}x"))
        .get("/v1/runtimes");
    server
        .api
        .get(&format!("/v1/runtimes?token={token}"))
        .data(200);
    let body = json!({"command": "true", "env": {"KEY": SECRET}, "stdin": SECRET});
    server
        .api
        .post("/v1/runtimes/example/exec", &body)
        .data(200);
    assert!(server.stop().success());
    let log = server.log();
    assert!(!log.contains(&token), "the token is in the log");
    assert!(
        !log.contains(SECRET),
        "a command's variable or input is in the log"
    );
    let state = server.data_dir().join("state");
    let files = files_without(&state, token.as_bytes());
    assert!(files > 0, "nothing to look at in {}", state.display());
}

/// Looks for bytes in all files below a directory, which must not be there; how many files that were.
fn files_without(dir: &Path, needle: &[u8]) -> usize {
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).expect("list the state").flatten() {
        if entry.path().is_dir() {
            seen += files_without(&entry.path(), needle);
            continue;
        }
        let bytes = std::fs::read(entry.path()).expect("read a state file");
        let found = bytes.windows(needle.len()).any(|window| window == needle);
        assert!(!found, "the token is in {}", entry.path().display());
        seen += 1;
    }
    seen
}

#[test]
fn no_descriptor_of_the_starter_is_inherited() {
    needs!(Root);
    let _turn = alone();
    // A descriptor without close-on-exec in the program that starts the server, as a careless init system has.
    let dir = crate::support::mounts::TestDir::new();
    let canary = dir.path().join("canary");
    std::fs::write(&canary, "x").expect("write a canary");
    let before = format!("exec 9< '{}'", canary.display());
    let server = Server::start(Options {
        before: Some(before),
        ..Options::default()
    });
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 64}}));
    runtime.while_sleeping(|payload| {
        let init = procs::parent(payload).expect("its init");
        for pid in [payload, init, server.warden_pid(), server.api_pid()] {
            for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))
                .expect("descriptors")
                .flatten()
            {
                let link = std::fs::read_link(entry.path()).unwrap_or_default();
                assert!(
                    !link.ends_with("canary"),
                    "process {pid} has it as {entry:?}"
                );
            }
        }
    });
}
