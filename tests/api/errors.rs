//! One error shape for everything, and the request id that ties an answer to the log.

use crate::needs;
use crate::support::client::is_uuid_v7;
use crate::support::{api, assert_error, assert_invalid_any, together};
use serde_json::json;
use std::io::{Read, Write};

const EXEC: &str = "/v1/runtimes/example/exec";

#[test]
fn unknown_routes_are_404_in_the_same_shape() {
    needs!(Root);
    let _turn = together();
    for path in [
        "/",
        "/v1",
        "/v2/runtimes",
        "/v1/runtimes/example/nothing",
        "/v1/runtimes/a/b/c",
    ] {
        assert_error(&api().get(path), 404, "not_found");
        assert_error(&api().post(path, &json!({})), 404, "not_found");
    }
}

#[test]
fn wrong_methods_are_405_in_the_same_shape() {
    needs!(Root);
    let _turn = together();
    let wrong = [
        ("PUT", "/v1/runtimes"),
        ("DELETE", "/v1/runtimes"),
        ("POST", "/v1/runtimes/example"),
        ("GET", EXEC),
        ("DELETE", EXEC),
        ("POST", "/healthz"),
        ("DELETE", "/healthz"),
    ];
    for (method, path) in wrong {
        let body = matches!(method, "PUT" | "POST").then_some(b"{}".as_slice());
        let reply = api().send(method, path, &[("Content-Type", "application/json")], body);
        assert_error(&reply, 405, "invalid_argument");
        assert_ne!(reply.header("allow"), "", "405 names the methods that work");
    }
}

#[test]
fn bodies_that_are_not_json_are_400() {
    needs!(Root);
    let _turn = together();
    let broken: [&[u8]; 8] = [
        b"",
        b"{",
        b"nope",
        b"{\"command\":}",
        b"{\"command\":\"true\"",
        b"{\"command\":\"true\"} trailing",
        b"{\"command\":\"\xff\xfe\"}",
        b"{'command':'true'}",
    ];
    for body in broken {
        let reply = api().post_bytes(EXEC, "application/json", body);
        assert_error(&reply, 400, "invalid_argument");
    }
    let reply = api().post_bytes("/v1/runtimes", "application/json", b"{\"name\":");
    assert_error(&reply, 400, "invalid_argument");
}

#[test]
fn deep_nesting_is_refused_and_harmless() {
    needs!(Root);
    let _turn = together();
    let body = format!(
        "{{\"command\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let reply = api().post_bytes(EXEC, "application/json", body.as_bytes());
    assert!(matches!(reply.status, 400 | 422), "{}", reply.text());
    assert_error(&reply, reply.status, "invalid_argument");
}

#[test]
fn json_that_is_no_object_is_422() {
    needs!(Root);
    let _turn = together();
    for body in ["[]", "3", "\"x\"", "true", "null"] {
        for path in [EXEC, "/v1/runtimes"] {
            let reply = api().post_bytes(path, "application/json", body.as_bytes());
            assert_invalid_any(&reply);
        }
    }
}

#[test]
fn other_content_types_are_415() {
    needs!(Root);
    let _turn = together();
    let body = b"{\"command\":\"true\"}";
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "nonsense",
        "application/json; charset=utf-16",
        "application/json;version=1; Charset=\"ISO-8859-1\"",
    ] {
        for path in [EXEC, "/v1/runtimes"] {
            assert_error(&api().post_bytes(path, kind, body), 415, "invalid_argument");
        }
    }
    for kind in [
        "application/json; charset=utf-8",
        "application/json;CHARSET=\"UTF-8\"; version=1",
        "Application/JSON",
    ] {
        api().post_bytes(EXEC, kind, body).data(200);
    }
}

#[test]
fn a_body_over_the_limit_is_413_from_its_length_alone() {
    needs!(Root);
    let _turn = together();
    for path in [EXEC, "/v1/runtimes"] {
        let mut stream = api().begin(path, 64 * 1024 * 1024 + 1, b"{\"command\":");
        let mut answer = Vec::new();
        // No more of the body ever comes: the answer must not wait for it. The server may keep the connection or not.
        let mut chunk = [0; 4096];
        while !String::from_utf8_lossy(&answer).contains("request_id") {
            let read = stream
                .read(&mut chunk)
                .expect("an answer before the body is complete");
            assert_ne!(
                read,
                0,
                "closed without an answer: {}",
                String::from_utf8_lossy(&answer)
            );
            answer.extend_from_slice(&chunk[..read]);
        }
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
        assert!(text.contains("\"invalid_argument\""), "{text}");
        let _ = stream.write_all(b"\"true\"}");
    }
}

#[test]
fn a_large_body_below_the_limit_is_read() {
    needs!(Root);
    let _turn = together();
    let body = json!({"command": "wc", "args": ["-c"], "stdin": "x".repeat(20 << 20)});
    let data = api().post(EXEC, &body).data(200);
    assert_eq!(data["stdout"].as_str().map(str::trim), Some("20971520"));
}

#[test]
fn request_ids_differ_and_a_valid_incoming_one_is_kept() {
    needs!(Root);
    let _turn = together();
    let id_of = |headers: &[(&str, &str)]| {
        let reply = api().send("GET", "/v1/runtimes/no-such", headers, None);
        assert_error(&reply, 404, "not_found");
        reply.header("x-request-id").to_owned()
    };
    assert_ne!(id_of(&[]), id_of(&[]));
    let mine = "0198f3c2-7b5e-7cc3-98d5-1f2a3b4c5d6e";
    assert_eq!(id_of(&[("X-Request-Id", mine)]), mine);
    let long = "a".repeat(300);
    for bad in ["abc", "0198f3c2", "{}\"", long.as_str()] {
        let id = id_of(&[("X-Request-Id", bad)]);
        assert!(id != bad && is_uuid_v7(&id), "{bad} became {id}");
    }
}

#[test]
fn answers_that_succeed_carry_a_request_id_too() {
    needs!(Root);
    let _turn = together();
    let reply = api().get("/v1/runtimes");
    assert_eq!(reply.status, 200);
    assert!(
        is_uuid_v7(reply.header("x-request-id")),
        "{:?}",
        reply.headers
    );
}

#[test]
fn a_head_over_its_limits_is_431() {
    needs!(Root);
    let _turn = together();
    let head = |headers: &str| {
        let mut stream = api().connect();
        let head = format!("GET /healthz HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        // The server may refuse before all is sent.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let long = |length: usize| format!("A: {}\r\n", "x".repeat(length));
    let cases = [
        (long(65_000), "200"),
        (long(65_536), "431"),
        (long(70_000), "431"),
        (long(1 << 20), "431"),
        ("A: b\r\n".repeat(99), "200"),
        ("A: b\r\n".repeat(100), "431"),
    ];
    for (headers, status) in cases {
        let answer = head(&headers);
        // A refusal may be lost where the client sent much behind it.
        let lost = answer.is_empty() && headers.len() > 100_000;
        let told = answer.starts_with(&format!("HTTP/1.1 {status} "));
        assert!(told || lost, "{} bytes: {answer:?}", headers.len());
    }
}

#[test]
fn garbage_instead_of_http_does_no_harm() {
    needs!(Root);
    let _turn = together();
    let long_path = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
    let garbage: [&[u8]; 5] = [
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        long_path.as_bytes(),
    ];
    for bytes in garbage {
        let mut stream = api().connect();
        // The server may refuse before all is sent.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || text.starts_with("HTTP/1.1 4"),
            "{text}"
        );
    }
    assert_eq!(api().get("/healthz").status, 200);
}
