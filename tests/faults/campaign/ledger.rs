//! What was answered and what was killed: all that the end is held against.

use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

/// What was promised of an exec.
#[derive(Debug, Clone)]
pub struct Promise {
    /// The outcome that was told; none where only its start was, or an error.
    pub outcome: Option<String>,
    /// The exit code beside it.
    pub exit_code: Option<i64>,
    /// Its record survives any crash: it is detached, or has a key.
    pub durable: bool,
    /// When it was told, in milliseconds since 1970.
    pub at: i64,
}

/// What became of a request under an `Idempotency-Key`.
#[derive(Debug, Clone)]
pub enum Fate {
    /// 200, with this text.
    Answered(String),
    /// 409: it may have run. The exec that was named.
    Unknown(String),
    /// Never an answer that settles it.
    Open,
}

/// A request under a key.
#[derive(Debug, Clone)]
pub struct Keyed {
    /// Body of the request.
    pub body: Value,
    /// What became of it.
    pub fate: Fate,
}

/// What is known of something that was made or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Being {
    /// 200 said that it was made.
    There,
    /// 200 said that it was deleted, or 404 that it is not there.
    Gone,
    /// A request that would change it got no answer.
    Open,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    /// When it was opened, in milliseconds since 1970: what is older is not its business.
    pub opened: i64,
    pages: Mutex<Pages>,
}

/// What the ledger holds.
#[derive(Debug, Default)]
pub struct Pages {
    /// Promises by exec id.
    pub execs: HashMap<String, Promise>,
    /// Requests by key.
    pub keys: HashMap<String, Keyed>,
    /// Runtimes by name.
    pub runtimes: HashMap<String, Being>,
    /// Checkpoints by id.
    pub checkpoints: HashMap<String, Being>,
    /// What must not be, in the order of its discovery.
    pub wrong: Vec<String>,
    /// How often which client had which result.
    pub results: BTreeMap<(&'static str, String), u64>,
    /// Kinds and times of kills, in milliseconds since 1970.
    pub kills: Vec<(&'static str, i64)>,
}

/// Milliseconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_millis()).expect("a small number")
}

impl Ledger {
    /// An empty one.
    pub fn new() -> Ledger {
        Ledger {
            opened: now(),
            pages: Mutex::default(),
        }
    }

    /// The pages, for whoever needs more than the calls below.
    pub fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Notes what must not be.
    pub fn wrong(&self, what: String) {
        super::say(&format!("WRONG: {what}\n"));
        self.pages().wrong.push(what);
    }

    /// Counts a client's result.
    pub fn count(&self, who: &'static str, result: impl Into<String>) {
        *self
            .pages()
            .results
            .entry((who, result.into()))
            .or_default() += 1;
    }

    /// Notes a kill.
    pub fn killed(&self, kind: &'static str) {
        self.pages().kills.push((kind, now()));
    }

    /// Notes that a runtime was made, deleted or perhaps either.
    pub fn runtime(&self, name: &str, being: Being) {
        self.pages().runtimes.insert(name.to_owned(), being);
    }

    /// The same of a checkpoint.
    pub fn checkpoint(&self, id: &str, being: Being) {
        self.pages().checkpoints.insert(id.to_owned(), being);
    }

    /// Notes that an exec's id was told, and how it ended where that was told. Two answers may not differ.
    pub fn exec(&self, data: &Value, durable: bool) {
        let Some(id) = data["exec_id"].as_str() else {
            return self.wrong(format!("no exec_id in {data}"));
        };
        let outcome = data["outcome"].as_str().filter(|told| *told != "running");
        let promise = Promise {
            outcome: outcome.map(str::to_owned),
            exit_code: data["exit_code"].as_i64(),
            durable,
            at: now(),
        };
        let mut pages = self.pages();
        let before = pages.execs.insert(id.to_owned(), promise);
        let told = before.and_then(|before| before.outcome);
        if let Some(told) = told
            && Some(told.as_str()) != outcome
        {
            drop(pages);
            self.wrong(format!("{id} was {told} before: {data}"));
        }
    }
}
