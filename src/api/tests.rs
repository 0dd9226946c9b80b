//! What the HTTP side answers without a warden: everything that is refused before anything would run, over a real
//! connection, so that framing, limits and header handling are those of production.

use super::test_support::{Api, TOKEN};
use serde_json::json;
use std::io::Write;
use std::net::TcpStream;

#[test]
fn health_needs_no_token() {
    let api = Api::start();
    let answer = api.send("GET", "/healthz", "", "");
    assert_eq!(
        (answer.status, answer.body),
        (200, json!({ "data": { "status": "ok" } }))
    );
    assert_eq!(api.send("HEAD", "/healthz", "", "").status, 200);
    // Here it has no launcher.
    assert_eq!(api.send("GET", "/readyz", "", "").status, 503);
}

#[test]
fn every_error_has_the_same_shape_and_id() {
    let api = Api::start();
    let id = "0190b3f0-0000-7000-8000-000000000001";
    let auth = format!("Authorization: Bearer {TOKEN}\r\n");
    for (method, path, headers, status, code) in [
        ("GET", "/nowhere", "", 404, "not_found"),
        ("GET", "/v1/runtimes/", "", 404, "not_found"),
        ("DELETE", "/healthz", "", 405, "invalid_argument"),
        ("GET", "/v1/runtimes", "", 401, "unauthenticated"),
        ("GET", "/v1/runtimes/x", &auth, 404, "not_found"),
        ("GET", "/v1/runtimes/%ff", &auth, 404, "not_found"),
        (
            "GET",
            "/v1/runtimes?limit=0",
            &auth,
            422,
            "invalid_argument",
        ),
        (
            "GET",
            "/v1/runtimes?status=odd",
            &auth,
            422,
            "invalid_argument",
        ),
        ("POST", "/v1/runtimes/x/stop", &auth, 404, "not_found"),
        ("GET", "/v1/checkpoints/x", &auth, 404, "not_found"),
        ("PUT", "/v1/secrets/x", &auth, 501, "unimplemented"),
    ] {
        let headers = format!("{headers}X-Request-Id: {id}\r\n");
        let answer = api.send(method, path, &headers, "");
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{method} {path}"
        );
        assert!(answer.body["error"]["message"].is_string());
        assert_eq!(answer.body["request_id"], id);
        assert_eq!(answer.header("x-request-id"), Some(id));
    }
}

#[test]
fn a_request_id_is_made_where_none_is_valid() {
    let api = Api::start();
    for sent in ["", "X-Request-Id: my id\r\n", "X-Request-Id: 0\r\n"] {
        let answer = api.send("GET", "/healthz", sent, "");
        let id: uuid::Uuid = answer.header("x-request-id").unwrap().parse().unwrap();
        assert_eq!(id.get_version_num(), 7);
    }
}

#[test]
fn a_wrong_method_tells_the_right_ones() {
    let api = Api::start();
    let answer = api.call("PUT", "/v1/runtimes", "");
    let allow = answer.header("allow").unwrap();
    assert!(
        answer.status == 405 && allow.contains("GET") && allow.contains("POST"),
        "{allow}"
    );
}

#[test]
fn only_a_whole_bearer_token_is_accepted() {
    let api = Api::start();
    let wrong = "f".repeat(32);
    for value in [
        String::new(),
        "Authorization: Bearer\r\n".into(),
        format!("Authorization: Basic {TOKEN}\r\n"),
        format!("Authorization: {TOKEN}\r\n"),
        format!("Authorization: Bearer {wrong}\r\n"),
        format!("Authorization: Bearer {}\r\n", &TOKEN[..31]),
        format!("Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer {TOKEN}\r\n"),
    ] {
        let answer = api.send("GET", "/v1/runtimes", &value, "");
        assert_eq!(
            (answer.status, answer.header("www-authenticate")),
            (401, Some("Bearer")),
            "{value}"
        );
    }
    let lower = format!("authorization: bearer {TOKEN}\r\n");
    assert_eq!(api.send("GET", "/v1/runtimes", &lower, "").status, 200);
}

#[test]
fn an_empty_list_has_all_six_keys() {
    let api = Api::start();
    let body = api.call("GET", "/v1/runtimes?limit=5", "").body;
    let pagination = json!({
        "next_cursor": null, "has_more": false, "limit": 5, "offset": 0, "total": 0, "next_offset": null,
    });
    assert_eq!(body, json!({ "data": [], "pagination": pagination }));
}

#[test]
fn a_bad_body_is_told_apart() {
    let api = Api::start();
    let exec = "/v1/runtimes/x/exec";
    for (body, status, field) in [
        ("{", 400, ""),
        ("", 400, ""),
        ("\u{1}", 400, ""),
        ("[]", 422, "body"),
        ("{}", 422, "command"),
        (r#"{"command":1}"#, 422, "command"),
        (r#"{"command":"a","args":"b"}"#, 422, "args"),
        (r#"{"command":"a","env":{"A":1}}"#, 422, "env"),
        (r#"{"command":"a","timeout_secs":-1}"#, 422, "timeout_secs"),
        (r#"{"command":"a","timeout_secs":1.5}"#, 422, "timeout_secs"),
        (r#"{"command":"a","timeout_secs":"1"}"#, 422, "timeout_secs"),
        (r#"{"command":"a","timeout":1}"#, 422, "timeout"),
        (
            r#"{"command":"a","limits":{"memory":1}}"#,
            422,
            "limits.memory",
        ),
        (
            r#"{"command":"a","limits":{"pids":-1}}"#,
            422,
            "limits.pids",
        ),
        (r#"{"command":"a","detach":1}"#, 422, "detach"),
        (r#"{"command":"a","detach":true}"#, 404, ""),
        (r#"{"command":"a","detach":false}"#, 404, ""),
        (r#"{"command":"a"}"#, 404, ""),
    ] {
        let answer = api.call("POST", exec, body);
        assert_eq!((answer.status, answer.field()), (status, field), "{body}");
    }
    let message = api
        .call("POST", exec, r#"{"command":"a","timeout":1}"#)
        .body["error"]["message"]
        .to_string();
    assert!(message.contains("`timeout_secs`"), "{message}");
}

#[test]
fn a_create_body_is_checked_before_anything_is_made() {
    let api = Api::start();
    for (body, status, field) in [
        (r#"{"name":"-"}"#, 422, "name"),
        (
            r#"{"name":"0190b3f0-0000-7000-8000-000000000001"}"#,
            422,
            "name",
        ),
        (r#"{"profile":"lax"}"#, 422, "profile"),
        (r#"{"network":"host"}"#, 422, "network"),
        (
            r#"{"resources":{"limits":{"memory_mib":99999999}}}"#,
            422,
            "resources.limits.memory_mib",
        ),
        (
            r#"{"resources":{"requests":{"vcpus":0}}}"#,
            422,
            "resources.requests.vcpus",
        ),
        (
            r#"{"environment_variables":{"1A":""}}"#,
            422,
            "environment_variables",
        ),
        (r#"{"checkpoint_id":"x"}"#, 422, "checkpoint_id"),
        (
            r#"{"checkpoint_id":"0190b3f0-0000-7000-8000-000000000001"}"#,
            404,
            "",
        ),
    ] {
        let answer = api.call("POST", "/v1/runtimes", body);
        assert_eq!((answer.status, answer.field()), (status, field), "{body}");
    }
    assert_eq!(
        api.call("GET", "/v1/runtimes", "").body["pagination"]["total"],
        0
    );
}

#[test]
fn an_idempotency_key_is_one_header_of_visible_characters() {
    let api = Api::start();
    let long = "k".repeat(256);
    let status = |keys: &str| {
        let headers = format!("Authorization: Bearer {TOKEN}\r\n{keys}");
        let path = "/v1/runtimes/x/exec";
        let answer = api.send("POST", path, &headers, r#"{"command":"a"}"#);
        (answer.status, answer.field().to_owned())
    };
    for bad in ["", " ", "a b", "\u{e9}", &long, "a\r\nIdempotency-Key: a"] {
        let refused = (422, "Idempotency-Key".to_owned());
        assert_eq!(
            status(&format!("Idempotency-Key: {bad}\r\n")),
            refused,
            "{bad}"
        );
    }
    for good in ["a", "!~", &long[..255]] {
        // There is no such runtime.
        let found = (404, String::new());
        assert_eq!(
            status(&format!("Idempotency-Key: {good}\r\n")),
            found,
            "{good}"
        );
    }
}

#[test]
fn a_body_too_large_is_refused_by_its_length_alone_and_while_it_arrives() {
    let api = Api::start();
    let head = |framing: &str| {
        format!(
            "POST /v1/runtimes HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n{framing}\r\n\r\n"
        )
    };
    // Nothing follows the head; an answer means that nothing more was waited for.
    let by_length = api.raw_head(&head("Content-Length: 4097"));
    assert_eq!(
        (by_length.status, by_length.code()),
        (413, "invalid_argument")
    );

    let chunk = format!("1001\r\n{}\r\n0\r\n\r\n", "x".repeat(4097));
    let chunked = api.raw(format!("{}{chunk}", head("Transfer-Encoding: chunked")).as_bytes());
    assert_eq!((chunked.status, chunked.code()), (413, "invalid_argument"));
}

#[test]
fn the_content_type_must_be_json_or_absent() {
    let api = Api::start();
    let auth = format!("Authorization: Bearer {TOKEN}\r\n");
    let exec = |kind: &str| {
        api.send(
            "POST",
            "/v1/runtimes/x/exec",
            &format!("{auth}{kind}"),
            r#"{"command":"a"}"#,
        )
    };
    for kind in [
        "",
        "Content-Type: application/json; charset=utf-8\r\n",
        "Content-Type: Application/JSON\r\n",
    ] {
        assert_eq!(exec(kind).status, 404, "{kind}");
    }
    for kind in [
        "Content-Type: text/plain\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
    ] {
        let answer = exec(kind);
        assert_eq!(
            (answer.status, answer.code()),
            (415, "invalid_argument"),
            "{kind}"
        );
    }
}

#[test]
fn half_sent_bodies_keep_nobody_else_waiting() {
    let api = Api::start();
    let half = format!(
        "POST /v1/runtimes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 4096\r\n\r\n{{"
    );
    let halves: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(api.address).unwrap();
            stream.write_all(half.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert_eq!(api.call("GET", "/v1/runtimes", "").status, 200);
    assert_eq!(api.call("POST", "/v1/runtimes", "{").status, 400);
    drop(halves);
}
