//! The disk under the data directory is full: clear errors, nothing half made, and all well once there is room again.

use crate::needs;
use crate::support::server::Options;
use crate::support::{Server, alone, assert_error};
use serde_json::json;
use std::fs;

#[test]
fn a_full_data_directory_refuses_and_recovers() {
    needs!(Root, Unshare);
    let _turn = alone();
    let server = Server::start(Options::on_small_disk(64, ""));
    let data = server.own_data_dir();
    let filler = data.join("filler");
    let list = || server.api.get("/v1/runtimes").json()["pagination"]["total"].clone();
    let total = list();
    let directories = || {
        fs::read_dir(data.join("runtimes"))
            .expect("list runtimes")
            .count()
    };
    let on_disk = directories();
    let written = fill(&filler);
    assert!(written > 0, "there was no room from the start");
    let reply = server.api.post(
        "/v1/runtimes",
        &json!({"name": "no-room", "limits": {"disk_mib": 48}}),
    );
    assert!(matches!(reply.status, 500 | 503), "{}", reply.text());
    assert_error(
        &reply,
        reply.status,
        if reply.status == 503 {
            "unavailable"
        } else {
            "internal"
        },
    );
    assert_eq!(
        (list(), directories()),
        (total, on_disk),
        "something half made"
    );
    assert_error(&server.api.get("/v1/runtimes/no-room"), 404, "not_found");
    assert_eq!(server.api.get("/healthz").status, 200);
    fs::remove_file(&filler).expect("make room");
    server
        .api
        .post(
            "/v1/runtimes",
            &json!({"name": "room", "limits": {"disk_mib": 16}}),
        )
        .data(200);
    let body = json!({"command": "echo", "args": ["room"]});
    assert_eq!(
        server.api.post("/v1/runtimes/room/exec", &body).data(200)["stdout"],
        "room\n"
    );
}

/// Writes until there is no room. Gives the bytes written.
fn fill(path: &std::path::Path) -> usize {
    use std::io::Write;
    let mut file = fs::File::create(path).expect("start to fill the disk");
    let (mut written, mut size) = (0, 1 << 20);
    while size > 0 {
        match file.write(&vec![0; size]) {
            Ok(count) => written += count,
            Err(_) => size /= 2,
        }
    }
    written
}

#[test]
fn what_is_kept_for_the_end_of_things_is_left_by_what_begins() {
    needs!(Root, Unshare);
    let _turn = alone();
    let server = Server::start(Options::on_small_disk(64, ""));
    let api = &server.api;
    let post = |path: &str, body| api.post(path, &body);
    post(
        "/v1/runtimes",
        json!({"name": "source", "limits": {"disk_mib": 16}}),
    )
    .data(200);
    let sh = json!({"command": "echo kept > /root/file; sync"});
    post("/v1/runtimes/source/exec", sh).data(200);
    let [first, second] = [(); 2].map(|()| {
        let made = post("/v1/runtimes/source/checkpoints", json!({})).data(200);
        format!("/v1/checkpoints/{}", made["id"].as_str().expect("an id"))
    });
    let filler = server.own_data_dir().join("filler");
    assert!(fill(&filler) > 0, "there was no room from the start");
    // The database has room in its own file, which records of long commands use up.
    let body = json!({"command": format!("true {}", "long ".repeat(1000))}).to_string();
    let stored = |number: usize| {
        let key = format!("key-{number}");
        let headers = [
            ("Content-Type", "application/json"),
            ("Idempotency-Key", key.as_str()),
        ];
        let reply = api.send(
            "POST",
            "/v1/runtimes/source/exec",
            &headers,
            Some(body.as_bytes()),
        );
        if reply.status != 200 {
            assert_error(&reply, 503, "unavailable");
            assert_eq!(reply.json()["error"]["details"]["reason"], "no_room");
        }
        reply.status == 200
    };
    assert!(!(0..5000).all(stored), "there is always room");
    api.delete(&first).data(200);
    assert_error(&api.get(&first), 404, "not_found");
    post("/v1/runtimes/source/stop", json!({})).data(200);
    post("/v1/runtimes/source/start", json!({})).data(200);
    fs::remove_file(&filler).expect("make room");
    let id = second.rsplit('/').next();
    let body = json!({"name": "restored", "checkpoint_id": id});
    post("/v1/runtimes", body).data(200);
    let cat = json!({"command": "cat", "args": ["/root/file"]});
    let data = post("/v1/runtimes/restored/exec", cat).data(200);
    assert_eq!(data["stdout"], "kept\n");
    assert!((5000..5100).all(stored), "no room again");
}
