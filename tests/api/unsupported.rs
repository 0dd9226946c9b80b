//! What clients of the hosted product know and this service does not have: 501 in the usual shape, never a 404 that looks
//! like a missing object.

use crate::needs;
use crate::support::{api, assert_error, together};

/// Every such path of the official clients 0.0.7 to 0.1.21, with a method that they use.
const KNOWN: &[(&str, &str)] = &[
    ("GET", "/v1/secrets"),
    ("POST", "/v1/secrets"),
    ("GET", "/v1/secrets/x"),
    ("PUT", "/v1/secrets/x"),
    ("DELETE", "/v1/secrets/x"),
    ("GET", "/v1/secret-stubs"),
    ("DELETE", "/v1/secret-stubs/x"),
    ("GET", "/v1/default-secret-stubs"),
    ("POST", "/v1/default-secret-stubs"),
    ("PUT", "/v1/default-secret-stubs"),
    ("DELETE", "/v1/default-secret-stubs/x"),
    ("GET", "/v1/secret-injection-rules"),
    ("DELETE", "/v1/secret-injection-rules/x"),
    ("GET", "/v1/audits"),
    ("GET", "/v1/events"),
    ("GET", "/v1/events/x"),
    ("GET", "/v1/runtimes/example/secret-stubs"),
    ("POST", "/v1/runtimes/example/secret-stubs"),
    ("PUT", "/v1/runtimes/example/secret-stubs"),
    ("PUT", "/v1/runtimes/example/secret-stubs/replace"),
    ("GET", "/v1/runtimes/example/secret-stubs/x"),
    ("DELETE", "/v1/runtimes/example/secret-stubs/x"),
    ("GET", "/v1/runtimes/example/secret-injection-rules"),
    ("POST", "/v1/runtimes/example/secret-injection-rules"),
    ("GET", "/v1/runtimes/example/secret-injection-rules/x"),
    ("DELETE", "/v1/runtimes/example/secret-injection-rules/x"),
    ("GET", "/v1/runtimes/example/ssh-keys"),
    ("POST", "/v1/runtimes/example/ssh-keys"),
    ("DELETE", "/v1/runtimes/example/ssh-keys/x"),
    ("GET", "/v1/runtimes/example/watchfox"),
    ("GET", "/v1/runtimes/example/watchfox/findings"),
    ("GET", "/v1/runtimes/example/watchfox/findings/x"),
    ("GET", "/v1/runtimes/example/watchfox/savings"),
    ("GET", "/v1/runtimes/example/egress"),
    ("GET", "/v1/runtimes/example/egress/audit"),
    ("POST", "/v1/runtimes/example/egress/enable"),
    ("POST", "/v1/runtimes/example/egress/disable"),
    ("PATCH", "/v1/runtimes/example/egress/allowlist"),
];

#[test]
fn what_only_the_hosted_product_has_is_501() {
    needs!(Root);
    let _turn = together();
    for (method, path) in KNOWN {
        let body = matches!(*method, "POST" | "PUT" | "PATCH").then_some(b"{}".as_slice());
        let headers: &[_] = &[("Content-Type", "application/json")];
        let reply = api().send(method, path, headers, body);
        assert_error(&reply, 501, "unimplemented");
        let reply = api().with_token("").send(method, path, headers, body);
        assert_error(&reply, 401, "unauthenticated");
    }
}
