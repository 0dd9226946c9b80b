//! What is counted for the operator; `api::metrics` shows it. It is about the whole process, so there is one of it, and
//! whoever sees something happen counts it in one line. What is known anyway (what runs, what is kept) is not counted
//! here but asked for when somebody looks.
//!
//! No label holds what a client chose, so the number of time series is bounded by the program.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

/// The counts of this process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// From a few milliseconds to the longest timeout that can be configured by default.
const DURATIONS: [f64; 12] = [
    0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
];

/// Around the few milliseconds that a cell takes.
const OVERHEADS: [f64; 12] = [
    0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

/// From the tens of microseconds that a phase takes where all is well.
const PHASES: [f64; 12] = [
    0.000_03, 0.000_1, 0.000_3, 0.000_6, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 1.0, 30.0,
];

/// A part of an exec's time; together they are all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// From the request's head to its body being read and its caller being known.
    Auth,
    /// From there until it may run: checks, and the queue.
    Admit,
    /// Until its cell has a first process; nothing where one was parked.
    Open,
    /// Until the cell is built; nothing where one was parked.
    Bind,
    /// Until the command is executed.
    Exec,
    /// Until it and all that it started have ended.
    Run,
    /// Until all of its output was read.
    Drain,
    /// Until its record was noted.
    Close,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Admit => "admit",
            Self::Open => "open",
            Self::Bind => "bind",
            Self::Exec => "exec",
            Self::Run => "run",
            Self::Drain => "drain",
            Self::Close => "close",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InPhase {
    phase: &'static str,
}

/// An answered request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    /// The route's template, such as `/v1/runtimes/{runtime}`.
    pub route: String,
    /// One of HTTP's own methods, or `other`.
    pub method: &'static str,
    /// The answer's status.
    pub status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusal {
    status: u16,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Exec {
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Moved {
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    direction: &'static str,
    result: &'static str,
}

/// See the module.
#[derive(Debug)]
pub struct Metrics {
    /// When the process began to count.
    pub started: SystemTime,
    requests: Family<Request, Counter>,
    refusals: Family<Refusal, Counter>,
    execs: Family<Exec, Counter>,
    duration: Histogram,
    overhead: Histogram,
    phases: Family<InPhase, Histogram>,
    transfers: Family<Ended, Counter>,
    transferred: Family<Moved, Counter>,
    warden_restarts: Counter,
}

impl Metrics {
    fn new() -> Self {
        let metrics = Self {
            started: SystemTime::now(),
            requests: Family::default(),
            refusals: Family::default(),
            execs: Family::default(),
            duration: Histogram::new(DURATIONS),
            overhead: Histogram::new(OVERHEADS),
            phases: Family::new_with_constructor(|| Histogram::new(PHASES)),
            transfers: Family::default(),
            transferred: Family::default(),
            warden_restarts: Counter::default(),
        };
        // A series that begins at its first event hides that event from `rate()`.
        for outcome in crate::exec::OUTCOMES {
            if outcome != crate::exec::RUNNING {
                metrics.exec(outcome, 0);
            }
        }
        for direction in [Transfer::READ, Transfer::WRITE] {
            drop(metrics.transferred.get_or_create(&Moved { direction }));
            for result in [Transfer::COMPLETED, Transfer::FAILED] {
                let ended = Ended { direction, result };
                drop(metrics.transfers.get_or_create(&ended));
            }
        }
        metrics
    }

    /// A request was answered.
    pub fn answered(&self, request: &Request) {
        self.requests.get_or_create(request).inc();
    }

    /// Somebody was told to try again later. Both labels are words of the program's.
    pub fn refused(&self, status: u16, reason: &str) {
        let reason = reason.to_owned();
        let refusal = Refusal { status, reason };
        self.refusals.get_or_create(&refusal).inc();
    }

    /// So many execs ended.
    pub fn exec(&self, outcome: &str, count: u64) {
        let outcome = outcome.to_owned();
        self.execs.get_or_create(&Exec { outcome }).inc_by(count);
    }

    /// A command ran so long, and its exec took so long in all.
    pub fn ran(&self, command: Duration, exec: Duration) {
        self.duration.observe(command.as_secs_f64());
        let overhead = exec.saturating_sub(command);
        self.overhead.observe(overhead.as_secs_f64());
    }

    /// A phase of an exec took so long.
    pub fn phase(&self, phase: Phase, took: Duration) {
        let phase = phase.name();
        let phase = self.phases.get_or_create(&InPhase { phase });
        phase.observe(took.as_secs_f64());
    }

    /// There is another warden in the place of one that died.
    pub fn warden_restarted(&self) {
        self.warden_restarts.inc();
    }

    /// Shows all that is counted here.
    pub fn register(&self, registry: &mut Registry) {
        let requests = "Requests answered, by route template, method and status";
        registry.register("http_requests", requests, self.requests.clone());
        let refusals = "Requests and streams that were told to try again later";
        registry.register("refusals", refusals, self.refusals.clone());
        let execs = "Execs that ended, by outcome; `unknown`: nobody saw how";
        registry.register("execs", execs, self.execs.clone());
        let duration = "Wall clock of commands";
        registry.register_with_unit(
            "exec_duration",
            duration,
            Unit::Seconds,
            self.duration.clone(),
        );
        let overhead = "What an exec took beside its command, from its admission to its record";
        registry.register_with_unit(
            "exec_overhead",
            overhead,
            Unit::Seconds,
            self.overhead.clone(),
        );
        let phases = "Where the time of execs goes";
        registry.register_with_unit("exec_phase", phases, Unit::Seconds, self.phases.clone());
        let transfers =
            "File operations that ended; `failed`: refused by the runtime or broken off";
        registry.register("file_transfers", transfers, self.transfers.clone());
        let transferred = "Bytes of files that were moved";
        let bytes = self.transferred.clone();
        registry.register_with_unit("file_transferred", transferred, Unit::Bytes, bytes);
        let restarts = "Times that the warden was replaced";
        registry.register("warden_restarts", restarts, self.warden_restarts.clone());
    }
}

/// One operation on a file: failed, unless it is said to be completed before it is dropped.
#[derive(Debug)]
pub struct Transfer {
    direction: &'static str,
    result: &'static str,
}

impl Transfer {
    const READ: &'static str = "read";
    const WRITE: &'static str = "write";
    const COMPLETED: &'static str = "completed";
    const FAILED: &'static str = "failed";

    /// From a runtime to a client.
    pub fn read() -> Self {
        Self {
            direction: Self::READ,
            result: Self::FAILED,
        }
    }

    /// From a client to a runtime.
    pub fn write() -> Self {
        Self {
            direction: Self::WRITE,
            result: Self::FAILED,
        }
    }

    /// So many bytes more were moved.
    pub fn moved(&self, bytes: usize) {
        let direction = self.direction;
        let moved = METRICS.transferred.get_or_create(&Moved { direction });
        moved.inc_by(bytes as u64);
    }

    /// All of it was moved.
    pub fn completed(&mut self) {
        self.result = Self::COMPLETED;
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let Self { direction, result } = *self;
        let ended = Ended { direction, result };
        METRICS.transfers.get_or_create(&ended).inc();
    }
}
