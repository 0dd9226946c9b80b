//! A client that costs next to nothing itself: one connection, one request at a time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// One connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
    head: String,
}

impl Connection {
    /// Connects; `head` is the lines of every request behind the first one, each ended.
    pub fn open(address: SocketAddr, token: &str) -> Connection {
        let stream = TcpStream::connect(address).expect("connect");
        stream.set_nodelay(true).expect("no delay");
        let authorization = match token {
            "" => String::new(),
            token => format!("authorization: Bearer {token}\r\n"),
        };
        Connection {
            stream: BufReader::new(stream),
            head: format!("host: localhost\r\n{authorization}content-type: application/json\r\n"),
        }
    }

    /// Sends a request and reads its answer: status and body.
    pub fn send(&mut self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{}content-length: {}\r\n\r\n{body}",
            self.head,
            body.len()
        );
        self.stream
            .get_mut()
            .write_all(request.as_bytes())
            .expect("send");
        let first = self.line();
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {first:?}"));
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line().to_ascii_lowercase();
            match line.split_once(": ") {
                None => break,
                Some(("content-length", value)) => length = value.parse().expect("a length"),
                Some(("transfer-encoding", value)) => chunked = value == "chunked",
                Some(_) => {}
            }
        }
        let mut body = Vec::new();
        if chunked {
            loop {
                let length = usize::from_str_radix(&self.line(), 16).expect("a chunk's length");
                self.bytes(length, &mut body);
                self.line();
                if length == 0 {
                    return (status, body);
                }
            }
        }
        self.bytes(length, &mut body);
        (status, body)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let count = self.stream.read_line(&mut line).expect("an answer");
        assert!(count > 0, "the connection ended");
        line.trim_end().to_owned()
    }

    fn bytes(&mut self, length: usize, into: &mut Vec<u8>) {
        let start = into.len();
        into.resize(start + length, 0);
        self.stream.read_exact(&mut into[start..]).expect("a body");
    }
}
