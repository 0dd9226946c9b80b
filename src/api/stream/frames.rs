//! Frames as JSON: one object with a `type` per text message.

use super::super::error::ApiError;
use super::super::exec_body;
use super::super::exec_view::ExecView;
use super::super::fields::{Fields, parse_json};
use crate::exec::{Finished, Report, Stream, StreamRequest, terminal_size};
use crate::runtime::Invalid;
use crate::warden::protocol::{CommandSignal, TerminalSize};
use axum::http::StatusCode;
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

/// Most bytes of input in one frame.
pub const MAX_STDIN: usize = 256 * 1024;

const TYPES: [&str; 6] = [
    "start",
    "stdin",
    "close_stdin",
    "signal",
    "resize",
    "heartbeat",
];

const START: &[&str] = &[
    "type",
    "command",
    "args",
    "env",
    "cwd",
    "tty",
    "rows",
    "cols",
    "stdin",
    "timeout_secs",
    "limits",
    "detach",
];

/// What a client says after `start`.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientFrame {
    /// Input for the command.
    Stdin(Bytes),
    /// There is no more.
    CloseStdin,
    /// A signal for the command.
    Signal(CommandSignal),
    /// The terminal's new size.
    Resize(TerminalSize),
    /// Nothing: the client is still there.
    Heartbeat,
}

/// Reads the frame that must be `start`; the error says so where it is anything else.
pub fn parse_start(text: &str) -> Result<StreamRequest, ApiError> {
    let raw = parse_json(text.as_bytes()).map_err(|_| not_start())?;
    match kind(raw) {
        Ok(kind) if kind == "start" => start(raw),
        _ => Err(not_start()),
    }
}

/// Whatever else came first.
pub fn not_start() -> ApiError {
    ApiError::invalid(
        StatusCode::BAD_REQUEST,
        "first websocket frame must be start",
    )
}

/// Reads any later frame.
pub fn parse(text: &str) -> Result<ClientFrame, ApiError> {
    let raw = parse_json(text.as_bytes()).map_err(|problem| {
        let problem = problem.replacen("the body", "the frame", 1);
        ApiError::invalid(StatusCode::BAD_REQUEST, problem)
    })?;
    let frame = match kind(raw)?.as_str() {
        "stdin" => stdin(raw),
        "close_stdin" => Ok(ClientFrame::CloseStdin),
        "signal" => signal(raw),
        "resize" => resize(raw),
        "heartbeat" => Ok(ClientFrame::Heartbeat),
        "start" => Err(Invalid::new(
            "type",
            "must be `start` in the first frame only",
        )),
        _ => Err(Invalid::one_of("type", TYPES)),
    };
    frame.map_err(ApiError::from)
}

fn kind(raw: &RawValue) -> Result<String, Invalid> {
    let kind = Fields::of_frame(raw, &["type"])?.string("type")?;
    kind.ok_or_else(|| Invalid::one_of("type", TYPES))
}

fn start(raw: &RawValue) -> Result<StreamRequest, ApiError> {
    let fields = Fields::of_body(raw, START)?;
    fields.deny_unknown()?;
    Ok(StreamRequest {
        exec: exec_body::common(&fields)?,
        tty: fields.boolean("tty")?,
        rows: fields.whole("rows")?,
        cols: fields.whole("cols")?,
        stdin: fields.string("stdin")?,
    })
}

fn stdin(raw: &RawValue) -> Result<ClientFrame, Invalid> {
    let field = "data_base64";
    let encoded = Fields::of_frame(raw, &["data_base64"])?.string(field)?;
    let encoded = encoded.ok_or_else(|| Invalid::new(field, "is needed in a stdin frame"))?;
    let bytes = BASE64_STANDARD
        .decode(encoded)
        .map_err(|_| Invalid::new(field, "must be padded base64"))?;
    if bytes.len() > MAX_STDIN {
        let problem = format!(
            "holds {} bytes, but at most {MAX_STDIN} go into one frame",
            bytes.len()
        );
        return Err(Invalid::new(field, problem));
    }
    Ok(ClientFrame::Stdin(bytes.into()))
}

fn signal(raw: &RawValue) -> Result<ClientFrame, Invalid> {
    let name = Fields::of_frame(raw, &["signal"])?.string("signal")?;
    let name = name.unwrap_or_default().to_ascii_uppercase();
    let short = name.strip_prefix("SIG").unwrap_or(&name);
    CommandSignal::ALL
        .into_iter()
        .find(|signal| signal.name() == short)
        .map(ClientFrame::Signal)
        .ok_or_else(|| Invalid::one_of("signal", CommandSignal::ALL.map(CommandSignal::name)))
}

fn resize(raw: &RawValue) -> Result<ClientFrame, Invalid> {
    let fields = Fields::of_frame(raw, &["rows", "cols"])?;
    let needed = |name: &str| {
        let value = fields.whole(name)?;
        value.ok_or_else(|| Invalid::new(name, "is needed in a resize frame"))
    };
    terminal_size(Some(needed("rows")?), Some(needed("cols")?)).map(ClientFrame::Resize)
}

/// What the server says: its kind, and the JSON object of the frame. SSE sends the same two.
#[derive(Debug)]
pub struct Frame {
    /// `type`.
    pub kind: &'static str,
    /// The whole object, `type` included.
    pub json: String,
}

impl Frame {
    /// A piece of output.
    pub fn output(stream: Stream, bytes: &[u8]) -> Self {
        let kind = stream.as_str();
        let mut json = String::with_capacity(48 + bytes.len().div_ceil(3) * 4);
        json.push_str("{\"type\":\"");
        json.push_str(kind);
        json.push_str("\",\"data_base64\":\"");
        // Base64 has no character that JSON would want escaped.
        BASE64_STANDARD.encode_string(bytes, &mut json);
        json.push_str("\"}");
        Self { kind, json }
    }

    /// Still there.
    pub fn heartbeat() -> Self {
        let json = json!({ "type": "heartbeat" }).to_string();
        Self {
            kind: "heartbeat",
            json,
        }
    }

    /// The id of a command that will go on without its client.
    pub fn started(exec_id: Uuid) -> Self {
        let json = json!({ "type": "started", "exec_id": exec_id }).to_string();
        let kind = "started";
        Self { kind, json }
    }

    /// How it ended; `truncated` as in [`ExecView::new`].
    pub fn exit(finished: &Finished, truncated: [bool; 2]) -> Self {
        #[derive(Serialize)]
        struct Exit<'a> {
            r#type: &'static str,
            code: u8,
            #[serde(flatten)]
            view: ExecView<'a>,
        }
        let verdict = &finished.verdict;
        let report = Report::from(finished);
        let outcome = verdict.outcome.as_str();
        let exit = Exit {
            r#type: "exit",
            code: verdict.exit_code,
            view: ExecView::new(finished.exec_id, outcome, &report, truncated, None),
        };
        // Plain numbers and strings: this can't fail.
        let json = serde_json::to_string(&exit).unwrap_or_default();
        Self { kind: "exit", json }
    }

    /// What went wrong: a body's `error` object.
    pub fn error(error: &ApiError) -> Self {
        let mut view = error.view();
        view["type"] = Value::from("error");
        Self {
            kind: "error",
            json: view.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(text: &str) -> String {
        let error = parse(text).unwrap_err();
        error.view()["message"].as_str().unwrap().to_owned()
    }

    #[test]
    fn frames_mean_what_they_say() {
        let stdin = parse(r#"{"type":"stdin","data_base64":"AP8="}"#).unwrap();
        assert_eq!(stdin, ClientFrame::Stdin(vec![0, 255].into()));
        for name in ["term", "SIGTERM", "sigTerm", "TERM"] {
            let frame = parse(&format!(r#"{{"type":"signal","signal":"{name}"}}"#)).unwrap();
            assert_eq!(frame, ClientFrame::Signal(CommandSignal::Term));
        }
        let ClientFrame::Resize(size) = parse(r#"{"cols":2,"rows":1,"type":"resize"}"#).unwrap()
        else {
            panic!("no resize");
        };
        assert_eq!((size.rows.get(), size.cols.get()), (1, 2));
        assert_eq!(
            parse(r#"{"type":"heartbeat"}"#).unwrap(),
            ClientFrame::Heartbeat
        );
        assert_eq!(
            parse(r#" {"type":"close_stdin"} "#).unwrap(),
            ClientFrame::CloseStdin
        );
    }

    #[test]
    fn a_mistake_is_named() {
        assert!(message("").contains("frame is empty"));
        assert!(message("{").contains("frame is not valid JSON"));
        assert!(message("[]").contains("`frame`"));
        assert!(message(r#"{"type":"kill"}"#).contains("stdin"));
        assert!(message(r#"{"type":"stdin","type":"close_stdin"}"#).contains("`type`"));
        let full = BASE64_STANDARD.encode(vec![0; MAX_STDIN]);
        assert!(parse(&format!(r#"{{"type":"stdin","data_base64":"{full}"}}"#)).is_ok());
        let more = BASE64_STANDARD.encode(vec![0; MAX_STDIN + 1]);
        let text = format!(r#"{{"type":"stdin","data_base64":"{more}"}}"#);
        assert!(message(&text).contains("262145"));
    }

    #[test]
    fn only_start_begins() {
        let started = parse_start(r#"{"type":"start","command":"a","tty":true,"rows":5}"#).unwrap();
        assert_eq!(
            (started.exec.command.as_str(), started.tty, started.rows),
            ("a", Some(true), Some(5))
        );
        for text in ["", "x", "[]", "{}", r#"{"type":"stdin"}"#, r#"{"type":1}"#] {
            let error = parse_start(text).unwrap_err();
            assert_eq!(
                error.view()["message"],
                "first websocket frame must be start",
                "{text}"
            );
        }
        let error = parse_start(r#"{"type":"start","command":"a","row":1}"#).unwrap_err();
        assert!(error.view()["message"].as_str().unwrap().contains("`rows`"));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "\\PC{0,60}") {
            let _ = parse(&text);
            let _ = parse_start(&text);
        }

        #[test]
        fn output_frames_are_json(bytes: Vec<u8>) {
            let frame = Frame::output(Stream::Stderr, &bytes);
            let json: Value = serde_json::from_str(&frame.json).unwrap();
            prop_assert_eq!(&json["type"], "stderr");
            let back = BASE64_STANDARD.decode(json["data_base64"].as_str().unwrap()).unwrap();
            prop_assert_eq!(back, bytes);
        }
    }
}
