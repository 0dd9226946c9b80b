//! The database is not what it was when the service starts: it is refused, with the reason, and nothing is lost.

use crate::needs;
use crate::support::server::{Options, run};
use crate::support::{Server, alone};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

const EXEC: &str = "/v1/runtimes/kept/exec";

/// A server that has ended, with a runtime that has a file.
fn ended() -> (Server, PathBuf) {
    let server = Server::start(Options::default());
    let body = json!({"name": "kept", "limits": {"disk_mib": 16}});
    server.api.post("/v1/runtimes", &body).data(200);
    let write = json!({"command": "echo here > /root/file"});
    server.api.post(EXEC, &write).data(200);
    assert!(server.stop().success());
    let database = server.data_dir().join("state/cellblock.db");
    assert!(database.exists());
    (server, database)
}

/// Starts the service on the directory, which must fail; what it says.
fn refusal(server: &Server) -> String {
    let data = server.data_dir();
    let data = data.to_str().expect("a path");
    let output = run(
        &["serve", "--listen", "127.0.0.1:0", "--data-dir", data],
        &[],
    );
    assert!(!output.status.success(), "it serves: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn all_is_there(server: Server) {
    let server = server.restart();
    let read = server.api.post(EXEC, &json!({"command": "cat /root/file"}));
    assert_eq!(read.data(200)["stdout"], "here\n");
}

fn names(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
}

fn moved(path: &Path) -> PathBuf {
    let away = path.with_extension("away");
    fs::rename(path, &away).expect("move it away");
    away
}

#[test]
fn a_database_that_is_gone_takes_no_runtimes_along() {
    needs!(Root);
    let _turn = alone();
    let (server, database) = ended();
    let away = moved(&database);
    names(
        &refusal(&server),
        &["database", "is gone", "/runtimes", "put it back"],
    );
    assert!(!database.exists(), "it made a new one");
    fs::rename(away, &database).expect("put it back");
    all_is_there(server);
}

#[test]
fn a_database_that_is_none_any_more_is_left_as_it_is() {
    needs!(Root);
    let _turn = alone();
    let (server, database) = ended();
    let away = moved(&database);
    fs::write(
        &database,
        "no database at all, but long enough for a header. ".repeat(100),
    )
    .expect("spoil it");
    let spoiled = fs::read(&database).expect("read it");
    names(&refusal(&server), &["database"]);
    assert!(
        fs::read(&database).expect("read it") == spoiled,
        "it was changed"
    );
    fs::rename(away, &database).expect("put it back");
    all_is_there(server);
}

#[test]
fn a_database_that_another_process_holds_is_refused() {
    needs!(Root);
    let _turn = alone();
    let (server, database) = ended();
    let held = rusqlite::Connection::open(&database).expect("open it");
    held.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
        .expect("lock it");
    names(&refusal(&server), &["database", "lock"]);
    drop(held);
    all_is_there(server);
}
