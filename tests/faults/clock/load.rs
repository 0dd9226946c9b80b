//! Clients that keep a server busy, and what they were told, to be asked for again later.

use crate::support::{Api, Runtime, bound, eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// What was answered.
#[derive(Default)]
pub struct Told {
    /// Ids of execs and all that they wrote.
    pub execs: Mutex<Vec<(String, String)>>,
    /// Idempotency keys, and the whole body of their answers.
    pub keys: Mutex<Vec<(String, String)>>,
}

fn push(list: &Mutex<Vec<(String, String)>>, id: &str, text: &str) {
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
    list.push((id.to_owned(), text.to_owned()));
}

impl Told {
    fn ids(&self) -> BTreeSet<String> {
        let execs = self.execs.lock().unwrap_or_else(PoisonError::into_inner);
        execs.iter().map(|(id, _)| id.clone()).collect()
    }
}

/// What is run under a key: it leaves a trace each time, and never answers twice the same.
pub fn counted(key: &str) -> Value {
    json!({"command": "sh", "args": ["-c", format!("echo x >> /root/{key}; date +%N")]})
}

/// Commands, one after the other.
pub fn plain(runtime: &Runtime, who: usize, told: &Told, over: &AtomicBool) {
    for number in 0.. {
        let text = format!("{who}-{number}\n");
        let exec = runtime.sh(&format!("printf '{text}'"));
        exec.assert_stdout(&text);
        push(
            &told.execs,
            exec.data["exec_id"].as_str().expect("an id"),
            &text,
        );
        if over.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Detached ones, each waited for.
pub fn detached(api: &Api, runtime: &Runtime, told: &Told, over: &AtomicBool) {
    for number in 0.. {
        let id = runtime.detach(&format!("echo kept {number}"), json!({}));
        let record = api.ended(&id, bound(30_000));
        assert_eq!(record["outcome"], "exited", "{record}");
        push(&told.execs, &id, &format!("kept {number}\n"));
        if over.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Commands under keys, each sent again at once.
pub fn once(api: &Api, runtime: &Runtime, told: &Told, over: &AtomicBool) {
    for number in 0.. {
        let key = format!("key-{number}");
        let body = counted(&key);
        let first = api.post_once(&runtime.exec_path(), &key, &body);
        assert_eq!(first.data(200)["outcome"], "exited");
        let again = api.post_once(&runtime.exec_path(), &key, &body);
        assert_eq!((again.status, again.text()), (200, first.text()));
        push(&told.keys, &key, &first.text());
        if over.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Walks through all records again and again: what was told before a walk is found in it, and nothing twice.
pub fn pages(api: &Api, runtime: &Runtime, told: &Told, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let before = told.ids();
        let found = walk(api, &runtime.id, 100);
        let different: BTreeSet<String> = found.iter().cloned().collect();
        assert_eq!(different.len(), found.len(), "a record is listed twice");
        let lost: Vec<&String> = before.difference(&different).collect();
        assert!(lost.is_empty(), "not listed: {lost:?}");
    }
}

/// Ids of a runtime's records, by cursors.
pub fn walk(api: &Api, runtime: &str, limit: usize) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/execs?runtime={runtime}&limit={limit}&after={after}");
        let reply = api.get(&path);
        let data = reply.data(200);
        let rows = data.as_array().expect("a list");
        let id = |row: &Value| row["exec_id"].as_str().expect("an id").to_owned();
        found.extend(rows.iter().map(id));
        match reply.json()["pagination"]["next_cursor"].as_str() {
            Some(cursor) => after = cursor.to_owned(),
            None => return found,
        }
    }
}

/// A runtime that is stopped, started, written to, copied and made again.
pub fn life(api: &Api, over: &AtomicBool) {
    let disk = json!({"limits": {"disk_mib": 16}});
    let runtime = Runtime::create(api, &disk);
    let path = format!("/v1/runtimes/{}", runtime.id);
    while !over.load(Ordering::Relaxed) {
        let file = format!("{path}/files?path=/root/file");
        assert_eq!(api.send("PUT", &file, &[], Some(b"bytes")).status, 204);
        for (operation, status) in [
            ("pause", "paused"),
            ("resume", "running"),
            ("stop", "shutdown"),
            ("start", "running"),
        ] {
            let answer = api.send("POST", &format!("{path}/{operation}"), &[], None);
            assert_eq!(answer.data(200)["status"], status);
        }
        let made = api
            .post(&format!("{path}/checkpoints"), &json!({}))
            .data(200);
        let copy = Runtime::create(api, &json!({"checkpoint_id": made["id"]}));
        copy.sh("cat /root/file").assert_stdout("bytes");
        let checkpoint = format!("/v1/checkpoints/{}", made["id"].as_str().expect("an id"));
        api.delete(&checkpoint).data(200);
    }
}

/// All that was told is so: every record is there once, with its output, and every key stands for what it stood for.
pub fn judge(api: &Api, runtime: &Runtime, told: &Told) {
    let found = walk(api, &runtime.id, 7);
    let different: BTreeSet<String> = found.iter().cloned().collect();
    assert_eq!(different.len(), found.len(), "a record is listed twice");
    let all = api.get(&format!("/v1/execs?runtime={}", runtime.id));
    assert_eq!(all.data(200).as_array().map(Vec::len), Some(found.len()));
    for (id, text) in told.execs.lock().expect("no panic").iter() {
        assert!(different.contains(id), "{id} is not listed");
        let record = api.record(id);
        assert_eq!(record["outcome"], "exited", "{record}");
        let time = |key: &str| record[key].as_str().expect("a time").to_owned();
        assert!(time("started_at") <= time("ended_at"), "{record}");
        let output = api.get(&format!("/v1/execs/{id}/output"));
        assert_eq!((output.status, output.text()), (200, text.clone()));
    }
    for (key, text) in told.keys.lock().expect("no panic").iter() {
        stands(api, runtime, key, text);
        runtime
            .sh(&format!("wc -l < /root/{key}"))
            .assert_stdout("1\n");
    }
}

/// A key still stands for its answer.
pub fn stands(api: &Api, runtime: &Runtime, key: &str, text: &str) {
    let again = api.post_once(&runtime.exec_path(), key, &counted(key));
    assert_eq!((again.status, again.text().as_str()), (200, text), "{key}");
}

/// Waits until the clients have done something more.
pub fn goes_on(told: &Told) {
    let count = || {
        let done = |list: &Mutex<Vec<_>>| list.lock().unwrap_or_else(PoisonError::into_inner).len();
        (done(&told.execs), done(&told.keys))
    };
    let (execs, keys) = count();
    let more = || count().0 > execs + 3 && count().1 > keys;
    assert!(eventually(bound(60_000), more), "the clients stand still");
}
