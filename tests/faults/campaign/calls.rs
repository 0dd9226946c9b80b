//! One request of a client under fire: it ends in time, and what comes is an answer of the contract or nothing at all.

use super::ledger::Ledger;
use super::random::Random;
use crate::support::client::is_uuid_v7;
use crate::support::{Api, Reply, bound};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Every code of the contract.
const CODES: [&str; 11] = [
    "unauthenticated",
    "permission_denied",
    "not_found",
    "already_exists",
    "failed_precondition",
    "invalid_argument",
    "rate_limited",
    "internal",
    "unimplemented",
    "unavailable",
    "deadline_exceeded",
];

/// What a client has in its hands.
#[derive(Clone)]
pub struct Client<'a> {
    /// Which kind, for the totals.
    pub who: &'static str,
    /// Its number, for names of its own.
    pub number: u64,
    /// The server.
    pub api: Api,
    /// Where it writes down what it was told.
    pub ledger: &'a Ledger,
    /// The load is to end.
    pub over: &'a AtomicBool,
    /// Its choices.
    pub random: Random,
}

/// An answer: its status, and the code and details of its error.
#[derive(Debug)]
pub struct Answer {
    /// As it came.
    pub reply: Reply,
    /// The error's object, where it is one. A late error has the status 200.
    pub error: Option<Value>,
}

impl Answer {
    /// `data` of a success.
    pub fn data(&self) -> Option<Value> {
        let json: Value = serde_json::from_slice(&self.reply.body).ok()?;
        json.get("data").cloned()
    }

    /// The error's code, empty where there is none.
    pub fn code(&self) -> &str {
        let code = self.error.as_ref().and_then(|error| error["code"].as_str());
        code.unwrap_or_default()
    }

    /// The reason in the error's details, empty where there is none.
    pub fn reason(&self) -> &str {
        let error = self.error.as_ref();
        let reason = error.and_then(|error| error["details"]["reason"].as_str());
        reason.unwrap_or_default()
    }
}

impl Client<'_> {
    /// Whether the load goes on.
    pub fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// A JSON request.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Answer> {
        let text = body.map(Value::to_string);
        let headers = [("Content-Type", "application/json")];
        self.send(method, path, &headers, text.as_deref().map(str::as_bytes))
    }

    /// Any request. None when the connection broke before the answer was complete: a process of the server was killed.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Option<Answer> {
        let began = Instant::now();
        let result = self.api.try_send(method, path, headers, body);
        let took = began.elapsed();
        // The server's own longest wait is that for a turn, twenty seconds.
        if took > bound(45_000) {
            self.ledger.wrong(format!("{method} {path} took {took:?}"));
        }
        let reply = match result {
            Ok(reply) => reply,
            Err(error) => {
                if matches!(error, ureq::Error::Timeout(_)) {
                    self.ledger.wrong(format!("{method} {path} hung: {error}"));
                }
                self.ledger.count(self.who, "connection ended");
                // Nobody listens for the moment.
                std::thread::sleep(Duration::from_millis(20));
                return None;
            }
        };
        let raw = method == "GET" && path.contains("/files?") || path.contains("/output");
        let answer = match judged(reply, raw) {
            Ok(answer) => answer,
            Err(why) => {
                self.ledger.wrong(format!("{method} {path}: {why}"));
                return None;
            }
        };
        let label = match &answer.error {
            None => answer.reply.status.to_string(),
            Some(_) => format!(
                "{} {} {}",
                answer.reply.status,
                answer.code(),
                answer.reason()
            ),
        };
        self.ledger.count(self.who, label.trim_end());
        if matches!(answer.reply.status, 429 | 503) {
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(answer)
    }

    /// Asks until something other than "not now" comes; the server may be starting. None when it never comes.
    pub fn insist(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Answer> {
        let until = Instant::now() + bound(120_000);
        while Instant::now() < until {
            match self.ask(method, path, body) {
                Some(answer) if !matches!(answer.reply.status, 429 | 503 | 504) => {
                    return Some(answer);
                }
                _ => {}
            }
        }
        self.ledger
            .wrong(format!("{method} {path} never gets an answer"));
        None
    }
}

/// Checks everything that holds for any answer.
fn judged(reply: Reply, raw: bool) -> Result<Answer, String> {
    let text = || String::from_utf8_lossy(&reply.body[..reply.body.len().min(2000)]).into_owned();
    if reply.status == 204 && reply.body.is_empty() || reply.status == 200 && raw {
        return Ok(Answer { reply, error: None });
    }
    let kind = reply.header("content-type");
    if reply.status == 200
        && (kind.starts_with("text/event-stream") || kind.contains("openmetrics"))
    {
        return Ok(Answer { reply, error: None });
    }
    let json: Value = serde_json::from_slice(&reply.body)
        .map_err(|error| format!("{}, not JSON ({error}): {}", reply.status, text()))?;
    if reply.status == 200 && json.get("data").is_some() {
        return Ok(Answer { reply, error: None });
    }
    let error = &json["error"];
    let known = CODES.iter().any(|code| error["code"] == **code);
    let said = error["message"]
        .as_str()
        .is_some_and(|said| !said.is_empty());
    let id = json["request_id"].as_str().unwrap_or_default();
    let named = is_uuid_v7(id) && reply.header("x-request-id") == id;
    let later = reply.header("retry-after").parse::<u64>().is_ok();
    let timed = later || !matches!(reply.status, 429 | 503);
    let reasoned =
        error["details"]["reason"].is_string() || !matches!(reply.status, 409 | 429 | 503);
    if !(known && said && named && timed && reasoned) {
        return Err(format!(
            "{}, no error of the contract: {}",
            reply.status,
            text()
        ));
    }
    // Whatever dies, it is no mistake of the service's own.
    if reply.status == 500 {
        return Err(format!("500: {}", text()));
    }
    let error = Some(error.clone());
    Ok(Answer { reply, error })
}
