//! A runtime as a test uses it, and the result of one exec.

use super::client::{Api, Reply};
use super::websocket::Ws;
use super::{procs, timing};
use serde_json::{Value, json};
use std::ops::Range;
use std::time::Duration;

/// A runtime, deleted when it goes out of scope.
pub struct Runtime {
    api: Api,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The object as create returned it.
    pub object: Value,
}

impl Runtime {
    /// Creates one; the create must succeed.
    #[track_caller]
    pub fn create(api: &Api, body: &Value) -> Runtime {
        let object = api.post("/v1/runtimes", body).data(200);
        let text = |key: &str| object[key].as_str().expect("a string").to_owned();
        Runtime {
            api: api.clone(),
            id: text("id"),
            name: text("display_name"),
            object,
        }
    }

    /// Sends an exec and takes whatever comes.
    pub fn try_exec(&self, body: &Value) -> Reply {
        self.api.post(&self.exec_path(), body)
    }

    /// Where its execs go.
    pub fn exec_path(&self) -> String {
        format!("/v1/runtimes/{}/exec", self.id)
    }

    /// Where its streams are opened.
    pub fn stream_path(&self) -> String {
        format!("/v1/runtimes/{}/exec/stream", self.id)
    }

    /// Opens a stream and starts a command in it.
    #[track_caller]
    pub fn stream(&self, start: Value) -> Ws {
        let mut ws = Ws::open(&self.api, &self.stream_path());
        ws.start(start);
        ws
    }

    /// Opens a stream and starts a shell line in it.
    #[track_caller]
    pub fn stream_sh(&self, line: &str) -> Ws {
        self.stream(json!({"command": "sh", "args": ["-c", line]}))
    }

    /// Opens a stream and starts bash in a terminal.
    #[track_caller]
    pub fn terminal(&self, line: &str) -> Ws {
        self.stream(json!({"command": "bash", "args": ["--norc", "-c", line], "tty": true}))
    }

    /// Runs a command; the answer must be a result.
    #[track_caller]
    pub fn exec(&self, body: &Value) -> Exec {
        let reply = self.try_exec(body);
        Exec {
            data: reply.data(200),
            took: reply.took,
        }
    }

    /// Runs a shell line.
    #[track_caller]
    pub fn sh(&self, line: &str) -> Exec {
        self.exec(&json!({"command": "sh", "args": ["-c", line]}))
    }

    /// Runs a shell line with more fields of the exec body.
    #[track_caller]
    pub fn sh_with(&self, line: &str, fields: Value) -> Exec {
        let mut body = json!({"command": "sh", "args": ["-c", line]});
        for (key, value) in fields.as_object().expect("an object") {
            body[key] = value.clone();
        }
        self.exec(&body)
    }

    /// Starts a detached shell line with more fields of the exec body, and gives its id.
    #[track_caller]
    pub fn detach(&self, line: &str, fields: Value) -> String {
        let mut body = json!({"command": "sh", "args": ["-c", line], "detach": true});
        for (key, value) in fields.as_object().expect("an object") {
            body[key] = value.clone();
        }
        let data = self.try_exec(&body).data(200);
        assert_eq!(data["outcome"], "running", "{data}");
        data["exec_id"].as_str().expect("an id").to_owned()
    }

    /// Runs Python code.
    #[track_caller]
    pub fn python(&self, code: &str) -> Exec {
        self.exec(&json!({"command": "/usr/bin/python3", "args": ["-c", code]}))
    }

    /// Starts `sleep` in a thread and calls `look` with its host pid while it runs. The sleep is cut short by closing
    /// the connection, which kills it.
    pub fn while_sleeping<T>(&self, look: impl FnOnce(u32) -> T) -> T {
        let marker = procs::marker();
        let body = json!({"command": "sleep", "args": [marker]}).to_string();
        let connection = self
            .api
            .begin(&self.exec_path(), body.len() as u64, body.as_bytes());
        let running = || {
            procs::with_arg(&marker)
                .into_iter()
                .find(|pid| is_sleep(*pid))
        };
        assert!(
            timing::eventually(timing::bound(10_000), || running().is_some()),
            "the command never started"
        );
        let result = look(running().expect("it sleeps"));
        drop(connection);
        assert!(
            timing::eventually(timing::bound(5_000), || procs::with_arg(&marker).is_empty()),
            "the command outlived its client"
        );
        result
    }

    /// Host uids that its processes have.
    pub fn host_uids(&self) -> Range<u32> {
        let ranges = self.while_sleeping(procs::uid_ranges);
        assert!(!ranges.is_empty(), "the payload is in no user namespace");
        let start = ranges
            .iter()
            .map(|range| range.start)
            .min()
            .expect("a range");
        let end = ranges.iter().map(|range| range.end).max().expect("a range");
        start..end
    }
}

/// The payload after its exec, not the cell's init before it.
fn is_sleep(pid: u32) -> bool {
    procs::status(pid, "Name").as_deref() == Some("sleep")
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // A test may have deleted it, or ended its server.
        let _ = self
            .api
            .try_send("DELETE", &format!("/v1/runtimes/{}", self.id), &[], None);
    }
}

/// A buffered exec's result.
#[derive(Debug)]
pub struct Exec {
    /// The `data` object.
    pub data: Value,
    /// How long the client waited.
    pub took: Duration,
}

impl Exec {
    /// The command's exit code.
    pub fn code(&self) -> i64 {
        self.data["exit_code"]
            .as_i64()
            .unwrap_or_else(|| panic!("no exit_code in {self:?}"))
    }

    /// Decoded standard output.
    pub fn stdout(&self) -> &str {
        self.data["stdout"]
            .as_str()
            .unwrap_or_else(|| panic!("no stdout in {self:?}"))
    }

    /// Decoded standard error.
    pub fn stderr(&self) -> &str {
        self.data["stderr"]
            .as_str()
            .unwrap_or_else(|| panic!("no stderr in {self:?}"))
    }

    /// How it ended.
    pub fn outcome(&self) -> &str {
        self.data["outcome"]
            .as_str()
            .unwrap_or_else(|| panic!("no outcome in {self:?}"))
    }

    /// A number of the result, or of its usage.
    pub fn number(&self, key: &str) -> u64 {
        let value = if self.data[key].is_null() {
            &self.data["usage"][key]
        } else {
            &self.data[key]
        };
        value
            .as_u64()
            .unwrap_or_else(|| panic!("no number {key} in {self:?}"))
    }

    /// Lines of standard output.
    pub fn lines(&self) -> Vec<&str> {
        self.stdout().lines().collect()
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn assert_code(&self, code: i64) -> &Exec {
        assert_eq!(self.code(), code, "{self:?}");
        self
    }

    /// Asserts success and this exact standard output.
    #[track_caller]
    pub fn assert_stdout(&self, text: &str) -> &Exec {
        assert_eq!((self.code(), self.stdout()), (0, text), "{self:?}");
        self
    }

    /// Asserts that it failed by itself.
    #[track_caller]
    pub fn assert_failed(&self) -> &Exec {
        assert_ne!(self.code(), 0, "{self:?}");
        assert_eq!(self.outcome(), "exited", "{self:?}");
        self
    }

    /// Asserts a timeout, with everything that says so.
    #[track_caller]
    pub fn assert_timed_out(&self) -> &Exec {
        let said = (
            self.code(),
            self.outcome(),
            self.data["timed_out"].as_bool(),
        );
        assert_eq!(said, (124, "timed_out", Some(true)), "{self:?}");
        self
    }

    /// Asserts an end by the OOM killer, with everything that says so.
    #[track_caller]
    pub fn assert_oom_killed(&self) -> &Exec {
        let said = (
            self.code(),
            self.outcome(),
            self.data["oom_killed"].as_bool(),
        );
        assert_eq!(said, (137, "oom_killed", Some(true)), "{self:?}");
        self
    }
}
