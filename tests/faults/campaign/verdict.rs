//! What must be true when nobody kills any more: what was promised is there, once, and nothing else is.

use super::calls::Client;
use super::execs::{SHARED, path, settle};
use super::ledger::{Being, Fate, Pages};
use super::things::{self, Contents};
use crate::support::{bound, eventually};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

/// Records of what no disk has to survive may be lost in the last moment before the api process is killed: they are
/// collected for a tenth of a second, and that many again may wait for a slow disk.
fn last_moment_ms() -> i64 {
    i64::try_from(bound(3_000).as_millis()).expect("a small number")
}

/// Kinds of kills that end the api process.
const ENDS_API: [&str; 2] = ["api", "supervisor"];

/// What was found beside mistakes, for the totals.
#[derive(Debug, Default)]
pub struct Found {
    /// Records by outcome.
    pub outcomes: std::collections::BTreeMap<String, u64>,
    /// Answered results whose records went with the last moment before a kill.
    pub lost_in_last_moment: u64,
    /// Keys by fate.
    pub keys: std::collections::BTreeMap<&'static str, u64>,
    /// Runtimes and checkpoints that were left, used and deleted.
    pub things: u64,
}

/// Looks at everything.
pub fn judge(client: &Client<'_>, contents: Vec<Contents>) -> Found {
    let mut found = Found::default();
    files(client, contents);
    keys(client, &mut found);
    records(client, &mut found);
    checkpoints(client, &mut found);
    runtimes(client, &mut found);
    found
}

fn files(client: &Client<'_>, contents: Vec<Contents>) {
    for (name, mut may) in contents.into_iter().flatten() {
        if let Some(answer) = client.insist("GET", &things::file_uri(&name), None) {
            things::look(client, &name, &mut may, &answer);
        }
    }
}

/// Every key answers as it did, and what it stands for ran as often as that says.
fn keys(client: &Client<'_>, found: &mut Found) {
    let keys = client.ledger.pages().keys.clone();
    for (key, keyed) in &keys {
        settle(client, key, &keyed.body);
    }
    let body = json!({"command": "cat", "args": ["/root/ran"], "max_output_bytes": 32 << 20});
    let answer = client.insist("POST", &path(SHARED), Some(&body));
    let data = answer.and_then(|answer| answer.data()).unwrap_or_default();
    let mut runs: HashMap<&str, u32> = HashMap::new();
    let text = data["stdout"].as_str().unwrap_or_default();
    for line in text.lines() {
        *runs.entry(line).or_default() += 1;
    }
    for (key, keyed) in &client.ledger.pages().keys.clone() {
        let ran = runs.remove(key.as_str()).unwrap_or_default();
        let (kind, right) = match &keyed.fate {
            Fate::Answered(text) if text.contains("\"exited\"") => ("answered", ran == 1),
            Fate::Answered(_) => ("answered, its command killed", ran <= 1),
            Fate::Unknown(_) => ("unknown", ran <= 1),
            Fate::Open => ("open", false),
        };
        *found.keys.entry(kind).or_default() += 1;
        if !right {
            client
                .ledger
                .wrong(format!("{key} ran {ran} times: {:?}", keyed.fate));
        }
    }
    if !runs.is_empty() {
        client
            .ledger
            .wrong(format!("what nobody asked for ran: {runs:?}"));
    }
}

fn records(client: &Client<'_>, found: &mut Found) {
    let mut all = Vec::new();
    let settled = eventually(bound(60_000), || {
        let answer = client.insist("GET", "/v1/execs", None);
        let data = answer.and_then(|answer| answer.data()).unwrap_or_default();
        all = data.as_array().cloned().unwrap_or_default();
        all.iter().all(|record| record["outcome"] != "running")
    });
    if !settled {
        let running = all.iter().find(|record| record["outcome"] == "running");
        client
            .ledger
            .wrong(format!("a record runs for ever: {running:?}"));
    }
    all.retain(|record| begun(record) >= client.ledger.opened);
    let pages = client.ledger.pages();
    let mut wrong = Vec::new();
    let mut ids = HashSet::new();
    for record in &all {
        let id = record["exec_id"].as_str().unwrap_or_default();
        let outcome = record["outcome"].as_str().unwrap_or_default();
        *found.outcomes.entry(outcome.to_owned()).or_default() += 1;
        if !ids.insert(id) {
            wrong.push(format!("{id} has two records"));
        }
        if outcome == "unknown" && !was_hit(&pages, begun(record)) {
            wrong.push(format!("nobody was killed while this ran: {record}"));
        }
    }
    let records: HashMap<&str, &Value> = all
        .iter()
        .filter_map(|record| Some((record["exec_id"].as_str()?, record)))
        .collect();
    for (id, promise) in &pages.execs {
        let record = records.get(id.as_str());
        let told = record.is_some_and(|record| {
            let outcome = promise.outcome.as_deref();
            outcome.is_none_or(|outcome| {
                record["outcome"] == outcome && record["exit_code"].as_i64() == promise.exit_code
            })
        });
        let lost = record.is_none_or(|record| record["outcome"] == "unknown");
        let ends_api = |(kind, at): &&(&str, i64)| {
            ENDS_API.contains(kind)
                && (promise.at - 1_000..promise.at + last_moment_ms()).contains(at)
        };
        if told {
        } else if lost && !promise.durable && pages.kills.iter().find(ends_api).is_some() {
            found.lost_in_last_moment += 1;
        } else {
            wrong.push(format!(
                "{id} was promised as {promise:?} and is {record:?}"
            ));
        }
    }
    drop(pages);
    wrong.into_iter().for_each(|what| client.ledger.wrong(what));
}

/// Whether anybody was killed soon after an exec's start: none takes long, but each may wait for a restart.
fn was_hit(pages: &Pages, began: i64) -> bool {
    let most = i64::try_from(bound(30_000).as_millis()).expect("a small number");
    let hit = |(_, at): &(&str, i64)| (began - 1_000..began + most).contains(at);
    pages.kills.iter().any(hit)
}

/// When an exec was begun, in milliseconds since 1970: the first 48 bits of its id (RFC 9562).
fn begun(record: &Value) -> i64 {
    let id = record["exec_id"].as_str().unwrap_or_default();
    let digits: String = id.chars().filter(|c| *c != '-').take(12).collect();
    i64::from_str_radix(&digits, 16).expect("a UUIDv7")
}

fn list(client: &Client<'_>, path: &str) -> Vec<Value> {
    let answer = client.insist("GET", path, None);
    let data = answer.and_then(|answer| answer.data()).unwrap_or_default();
    data.as_array().cloned().unwrap_or_default()
}

fn checkpoints(client: &Client<'_>, found: &mut Found) {
    let listed = list(client, "/v1/checkpoints");
    let state = |id: &str| {
        let it = listed.iter().find(|item| item["id"] == id);
        it.and_then(|item| item["state"].as_str())
            .map(str::to_owned)
    };
    for (id, being) in client.ledger.pages().checkpoints.clone() {
        let state = state(&id);
        let right = match being {
            Being::There => state.is_some(),
            Being::Gone => state.is_none(),
            Being::Open => true,
        };
        if !right {
            client
                .ledger
                .wrong(format!("checkpoint {id} is {state:?} and was {being:?}"));
        }
    }
    for (number, item) in listed.iter().enumerate() {
        let id = item["id"].as_str().unwrap_or_default();
        match item["state"].as_str() {
            Some("ready") => things::restore(client, id, &format!("last-{number}")),
            Some("failed") => {}
            _ => client
                .ledger
                .wrong(format!("neither ready nor failed: {item}")),
        }
        found.things += 1;
        let gone = client.insist("DELETE", &format!("/v1/checkpoints/{id}"), None);
        if gone
            .as_ref()
            .is_none_or(|answer| answer.reply.status != 200)
        {
            client
                .ledger
                .wrong(format!("checkpoint {id} can't be deleted: {gone:?}"));
        }
    }
}

/// Each runtime that is there works, or says that it is broken, and can be deleted.
fn runtimes(client: &Client<'_>, found: &mut Found) {
    let listed = list(client, "/v1/runtimes");
    let names: HashSet<&str> = listed
        .iter()
        .filter_map(|item| item["display_name"].as_str())
        .collect();
    for (name, being) in client.ledger.pages().runtimes.clone() {
        let is = names.contains(name.as_str());
        if (being == Being::There) != is && being != Being::Open {
            client
                .ledger
                .wrong(format!("runtime {name} was {being:?}; listed: {is}"));
        }
    }
    for item in &listed {
        let name = item["display_name"].as_str().unwrap_or_default();
        if name == "example" {
            continue;
        }
        match item["status"].as_str() {
            Some("running") => things::use_it(client, name),
            Some("paused" | "shutdown") if name == things::CHANGING => {}
            _ => client
                .ledger
                .wrong(format!("a runtime that is nothing: {item}")),
        }
        found.things += 1;
        things::delete(client, name);
    }
}
