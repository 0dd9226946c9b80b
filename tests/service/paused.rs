//! Commands of paused runtimes, which nobody knows the end of.

use crate::needs;
use crate::records::{configured, run, sh};
use crate::support::{Server, alone, bound};
use serde_json::json;
use std::time::Instant;

fn operate(server: &Server, name: &str, operation: &str) {
    let path = format!("/v1/runtimes/{name}/{operation}");
    server.api.send("POST", &path, &[], None).data(200);
}

#[test]
fn paused_commands_take_no_place_from_others_and_do_not_hold_up_the_end() {
    needs!(Root);
    let _turn = alone();
    let (options, _file) = configured("max_execs = 2\ndrain_secs = 60");
    let server = Server::start(options);
    server
        .api
        .post("/v1/runtimes", &json!({"name": "other"}))
        .data(200);
    let line = "while [ ! -e /root/go ]; do sleep 0.05; done; echo done";
    let paused = run(&server, line, json!({"detach": true}));
    let ended = run(&server, "sleep 3", json!({"detach": true}));
    operate(&server, "example", "pause");
    let on_other = |line: &str| {
        let body = sh(line, json!({}));
        server.api.post("/v1/runtimes/other/exec", &body)
    };
    // One of the two gave its place up; half as many as may run can do so.
    assert_eq!(on_other("echo beside").data(200)["stdout"], "beside\n");
    assert_eq!(server.api.record(&paused)["outcome"], "running");
    operate(&server, "example", "resume");
    server.api.ended(&ended, bound(10_000));
    on_other("true").data(200);
    let held = run(&server, "sleep 1000", json!({"detach": true}));
    operate(&server, "example", "pause");
    let began = Instant::now();
    assert!(server.stop().success());
    assert!(began.elapsed() < bound(5_000), "{:?}", began.elapsed());
    let server = server.restart();
    for id in [&paused, &held] {
        assert_eq!(server.api.record(id)["outcome"], "cancelled", "{id}");
    }
}
