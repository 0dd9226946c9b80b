//! HTTP as a client sees it. Every status is an answer, never an error of the client's; only a broken connection panics.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Request};

/// No request of a test takes longer than this, whatever hangs.
const DEADLINE: Duration = Duration::from_secs(90);

/// A server's address and the token that requests carry.
#[derive(Clone)]
pub struct Api {
    agent: ureq::Agent,
    /// TCP port on 127.0.0.1.
    pub port: u16,
    /// Bearer token; empty sends no Authorization header.
    pub token: String,
}

/// One answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Response headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
    /// From the first byte sent to the last one read.
    pub took: Duration,
}

impl Api {
    /// A client. Connections are not kept, so that an idle one never counts as a descriptor of the server.
    pub fn new(port: u16, token: &str) -> Api {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_idle_connections(0)
            .max_idle_connections_per_host(0)
            .timeout_global(Some(DEADLINE))
            .build();
        Api {
            agent: config.into(),
            port,
            token: token.to_owned(),
        }
    }

    /// The same server, another token.
    pub fn with_token(&self, token: &str) -> Api {
        Api {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    /// GET.
    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], None)
    }

    /// DELETE.
    pub fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, &[], None)
    }

    /// POST of a JSON value.
    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_bytes(path, "application/json", body.to_string().as_bytes())
    }

    /// POST of anything.
    pub fn post_bytes(&self, path: &str, content_type: &str, body: &[u8]) -> Reply {
        self.send("POST", path, &[("Content-Type", content_type)], Some(body))
    }

    /// Whether a command runs at an exec's path; false too while nobody answers.
    pub fn can_exec(&self, path: &str) -> bool {
        let body = json!({"command": "echo", "args": ["again"]}).to_string();
        let headers = [("Content-Type", "application/json")];
        let reply = self.try_send("POST", path, &headers, Some(body.as_bytes()));
        reply.is_ok_and(|reply| reply.status == 200 && reply.json()["data"]["stdout"] == "again\n")
    }

    /// Any request; panics when the connection breaks before the answer is complete.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Reply {
        self.try_send(method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Any request; a broken connection is the caller's to judge.
    pub fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Reply, ureq::Error> {
        let uri = format!("http://127.0.0.1:{}{path}", self.port);
        let mut request = Request::builder().method(method).uri(uri);
        if !self.token.is_empty() {
            request = request.header("Authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let start = Instant::now();
        let answer = match body {
            Some(body) => self.agent.run(request.body(body)?),
            None => self.agent.run(request.body(())?),
        };
        let (parts, body) = answer?.into_parts();
        let mut bytes = Vec::new();
        body.into_reader()
            .read_to_end(&mut bytes)
            .map_err(ureq::Error::from)?;
        let took = start.elapsed();
        if parts.status.as_u16() == 500 {
            let complaints = super::server::complaints(self.port);
            eprintln!("{method} {path}: 500; the server's last complaints:\n{complaints}");
        }
        Ok(Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: bytes,
            took,
        })
    }

    /// A GET whose body is read while it comes; its status must be 200.
    pub fn follow(&self, path: &str) -> impl Read + use<> {
        let uri = format!("http://127.0.0.1:{}{path}", self.port);
        let request = Request::get(uri).header("Authorization", format!("Bearer {}", self.token));
        let answer = self.agent.run(request.body(()).expect("a request"));
        let (parts, body) = answer.expect("an answer").into_parts();
        assert_eq!(parts.status.as_u16(), 200, "GET {path}");
        body.into_reader()
    }

    /// POST of a JSON value under an idempotency key.
    pub fn post_once(&self, path: &str, key: &str, body: &Value) -> Reply {
        let headers = [
            ("Content-Type", "application/json"),
            ("Idempotency-Key", key),
        ];
        self.send("POST", path, &headers, Some(body.to_string().as_bytes()))
    }

    /// An exec's record.
    #[track_caller]
    pub fn record(&self, id: &str) -> Value {
        self.get(&format!("/v1/execs/{id}")).data(200)
    }

    /// An exec's record when it no longer runs, which must be within `limit`.
    #[track_caller]
    pub fn ended(&self, id: &str, limit: Duration) -> Value {
        let mut record = self.record(id);
        let ended = super::timing::eventually(limit, || {
            record = self.record(id);
            record["outcome"] != "running"
        });
        assert!(ended, "still running: {record}");
        record
    }

    /// A bare connection, for what no HTTP library would send.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connect to the server");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("set a read timeout");
        stream
    }

    /// Opens a connection and sends a request's head and the start of its body, announcing `length` bytes in all.
    pub fn begin(&self, path: &str, length: u64, body: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
            self.token
        );
        stream.write_all(head.as_bytes()).expect("send the head");
        stream.write_all(body).expect("send the body's start");
        stream
    }
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the body {:?}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// One header, empty if absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }

    /// `data` of a success of exactly this status.
    #[track_caller]
    pub fn data(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "unexpected answer: {}", self.text());
        let json = self.json();
        assert!(json.get("data").is_some(), "no data in {json}");
        json["data"].clone()
    }
}

/// What must never be in an error's text: names of the implementation and of the host.
const LEAKS: &[&str] = &[
    "serde",
    "axum",
    "hyper",
    "tokio",
    "rusqlite",
    "panicked",
    "src/",
    ".rs:",
    "struct ",
    "/tmp/cellblock",
];

/// Checks everything that holds for any error of the server, and that it is this one.
#[track_caller]
pub fn assert_error(reply: &Reply, status: u16, code: &str) {
    let text = reply.text();
    assert_eq!(reply.status, status, "unexpected answer: {text}");
    assert!(
        reply.header("content-type").starts_with("application/json"),
        "not JSON: {text}"
    );
    let json = reply.json();
    assert_eq!(json["error"]["code"], code, "wrong code in {text}");
    assert!(
        json["error"]["message"]
            .as_str()
            .is_some_and(|m| !m.is_empty()),
        "no message: {text}"
    );
    let id = json["request_id"]
        .as_str()
        .unwrap_or_else(|| panic!("no request_id in {text}"));
    assert!(is_uuid_v7(id), "{id} is no UUIDv7");
    assert_eq!(
        reply.header("x-request-id"),
        id,
        "header and body name different requests"
    );
    for leak in LEAKS {
        assert!(!text.contains(leak), "the error leaks {leak:?}: {text}");
    }
    if matches!(status, 409 | 429 | 503) {
        let reason = &json["error"]["details"]["reason"];
        assert!(reason.is_string(), "no reason: {text}");
    }
    if matches!(status, 429 | 503) {
        let retry: Result<u64, _> = reply.header("retry-after").parse();
        assert!(
            retry.is_ok(),
            "{status} without Retry-After in seconds: {text}"
        );
    }
}

/// Checks that a 422 is one and names the field, in its details or in its message.
#[track_caller]
pub fn assert_invalid(reply: &Reply, field: &str) {
    assert_error(reply, 422, "invalid_argument");
    let error = &reply.json()["error"];
    let named = error["details"]["field"].as_str().unwrap_or_default();
    let message = error["message"].as_str().unwrap_or_default();
    assert!(
        named.contains(field) || message.contains(field),
        "{field} is not named in {error}"
    );
}

/// RFC 9562: 8-4-4-4-12 lower-case hexadecimal digits, version 7, variant 10.
pub fn is_uuid_v7(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let hex = text
        .bytes()
        .all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    lengths == [8, 4, 4, 4, 12]
        && hex
        && text.as_bytes()[14] == b'7'
        && b"89ab".contains(&text.as_bytes()[19])
}

/// Checks that a 422 is one, where there is no field to name.
#[track_caller]
pub fn assert_invalid_any(reply: &Reply) {
    assert_error(reply, 422, "invalid_argument");
}
