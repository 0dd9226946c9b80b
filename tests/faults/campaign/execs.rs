//! Clients that run commands: plain ones, ones with a key, detached ones, and one that reads what is remembered of them.

use super::calls::{Answer, Client};
use super::ledger::{Fate, Keyed};
use crate::support::{bound, eventually};
use serde_json::{Value, json};

/// The runtime with a disk that all commands share.
pub const SHARED: &str = "shared";
/// The one without.
pub const FLEETING: &str = "fleeting";

fn line(line: &str) -> Value {
    json!({"command": "sh", "args": ["-c", line]})
}

/// Where commands of a runtime go.
pub fn path(runtime: &str) -> String {
    format!("/v1/runtimes/{runtime}/exec")
}

/// Holds a result against what the command does when it is let; true when it was let.
pub fn plausible(client: &Client<'_>, data: &Value, code: i64) -> bool {
    let (outcome, exit) = (data["outcome"].as_str(), data["exit_code"].as_i64());
    match (outcome, exit) {
        (Some("exited"), Some(exit)) if exit == code => true,
        (Some("signaled"), Some(137)) => false,
        _ => {
            client
                .ledger
                .wrong(format!("not what the command does ({code}): {data}"));
            false
        }
    }
}

/// Short commands of any result and output.
pub fn plain(mut client: Client<'_>) {
    while client.goes_on() {
        let (word, code) = (
            client.random.below(1 << 40),
            client.random.below(100) as i64,
        );
        let secs = client.random.below(60) as f64 / 100.0;
        let large = client.random.one_in(4);
        let flood = if large {
            "head -c 40000 /dev/zero | tr '\\0' x;"
        } else {
            ""
        };
        let body = line(&format!("echo {word}; {flood} sleep {secs}; exit {code}"));
        let runtime = if client.random.one_in(2) {
            SHARED
        } else {
            FLEETING
        };
        let Some(answer) = client.ask("POST", &path(runtime), Some(&body)) else {
            continue;
        };
        if let Some(data) = answer.data() {
            client.ledger.exec(&data, false);
            let flood = if large {
                "x".repeat(40_000)
            } else {
                String::new()
            };
            let whole = format!("{word}\n{flood}");
            if plausible(&client, &data, code) && data["stdout"] != whole {
                client
                    .ledger
                    .wrong(format!("another output than {word}: {data}"));
            }
        } else {
            named(&client, &answer, false);
        }
    }
}

/// An error that names an exec promises a record of it.
fn named(client: &Client<'_>, answer: &Answer, durable: bool) {
    let Some(error) = &answer.error else { return };
    if error["details"]["exec_id"].is_string() {
        let data = json!({"exec_id": error["details"]["exec_id"]});
        client.ledger.exec(&data, durable);
    }
}

/// Commands that leave one line each in a file when they run, under keys, sent until something settles them.
pub fn once(mut client: Client<'_>) {
    let mut number = 0;
    while client.goes_on() {
        number += 1;
        let key = format!("key-{}-{number}", client.number);
        let secs = client.random.below(60) as f64 / 100.0;
        let body = line(&format!(
            "echo {key} >> /root/ran; sleep {secs}; echo {key}"
        ));
        let keyed = Keyed {
            body,
            fate: Fate::Open,
        };
        client
            .ledger
            .pages()
            .keys
            .insert(key.clone(), keyed.clone());
        if client.random.one_in(4) {
            // Two at once are one run.
            std::thread::scope(|scope| {
                let other = client.clone();
                let (key, body) = (&key, &keyed.body);
                scope.spawn(move || settle(&other, key, body));
                settle(&client, key, body);
            });
        } else {
            settle(&client, &key, &keyed.body);
        }
    }
}

/// Sends a keyed request until its fate is known, which is noted and may not differ from what was known.
pub fn settle(client: &Client<'_>, key: &str, body: &Value) {
    let text = body.to_string();
    let headers = [
        ("Content-Type", "application/json"),
        ("Idempotency-Key", key),
    ];
    let settled = eventually(bound(120_000), || {
        let answer = client.send("POST", &path(SHARED), &headers, Some(text.as_bytes()));
        let Some(answer) = answer else { return false };
        let fate = match (answer.data(), answer.code()) {
            (Some(data), _) => {
                client.ledger.exec(&data, true);
                let whole = plausible(client, &data, 0);
                if whole && data["stdout"] != format!("{key}\n") {
                    client
                        .ledger
                        .wrong(format!("another output than {key}: {data}"));
                }
                // A slow reply begins with white space.
                Fate::Answered(answer.reply.text().trim_start().to_owned())
            }
            (None, "failed_precondition") => {
                named(client, &answer, true);
                let error = answer.error.as_ref();
                let details = error.map(|error| &error["details"]);
                let id = details.and_then(|details| details["exec_id"].as_str());
                Fate::Unknown(id.unwrap_or_default().to_owned())
            }
            (None, "unavailable" | "rate_limited" | "deadline_exceeded") => {
                named(client, &answer, false);
                return false;
            }
            _ => {
                client
                    .ledger
                    .wrong(format!("{key}: {}", answer.reply.text()));
                return true;
            }
        };
        note(client, key, fate);
        true
    });
    if !settled {
        client.ledger.wrong(format!("{key} is never settled"));
    }
}

fn note(client: &Client<'_>, key: &str, fate: Fate) {
    let mut pages = client.ledger.pages();
    let keyed = pages
        .keys
        .get_mut(key)
        .expect("it is noted before it is sent");
    let differ = match (&keyed.fate, &fate) {
        (Fate::Open, _) => false,
        (Fate::Answered(before), Fate::Answered(now)) => before != now,
        (Fate::Unknown(before), Fate::Unknown(now)) => before != now,
        _ => true,
    };
    let before = std::mem::replace(&mut keyed.fate, fate.clone());
    drop(pages);
    if differ {
        client
            .ledger
            .wrong(format!("{key} was {before:?} and is {fate:?}"));
    }
}

/// Detached commands with output in files; each is followed to its end.
pub fn detached(mut client: Client<'_>) {
    let whole: String = (1..=3000).map(|number| format!("{number}\n")).collect();
    while client.goes_on() {
        let secs = client.random.below(100) as f64 / 100.0;
        let mut body = line(&format!("seq 1 3000; sleep {secs}; exit 7"));
        body["detach"] = true.into();
        let Some(answer) = client.ask("POST", &path(SHARED), Some(&body)) else {
            continue;
        };
        let Some(data) = answer.data() else {
            named(&client, &answer, false);
            continue;
        };
        client.ledger.exec(&data, true);
        let record = format!("/v1/execs/{}", data["exec_id"].as_str().unwrap_or_default());
        let mut end = json!(null);
        let ended = eventually(bound(60_000), || {
            let answer = client.ask("GET", &record, None);
            end = answer.and_then(|answer| answer.data()).unwrap_or_default();
            end["outcome"].is_string() && end["outcome"] != "running"
        });
        if !ended {
            client.ledger.wrong(format!("{record} does not end: {end}"));
            continue;
        }
        client.ledger.exec(&end, true);
        if end["outcome"] == "exited" {
            let output = client.insist("GET", &format!("{record}/output"), None);
            let output = output.map(|answer| answer.reply.text());
            if end["exit_code"] != 7 || output.as_ref().is_some_and(|output| *output != whole) {
                let length = output.map(|output| output.len());
                client
                    .ledger
                    .wrong(format!("{length:?} bytes of output: {end}"));
            }
        }
    }
}

/// Reads lists, page by page and whole, while everything changes.
pub fn lists(mut client: Client<'_>) {
    while client.goes_on() {
        std::thread::sleep(client.random.millis(200));
        let plain = [
            "/v1/runtimes",
            "/v1/checkpoints",
            "/v1/images",
            "/metrics",
            "/readyz",
        ];
        if client.random.one_in(2) {
            let path = client.random.pick(&plain).expect("some");
            client.ask("GET", path, None);
            continue;
        }
        let (mut path, mut last) = ("/v1/execs?limit=20".to_owned(), String::new());
        for _ in 0..5 {
            let Some(answer) = client.ask("GET", &path, None) else {
                break;
            };
            let Ok(page) = serde_json::from_slice::<Value>(&answer.reply.body) else {
                break;
            };
            for record in page["data"].as_array().into_iter().flatten() {
                let id = record["exec_id"].as_str().unwrap_or_default().to_owned();
                if !last.is_empty() && id >= last {
                    client
                        .ledger
                        .wrong(format!("{id} comes after {last} in a list"));
                }
                last = id;
            }
            let Some(cursor) = page["pagination"]["next_cursor"].as_str() else {
                break;
            };
            path = format!("/v1/execs?limit=20&after={cursor}");
        }
    }
}
