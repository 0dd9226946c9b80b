//! Clients that read a command's output as it comes, over a WebSocket and as server-sent events.

use super::calls::Client;
use super::execs::{SHARED, path, plausible};
use crate::support::bound;
use crate::support::probe::unbase64;
use serde_json::{Value, json};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, Message};

/// Commands with input and output over a WebSocket.
pub fn websockets(mut client: Client<'_>) {
    while client.goes_on() {
        let word = client.random.below(1 << 40);
        let secs = client.random.below(60) as f64 / 100.0;
        let line = format!("read line; echo $line; seq 1 2000; sleep {secs}; exit 5");
        let result = session(&client, &line, word);
        client.ledger.count(
            client.who,
            result.unwrap_or_else(|| "connection ended".into()),
        );
    }
}

/// One connection from its start to its end: what ended it, or nothing where it just ended.
fn session(client: &Client<'_>, line: &str, word: u64) -> Option<String> {
    let Ok(stream) = TcpStream::connect(("127.0.0.1", client.api.port)) else {
        std::thread::sleep(Duration::from_millis(20));
        return None;
    };
    stream
        .set_read_timeout(Some(bound(45_000)))
        .expect("a timeout");
    let uri = format!("ws://127.0.0.1:{}{}/stream", client.api.port, path(SHARED));
    let mut request = uri.into_client_request().expect("a request");
    let token = format!("Bearer {}", client.api.token)
        .parse()
        .expect("a header");
    request.headers_mut().insert("Authorization", token);
    let (mut socket, _) = match tungstenite::client(request, stream) {
        Ok(open) => open,
        Err(tungstenite::HandshakeError::Failure(Error::Http(answer))) => {
            std::thread::sleep(Duration::from_millis(20));
            return Some(format!("{} before the upgrade", answer.status().as_u16()));
        }
        Err(_) => return None,
    };
    let start = json!({"type": "start", "command": "sh", "args": ["-c", line]});
    socket.send(Message::text(start.to_string())).ok()?;
    let input = crate::support::probe::base64(format!("{word}\n").as_bytes());
    let input = json!({"type": "stdin", "data_base64": input});
    socket.send(Message::text(input.to_string())).ok()?;
    let (mut stdout, mut last) = (Vec::new(), Value::Null);
    let until = Instant::now() + bound(90_000);
    while Instant::now() < until {
        match socket.read() {
            Ok(Message::Text(text)) => {
                let Ok(frame) = serde_json::from_str::<Value>(&text) else {
                    client
                        .ledger
                        .wrong(format!("a frame that is no JSON: {text}"));
                    return None;
                };
                match frame["type"].as_str() {
                    Some("stdout") => {
                        stdout.extend(unbase64(frame["data_base64"].as_str().unwrap_or_default()));
                    }
                    Some("exit" | "error") => last = frame,
                    Some("stderr" | "heartbeat") => {}
                    _ => client.ledger.wrong(format!("a frame of no kind: {frame}")),
                }
            }
            Ok(_) => {}
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                client
                    .ledger
                    .wrong(format!("a stream is silent after {} bytes", stdout.len()));
                return None;
            }
            Err(_) => return ended(client, &last, &stdout, word),
        }
    }
    client.ledger.wrong("a stream never ends".into());
    None
}

fn ended(client: &Client<'_>, last: &Value, stdout: &[u8], word: u64) -> Option<String> {
    match last["type"].as_str()? {
        "exit" => {
            client.ledger.exec(last, false);
            let numbers: String = (1..=2000).map(|number| format!("{number}\n")).collect();
            let whole = format!("{word}\n{numbers}");
            if plausible(client, last, 5) && stdout != whole.as_bytes() {
                let length = stdout.len();
                client
                    .ledger
                    .wrong(format!("{length} bytes of a stream's output: {last}"));
            }
            Some("exit".into())
        }
        _ => {
            let (code, reason) = (&last["code"], &last["details"]["reason"]);
            if code == "internal" || !code.is_string() {
                client.ledger.wrong(format!("a stream's error: {last}"));
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            Some(format!("error {} {}", text(code), text(reason)))
        }
    }
}

/// Commands whose output comes as server-sent events.
pub fn events(mut client: Client<'_>) {
    while client.goes_on() {
        let word = client.random.below(1 << 40);
        let secs = client.random.below(60) as f64 / 100.0;
        let line = format!("echo {word}; sleep {secs}; exit 4");
        let body = json!({"command": "sh", "args": ["-c", line]}).to_string();
        let headers = [
            ("Content-Type", "application/json"),
            ("Accept", "text/event-stream"),
        ];
        let answer = client.send("POST", &path(SHARED), &headers, Some(body.as_bytes()));
        let Some(answer) = answer.filter(|answer| answer.error.is_none()) else {
            continue;
        };
        let text = answer.reply.text();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let frames: Vec<Value> = data
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        match frames.last().and_then(|frame| frame["type"].as_str()) {
            Some("exit") => {
                let last = frames.last().expect("one");
                client.ledger.exec(last, false);
                plausible(&client, last, 4);
                client.ledger.count(client.who, "exit");
            }
            Some("error") => client.ledger.count(client.who, "error"),
            _ => client
                .ledger
                .wrong(format!("events without an end: {text:?}")),
        }
    }
}
