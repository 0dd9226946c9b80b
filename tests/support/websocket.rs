//! A WebSocket client as a test uses it: frames as JSON, output put together, every wait bounded.

use super::client::Api;
use super::probe::{base64, unbase64};
use super::timing::bound;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, Message, WebSocket};

/// No frame is waited for longer than this, on hardware.
const PATIENCE_MS: u64 = 30_000;

/// One stream, from the client's side.
pub struct Ws {
    /// For what this wrapper does not offer.
    pub socket: WebSocket<TcpStream>,
    /// All that the server said so far.
    pub said: Said,
}

/// What the server said.
#[derive(Debug, Default)]
pub struct Said {
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// All of stderr.
    pub stderr: Vec<u8>,
    /// The frame that is neither output nor a heartbeat: `exit` or `error`. Null before.
    pub last: Value,
    /// How many frames came after it, which must be none.
    pub after_last: usize,
    /// Close code; none before the close, and where the connection just ended.
    pub close: Option<u16>,
    /// The most bytes of output in one frame.
    pub largest: usize,
    /// The id of the exec, where the server told it ahead of the end.
    pub started: Option<String>,
    /// How many heartbeats.
    pub heartbeats: usize,
}

impl Ws {
    /// Does the handshake, which must succeed.
    #[track_caller]
    pub fn open(api: &Api, path: &str) -> Ws {
        let uri = format!("ws://127.0.0.1:{}{path}", api.port);
        let mut request = uri.into_client_request().expect("a request");
        let token = format!("Bearer {}", api.token);
        let headers = request.headers_mut();
        headers.insert("Authorization", token.parse().expect("a header"));
        let stream = api.connect();
        stream
            .set_read_timeout(Some(bound(PATIENCE_MS)))
            .expect("set a read timeout");
        let (socket, _) = tungstenite::client(request, stream)
            .unwrap_or_else(|error| panic!("the handshake failed: {error}"));
        let said = Said::default();
        Ws { socket, said }
    }

    /// Sends a frame. The server may have gone meanwhile: what it said last tells.
    pub fn send(&mut self, frame: &Value) {
        let _ = self.socket.send(Message::text(frame.to_string()));
    }

    /// Sends a start frame with these fields.
    pub fn start(&mut self, mut fields: Value) {
        fields["type"] = "start".into();
        self.send(&fields);
    }

    /// Sends input.
    pub fn stdin(&mut self, bytes: &[u8]) {
        self.send(&json!({"type": "stdin", "data_base64": base64(bytes)}));
    }

    /// Sends a signal by name.
    pub fn signal(&mut self, name: &str) {
        self.send(&json!({"type": "signal", "signal": name}));
    }

    /// Says that there is no more input.
    pub fn close_stdin(&mut self) {
        self.send(&json!({"type": "close_stdin"}));
    }

    /// Takes the next message in; false at the end of the connection. Panics when nothing comes for too long.
    pub fn step(&mut self) -> bool {
        let message = match self.socket.read() {
            Ok(message) => message,
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the server is silent; it said {:?}", self.said)
            }
            Err(_) => return false,
        };
        let said = &mut self.said;
        let text = match message {
            Message::Text(text) => text,
            Message::Close(frame) => {
                // 1005 stands for a close without a code (RFC 6455, section 7.4.1).
                said.close = Some(frame.map_or(1005, |frame| frame.code.into()));
                return true;
            }
            Message::Ping(_) | Message::Pong(_) => return true,
            other => panic!("the server sent {other:?}"),
        };
        let frame: Value = serde_json::from_str(&text).expect("a frame is JSON");
        said.after_last += usize::from(!said.last.is_null());
        let bytes = || unbase64(frame["data_base64"].as_str().expect("bytes in base64"));
        match frame["type"].as_str() {
            Some("stdout") => {
                let bytes = bytes();
                said.largest = said.largest.max(bytes.len());
                said.stdout.extend(bytes);
            }
            Some("stderr") => {
                let bytes = bytes();
                said.largest = said.largest.max(bytes.len());
                said.stderr.extend(bytes);
            }
            Some("started") => {
                assert!(said.stdout.is_empty() && said.started.is_none(), "{frame}");
                said.started = frame["exec_id"].as_str().map(str::to_owned);
            }
            Some("heartbeat") => said.heartbeats += 1,
            Some("exit" | "error") => said.last = frame,
            _ => panic!("no frame of the contract: {frame}"),
        }
        true
    }

    /// Reads to the end of the connection, which must come in the protocol's way and after one last frame.
    #[track_caller]
    pub fn end(mut self) -> Said {
        // Heartbeats come for ever.
        let until = Instant::now() + bound(4 * PATIENCE_MS);
        while self.step() {
            assert!(Instant::now() < until, "no end: {:?}", self.said);
        }
        assert!(!self.said.last.is_null(), "no last frame: {:?}", self.said);
        assert_eq!(self.said.after_last, 0, "{:?}", self.said);
        assert!(self.said.close.is_some(), "no close: {:?}", self.said);
        self.said
    }

    /// Reads until stdout holds this text; what it held up to there is taken away.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let until = Instant::now() + bound(PATIENCE_MS);
        loop {
            let stdout = &self.said.stdout;
            let at = stdout
                .windows(text.len())
                .position(|window| window == text.as_bytes());
            if let Some(at) = at {
                let rest = self.said.stdout.split_off(at + text.len());
                let seen = std::mem::replace(&mut self.said.stdout, rest);
                return String::from_utf8_lossy(&seen).into_owned();
            }
            assert!(
                Instant::now() < until && self.step(),
                "{text:?} did not come: {:?}",
                self.said
            );
        }
    }

    /// Bytes as they are, below the protocol.
    pub fn raw(&mut self, bytes: &[u8]) {
        let _ = self.socket.get_mut().write_all(bytes);
    }

    /// Reads what comes below the protocol until the connection ends.
    pub fn raw_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.socket.get_mut().read_to_end(&mut bytes);
        bytes
    }

    /// Ends the connection without a word.
    pub fn vanish(self) {
        drop(self);
    }
}

impl Said {
    /// The code of the exit frame, which must be one.
    #[track_caller]
    pub fn code(&self) -> i64 {
        assert_eq!(self.last["type"], "exit", "{self:?}");
        assert_eq!(self.last["code"], self.last["exit_code"], "{self:?}");
        assert_eq!(self.close, Some(1000), "{self:?}");
        self.last["code"].as_i64().expect("a number")
    }

    /// How it ended.
    #[track_caller]
    pub fn outcome(&self) -> &str {
        self.last["outcome"].as_str().expect("an outcome")
    }

    /// The message of the error frame, which must be one.
    #[track_caller]
    pub fn error(&self) -> &str {
        assert_eq!(self.last["type"], "error", "{self:?}");
        self.last["message"].as_str().expect("a message")
    }

    /// stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}
