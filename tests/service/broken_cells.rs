//! A cell that can't be built: an error of the server's with its reason in the log, never a made-up outcome.

use crate::needs;
use crate::support::server::Options;
use crate::support::{Server, alone, assert_error};
use serde_json::json;

#[test]
fn a_step_that_fails_is_a_500_and_named_in_the_log() {
    needs!(Root, Unshare);
    let _turn = alone();
    // Without CAP_NET_ADMIN the loopback device of a cell can't be brought up.
    let before = "set -- setpriv --bounding-set=-net_admin --inh-caps=-net_admin \"$@\"";
    let server = Server::start(Options {
        before: Some(before.to_owned()),
        ..Options::default()
    });
    let body = json!({"command": "true", "args": ["x"]});
    let reply = server.api.post("/v1/runtimes/example/exec", &body);
    assert_error(&reply, 500, "internal");
    assert!(!reply.text().contains("bring lo"), "{}", reply.text());
    let log = server.log();
    assert!(
        log.contains("bring lo up") && log.contains("EPERM"),
        "{log}"
    );
}
