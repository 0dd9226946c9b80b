//! Who may ask: everything but the public pages wants the bearer token.

use crate::needs;
use crate::support::{api, assert_error, together};
use serde_json::json;

/// Every protected route, with a body where it takes one.
const PROTECTED: &[(&str, &str)] = &[
    ("GET", "/v1/runtimes"),
    ("POST", "/v1/runtimes"),
    ("GET", "/v1/runtimes/example"),
    ("DELETE", "/v1/runtimes/example"),
    ("POST", "/v1/runtimes/example/exec"),
    ("GET", "/v1/runtimes/no-such-runtime"),
    ("GET", "/v1/images"),
    ("GET", "/metrics"),
];

fn refused_everywhere(headers: &[(&str, &str)]) {
    let nobody = api().with_token("");
    for (method, path) in PROTECTED {
        let body = (*method == "POST").then_some(b"{\"command\":\"true\"}".as_slice());
        let mut headers = headers.to_vec();
        headers.push(("Content-Type", "application/json"));
        let reply = nobody.send(method, path, &headers, body);
        assert_error(&reply, 401, "unauthenticated");
    }
}

#[test]
fn missing_token_is_401_everywhere() {
    needs!(Root);
    let _turn = together();
    refused_everywhere(&[]);
}

#[test]
fn malformed_authorization_is_401_everywhere() {
    needs!(Root);
    let _turn = together();
    let token = &api().token;
    let almost = [
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Basic {token}"),
        token.clone(),
        format!("Bearer {token}x"),
        format!("Bearer {}", &token[..token.len() - 1]),
        format!("Bearer {token} {token}"),
        format!("Bearer {}", "a".repeat(4096)),
    ];
    for header in &almost {
        refused_everywhere(&[("Authorization", header)]);
    }
}

#[test]
fn the_scheme_is_case_insensitive() {
    needs!(Root);
    let _turn = together();
    let header = format!("bearer {}", api().token);
    let reply =
        api()
            .with_token("")
            .send("GET", "/v1/runtimes", &[("Authorization", &header)], None);
    reply.data(200);
}

#[test]
fn health_needs_no_token() {
    needs!(Root);
    let _turn = together();
    let nobody = api().with_token("");
    let reply = nobody.get("/healthz");
    assert_eq!(
        (reply.status, reply.json()),
        (200, json!({"data": {"status": "ok"}}))
    );
    let head = nobody.send("HEAD", "/healthz", &[], None);
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn a_refused_request_does_nothing() {
    needs!(Root);
    let _turn = together();
    let name = "made-without-a-token";
    let reply = api()
        .with_token("wrong")
        .post("/v1/runtimes", &json!({"name": name}));
    assert_error(&reply, 401, "unauthenticated");
    assert_error(
        &api().get(&format!("/v1/runtimes/{name}")),
        404,
        "not_found",
    );
}
