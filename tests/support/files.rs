//! Files of a runtime, read and written through the API.

use super::client::{Api, Reply};
use super::runtime::Runtime;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// The request target for a path, every byte of it encoded that is not plainly harmless.
pub fn uri(runtime: &Runtime, path: impl AsRef<[u8]>) -> String {
    let mut query = String::new();
    for byte in path.as_ref() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                query.push(char::from(*byte));
            }
            other => query += &format!("%{other:02X}"),
        }
    }
    format!("/v1/runtimes/{}/files?path={query}", runtime.id)
}

/// GET.
pub fn read(api: &Api, runtime: &Runtime, path: impl AsRef<[u8]>) -> Reply {
    api.get(&uri(runtime, path))
}

/// PUT.
pub fn write(api: &Api, runtime: &Runtime, path: impl AsRef<[u8]>, bytes: &[u8]) -> Reply {
    api.send("PUT", &uri(runtime, path), &[], Some(bytes))
}

/// PUT that must succeed.
#[track_caller]
pub fn must_write(api: &Api, runtime: &Runtime, path: impl AsRef<[u8]>, bytes: &[u8]) {
    let reply = write(api, runtime, path, bytes);
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (204, ""),
        "not written"
    );
}

/// GET that must succeed.
#[track_caller]
pub fn must_read(api: &Api, runtime: &Runtime, path: impl AsRef<[u8]>) -> Vec<u8> {
    let reply = read(api, runtime, path);
    assert_eq!(reply.status, 200, "not read: {}", reply.text());
    reply.body
}

/// Sends a request's head over a connection of its own. `headers` are whole lines.
pub fn begin(api: &Api, method: &str, uri: &str, headers: &str) -> TcpStream {
    let mut stream = api.connect();
    let head = format!(
        "{method} {uri} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer {}\r\n{headers}\r\n",
        api.token
    );
    stream.write_all(head.as_bytes()).expect("send the head");
    stream
}

/// What came over such a connection, up to its end.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The header lines, as they came.
    pub head: String,
    /// As many bytes as came.
    pub body: Vec<u8>,
}

/// Reads an answer's head, and nothing of its body.
pub fn head(reader: &mut BufReader<TcpStream>) -> Answer {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let count = reader.read_line(&mut head).expect("read the head");
        assert!(count > 0, "the connection ended in the head: {head:?}");
    }
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        status: status.unwrap_or_else(|| panic!("no status in {head:?}")),
        head,
        body: Vec::new(),
    }
}

/// Reads an answer to the connection's end, however that comes.
pub fn answer(stream: TcpStream) -> Answer {
    let mut reader = BufReader::new(stream);
    let mut answer = head(&mut reader);
    // A reset instead of an end is for the caller to see by what is missing.
    let _ = reader.read_to_end(&mut answer.body);
    answer
}

/// Bytes in which every position can be told from its neighbours.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
