//! Runtimes that take more than the disk has, which their limits together allow: what begins is refused, what ends works, and so
//! room can be made with what the service offers, also by way of its end and a start.

use crate::needs;
use crate::support::server::Options;
use crate::support::{Server, alone, assert_error, bound, eventually};
use nix::sys::statvfs::statvfs;
use serde_json::{Value, json};

/// What each disk may take, in MiB; two of them are more than there is.
const DISK: u32 = 100;

/// A server with a file system of its own at the data directory, which is there again after a restart. A part of it is kept back
/// for root, as it is by default; a runtime's disk takes that too, and the api process can't.
fn overcommitted() -> Server {
    Server::start(Options::on_small_disk(160, ""))
}

/// Bytes that the api process could still write.
fn free(server: &Server) -> u64 {
    let disk = statvfs(&server.own_data_dir()).expect("look at the disk");
    disk.blocks_available() * disk.fragment_size()
}

fn sh(server: &Server, runtime: &str, line: &str) -> Value {
    let body = json!({"command": line, "timeout_secs": 600});
    let path = format!("/v1/runtimes/{runtime}/exec");
    server.api.post(&path, &body).data(200)
}

fn full(server: &Server) {
    for name in ["greedy", "victim", "third"] {
        let body = json!({"name": name, "limits": {"disk_mib": DISK}});
        server.api.post("/v1/runtimes", &body).data(200);
        sh(server, name, "echo here > /root/file; sync");
    }
    for name in ["greedy", "victim"] {
        sh(server, name, "cat /dev/zero > /root/fill; sync");
    }
    assert_eq!(free(server), 0);
}

fn assert_no_room(reply: &crate::support::Reply) {
    assert_error(reply, 503, "unavailable");
    let reason = &reply.json()["error"]["details"]["reason"];
    assert_eq!(reason, "no_room", "{}", reply.text());
}

/// Removes the one that took it all; then everything works again.
fn assert_room_can_be_made(server: &Server) {
    let api = &server.api;
    assert_eq!(api.delete("/v1/runtimes/greedy").status, 200);
    assert_error(&api.get("/v1/runtimes/greedy"), 404, "not_found");
    let ready = || api.get("/readyz").status == 200;
    assert!(eventually(bound(10_000), ready), "{} free", free(server));
    let body = json!({"name": "new", "limits": {"disk_mib": 16}});
    api.post("/v1/runtimes", &body).data(200);
    assert_eq!(sh(server, "new", "echo works")["stdout"], "works\n");
    for name in ["victim", "third", "new"] {
        api.delete(&format!("/v1/runtimes/{name}")).data(200);
    }
}

#[test]
fn what_begins_is_refused_and_what_ends_works() {
    needs!(Root, Unshare);
    let _turn = alone();
    let server = overcommitted();
    let api = &server.api;
    api.get("/readyz").data(200);
    full(&server);
    assert_no_room(&api.get("/readyz"));
    assert_eq!(api.get("/healthz").status, 200);
    let body = json!({"name": "more", "limits": {"disk_mib": 16}});
    assert_no_room(&api.post("/v1/runtimes", &body));
    for name in ["victim", "third"] {
        let stopped = api.post(&format!("/v1/runtimes/{name}/stop"), &json!({}));
        assert_eq!(stopped.data(200)["status"], "shutdown");
    }
    assert_eq!(free(&server), 0);
    assert_room_can_be_made(&server);
}

#[test]
fn a_file_that_the_hosts_disk_has_no_room_for_is_told_so() {
    needs!(Root, Unshare);
    let _turn = alone();
    let server = overcommitted();
    full(&server);
    let bytes = vec![7; 20 << 20];
    let path = "/v1/runtimes/third/files?path=/root/large";
    let refused = server.api.send("PUT", path, &[], Some(&bytes));
    assert_no_room(&refused);
    let own = server.api.send(
        "PUT",
        "/v1/runtimes/greedy/files?path=/root/large",
        &[],
        Some(&bytes),
    );
    assert_ne!(own.status, 204, "{}", own.text());
    // Its file system may have given itself up. What it had stored is there once there is room, and it has begun anew.
    let api = &server.api;
    api.delete("/v1/runtimes/greedy").data(200);
    let ready = || api.get("/readyz").status == 200;
    assert!(eventually(bound(10_000), ready), "{} free", free(&server));
    for operation in ["stop", "start"] {
        let path = format!("/v1/runtimes/third/{operation}");
        api.post(&path, &json!({})).data(200);
    }
    assert_eq!(sh(&server, "third", "cat /root/file")["stdout"], "here\n");
}

#[test]
fn the_service_ends_and_starts_and_loses_no_record() {
    needs!(Root, Unshare);
    let _turn = alone();
    let server = overcommitted();
    full(&server);
    let said: Vec<Value> = (0..100)
        .map(|number| sh(&server, "third", &format!("echo {number}"))["exec_id"].clone())
        .collect();
    assert!(server.stop().success());
    assert!(!server.log().contains("lost"), "{}", server.log());
    let server = server.restart();
    assert_no_room(&server.api.get("/readyz"));
    for id in said {
        let record = server
            .api
            .get(&format!("/v1/execs/{}", id.as_str().expect("an id")));
        assert_eq!(record.data(200)["outcome"], "exited");
    }
    // As a power cut would.
    server.kill();
    let server = server.restart();
    assert_no_room(&server.api.get("/readyz"));
    assert_room_can_be_made(&server);
    assert!(server.stop().success());
    server.restart().api.get("/readyz").data(200);
}
