//! What a tenant or the starter of the server may do without a runtime being lost.

use crate::needs;
use crate::support::runtime::Runtime;
use crate::support::server::Options;
use crate::support::{Server, alone};
use serde_json::json;

#[test]
fn a_removed_tmp_is_no_loss_after_a_restart_nor_is_a_strict_umask() {
    needs!(Root, Unshare);
    let _turn = alone();
    let server = Server::start(Options {
        before: Some("umask 077".to_owned()),
        ..Options::default()
    });
    let strict = json!({"name": "strict", "profile": "strict", "limits": {"disk_mib": 64}});
    let runtime = Runtime::create(&server.api, &strict);
    runtime.sh("pwd").assert_stdout("/home/user\n");
    let body = json!({"command": "sh", "args": ["-c", "rm -rf /tmp; echo gone"]});
    let exec = "/v1/runtimes/example/exec";
    assert_eq!(server.api.post(exec, &body).data(200)["stdout"], "gone\n");
    assert!(server.stop().success());
    let server = server.restart();
    let body = json!({"command": "echo", "args": ["back"]});
    assert_eq!(server.api.post(exec, &body).data(200)["stdout"], "back\n");
}
