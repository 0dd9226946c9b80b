//! Runtimes and commands, properly asked for.

use crate::raw::Raw;
use crate::requests::{create, exec, shell};
use crate::support::{bound, eventually, procs};
use cellblock::warden::memfd;
use cellblock::warden::protocol::{CellEnd, Filesystem, Reply};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use uuid::Uuid;

/// What became of a command.
#[derive(Debug)]
pub struct Ran {
    pub out: Vec<u8>,
    pub err: Vec<u8>,
    pub end: CellEnd,
}

/// A command that sleeps.
pub struct Sleeper {
    /// The number of its cell.
    pub seq: u64,
    /// Its process.
    pub pid: u32,
    /// What it was asked for with.
    pub order: OwnedFd,
    marker: String,
    _pipes: Vec<OwnedFd>,
}

impl Sleeper {
    /// Its process and every other that was started by the same words; none once it has ended.
    pub fn processes(&self) -> Vec<u32> {
        procs::with_arg(&self.marker)
    }
}

impl Ran {
    /// Its output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

impl Raw {
    /// Makes a runtime of the image `host`.
    #[track_caller]
    pub fn create(&self, id: Uuid, filesystem: Filesystem) {
        let reply = self.ask(create(id, filesystem), &[]);
        assert!(matches!(reply, Reply::Created { .. }), "{reply:?}");
    }

    /// Deletes a runtime.
    #[track_caller]
    pub fn delete(&self, id: Uuid) {
        let reply = self.ask(json!({"type": "delete_runtime", "id": id}), &[]);
        assert!(matches!(reply, Reply::Done { .. }), "{reply:?}");
    }

    /// Kills a cell, or whatever has this number.
    pub fn kill(&self, seq: u64) {
        let kill = json!({"type": "kill", "seq": seq}).to_string();
        self.send(kill.as_bytes(), &[]);
    }

    /// Starts a command that runs until it is killed, with the exec as it is, and waits until it does.
    #[track_caller]
    pub fn sleeper(&self, request: Value) -> Sleeper {
        let marker = procs::marker();
        let order = shell("/", &format!("exec sleep {marker}")).encode();
        let order = memfd::seal(c"command", &order).expect("a memfd");
        let seq = self.send_json(request, &[order.as_fd()]);
        let (reply, pipes) = self.reply(seq);
        assert_eq!(reply, Reply::Started { seq });
        let found = || procs::with_arg(&marker);
        assert!(eventually(bound(10_000), || found().len() == 1));
        Sleeper {
            seq,
            pid: found()[0],
            marker,
            order,
            _pipes: pipes,
        }
    }

    /// Runs a shell line.
    #[track_caller]
    pub fn sh(&self, runtime: Uuid, line: &str) -> Ran {
        self.run(exec(runtime), &shell("/", line).encode())
    }

    /// Runs what is in an exec's memfd, with the exec as it is.
    #[track_caller]
    pub fn run(&self, request: Value, order: &[u8]) -> Ran {
        let (_, ran) = self.try_run(request, order);
        ran.unwrap_or_else(|refused| panic!("{refused:?}\n{}", self.log()))
    }

    /// As [`Raw::run`], with its number, and what it was answered where it did not start.
    #[track_caller]
    pub fn try_run(&self, request: Value, order: &[u8]) -> (u64, Result<Ran, Reply>) {
        let order = memfd::seal(c"command", order).expect("a memfd");
        let seq = self.send_json(request, &[order.as_fd()]);
        let (reply, fds) = self.reply(seq);
        if !matches!(reply, Reply::Started { .. }) {
            return (seq, Err(reply));
        }
        let [out, err]: [OwnedFd; 2] = fds.try_into().expect("two pipes");
        let read = |pipe: OwnedFd| {
            let mut bytes = Vec::new();
            File::from(pipe).read_to_end(&mut bytes).expect("read");
            bytes
        };
        let (out, err) = (read(out), read(err));
        match self.reply(seq).0 {
            Reply::Ended { end, .. } => (seq, Ok(Ran { out, err, end })),
            other => panic!("{other:?}"),
        }
    }
}

/// The host ids of a runtime, as root has them on disk.
pub fn range_of(raw: &Raw, runtime: Uuid) -> std::ops::Range<u32> {
    let file = raw.data().join(format!("runtimes/{runtime}/runtime.json"));
    let record: Value = serde_json::from_slice(&fs::read(file).expect("the record")).expect("JSON");
    let base = record["uid_base"].as_u64().expect("a number") as u32;
    base..base + cellblock::resources::RANGE
}
