//! Clients that make, change and delete: files, runtimes, checkpoints.

use super::calls::{Answer, Client};
use super::execs::{SHARED, path};
use super::ledger::Being;
use crate::support::files::pattern;
use crate::support::{bound, eventually};
use serde_json::{Value, json};
use std::collections::HashMap;

/// What a file may hold now, by the numbers of what was written into it; none is no file.
pub type Contents = HashMap<String, Vec<Option<u64>>>;

/// The bytes of one write.
pub fn bytes(number: u64) -> Vec<u8> {
    let length = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44) as usize;
    let mut bytes = format!("{number} ").into_bytes();
    bytes.extend(pattern(length));
    bytes
}

/// The request target of a file.
pub fn file_uri(name: &str) -> String {
    format!("/v1/runtimes/{SHARED}/files?path={name}")
}

/// Writes and reads files of up to a MiB, and gives what they may hold in the end.
pub fn files(mut client: Client<'_>) -> Contents {
    let mut contents = Contents::new();
    let mut number = client.number << 32;
    while client.goes_on() {
        let name = format!("file-{}-{}", client.number, client.random.below(4));
        let may = contents.entry(name.clone()).or_insert_with(|| vec![None]);
        if client.random.one_in(2) {
            number += 1;
            let answer = client.send("PUT", &file_uri(&name), &[], Some(&bytes(number)));
            match answer.map(|answer| answer.reply.status) {
                Some(204) => *may = vec![Some(number)],
                // Nothing or the whole, and nobody said which.
                None | Some(503 | 504) => may.push(Some(number)),
                Some(429) => {}
                Some(other) => client.ledger.wrong(format!("PUT {name}: {other}")),
            }
        } else if let Some(answer) = client.send("GET", &file_uri(&name), &[], None) {
            look(&client, &name, may, &answer);
        }
    }
    contents
}

/// Holds a file that was read against what it may hold, which it settles.
pub fn look(client: &Client<'_>, name: &str, may: &mut Vec<Option<u64>>, answer: &Answer) {
    let found = match answer.reply.status {
        200 => may
            .iter()
            .flatten()
            .copied()
            .find(|number| bytes(*number) == answer.reply.body)
            .map(Some),
        404 => may.contains(&None).then_some(None),
        _ => return,
    };
    match found {
        Some(found) => *may = vec![found],
        None => {
            let (status, length) = (answer.reply.status, answer.reply.body.len());
            let start = String::from_utf8_lossy(&answer.reply.body[..length.min(40)]).into_owned();
            client.ledger.wrong(format!(
                "{name} is {status}, {length} bytes {start:?}, not one of {may:?}"
            ));
        }
    }
}

/// Makes runtimes of every kind, uses them, deletes most of them.
pub fn runtimes(mut client: Client<'_>) {
    let mut number = 0;
    while client.goes_on() {
        number += 1;
        let name = format!("made-{}-{number}", client.number);
        let kinds = ["persistent", "ephemeral", "read_only"];
        let kind = client.random.pick(&kinds).expect("some");
        let body = json!({"name": name, "filesystem": kind, "limits": {"disk_mib": 16}});
        client.ledger.runtime(&name, Being::Open);
        let answer = client.ask("POST", "/v1/runtimes", Some(&body));
        match answer.as_ref().map(|answer| answer.reply.status) {
            Some(200) => client.ledger.runtime(&name, Being::There),
            // Refused, or lost on the way.
            None | Some(429 | 503 | 504) => {}
            Some(_) => client.ledger.wrong(format!("creating {name}: {answer:?}")),
        }
        if there(&client, &name) {
            use_it(&client, &name);
            if !client.random.one_in(8) {
                delete(&client, &name);
            }
        }
    }
}

/// Whether a runtime is there, as it must be where that was told.
fn there(client: &Client<'_>, name: &str) -> bool {
    let answer = client.insist("GET", &format!("/v1/runtimes/{name}"), None);
    let status = answer.as_ref().map(|answer| answer.reply.status);
    let told = client.ledger.pages().runtimes.get(name).copied();
    match (status, told) {
        (Some(200), Some(Being::Gone)) | (Some(404), Some(Being::There)) => {
            client
                .ledger
                .wrong(format!("{name} was {told:?} and is {status:?}"));
        }
        (Some(404), _) => client.ledger.runtime(name, Being::Gone),
        _ => {}
    }
    status == Some(200)
}

/// A runtime that is listed can run commands, sooner or later; nobody deletes it meanwhile.
pub fn use_it(client: &Client<'_>, name: &str) {
    let body = json!({"command": "echo", "args": ["works"]});
    let mut last = None;
    let works = eventually(bound(90_000), || {
        let Some(answer) = client.ask("POST", &path(name), Some(&body)) else {
            return false;
        };
        let data = answer.data().unwrap_or_default();
        if data["exec_id"].is_string() {
            client.ledger.exec(&data, false);
        }
        let works = data["stdout"] == "works\n";
        last = Some(answer.reply.text());
        works
    });
    if !works {
        client
            .ledger
            .wrong(format!("{name} is listed and runs nothing: {last:?}"));
    }
}

/// Deletes a runtime, and asks again where no answer came.
pub fn delete(client: &Client<'_>, name: &str) {
    client.ledger.runtime(name, Being::Open);
    let answer = client.insist("DELETE", &format!("/v1/runtimes/{name}"), None);
    match answer.map(|answer| (answer.reply.status, answer.reply.text())) {
        Some((200 | 404, _)) => {
            client.ledger.runtime(name, Being::Gone);
            there(client, name);
        }
        other => client.ledger.wrong(format!("deleting {name}: {other:?}")),
    }
}

/// The runtime that checkpoints are made of.
pub const SOURCE: &str = "source";

/// Makes checkpoints, restores and deletes them.
pub fn checkpoints(mut client: Client<'_>) {
    let source = format!("/v1/runtimes/{SOURCE}/checkpoints");
    let mut number = 0;
    while client.goes_on() {
        number += 1;
        std::thread::sleep(client.random.millis(300));
        let Some(answer) = client.ask("POST", &source, Some(&json!({}))) else {
            continue;
        };
        let Some(made) = answer.data() else { continue };
        let id = made["id"].as_str().unwrap_or_default().to_owned();
        client.ledger.checkpoint(&id, Being::There);
        if client.random.one_in(3) {
            let name = format!("restored-{}-{number}", client.number);
            restore(&client, &id, &name);
        }
        if !client.random.one_in(8) {
            let path = format!("/v1/checkpoints/{id}");
            client.ledger.checkpoint(&id, Being::Open);
            let answer = client.insist("DELETE", &path, None);
            match answer.map(|answer| answer.reply.status) {
                Some(200 | 404) => client.ledger.checkpoint(&id, Being::Gone),
                other => client
                    .ledger
                    .wrong(format!("deleting checkpoint {id}: {other:?}")),
            }
        }
    }
}

/// Makes a runtime of a checkpoint, which has the checkpoint's files, and deletes it.
pub fn restore(client: &Client<'_>, id: &str, name: &str) {
    client.ledger.runtime(name, Being::Open);
    let body = json!({"name": name, "checkpoint_id": id});
    let answer = client.ask("POST", "/v1/runtimes", Some(&body));
    // One that the end of the server interrupted has failed.
    let made = answer.is_some_and(|answer| answer.reply.status == 200);
    if made {
        client.ledger.runtime(name, Being::There);
    }
    if !there(client, name) {
        return;
    }
    let body = json!({"command": "cat", "args": ["/root/kept"]});
    let mut last = Value::Null;
    let whole = eventually(bound(90_000), || {
        let answer = client.ask("POST", &path(name), Some(&body));
        last = answer.and_then(|answer| answer.data()).unwrap_or_default();
        last["outcome"] == "exited"
    });
    if !whole || last["stdout"] != "kept\n" {
        client
            .ledger
            .wrong(format!("{name} lacks its files: {last}"));
    }
    delete(client, name);
}

/// The runtime that is paused, resumed, stopped and started.
pub const CHANGING: &str = "changing";

/// Takes a runtime through its states.
pub fn life(mut client: Client<'_>) {
    let steps = [
        ("pause", "paused"),
        ("resume", "running"),
        ("stop", "shutdown"),
        ("start", "running"),
    ];
    while client.goes_on() {
        for (step, status) in steps {
            let answer = client.insist("POST", &format!("/v1/runtimes/{CHANGING}/{step}"), None);
            let Some(answer) = answer else { return };
            if answer.data().is_none_or(|data| data["status"] != status) {
                client
                    .ledger
                    .wrong(format!("{step}: {}", answer.reply.text()));
            }
            if client.random.one_in(2) && status == "running" {
                let body = json!({"command": "sleep", "args": ["0.2"]});
                client.ask("POST", &path(CHANGING), Some(&body));
            }
        }
    }
}
