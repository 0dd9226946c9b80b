//! What is remembered of execs.

use super::exec::Usage;
use utoipa::{IntoParams, ToSchema};

/// An exec's record. What is not known yet, or never will be, is null.
#[derive(ToSchema)]
pub struct ExecRecord {
    #[schema(format = "uuid")]
    exec_id: String,
    /// The runtime that it ran in, which may be gone.
    #[schema(format = "uuid")]
    runtime_id: String,
    /// The runtime's name at that time.
    runtime: String,
    /// What was run: the executable or the shell line, its first 256 bytes.
    command: String,
    /// Nobody waited for its end.
    detached: bool,
    #[schema(format = "date-time", required)]
    started_at: Option<String>,
    #[schema(format = "date-time", required)]
    ended_at: Option<String>,
    #[schema(required)]
    duration_ms: Option<u64>,
    outcome: RecordOutcome,
    /// As in the answer.
    #[schema(required)]
    exit_code: Option<u8>,
    /// As in the answer.
    #[schema(required)]
    signal: Option<String>,
    timed_out: bool,
    oom_killed: bool,
    /// Bytes written in all; while it runs, so far.
    #[schema(required)]
    stdout_bytes: Option<u64>,
    /// Bytes written in all; while it runs, so far.
    #[schema(required)]
    stderr_bytes: Option<u64>,
    /// More than was kept was written.
    #[schema(required)]
    stdout_truncated: Option<bool>,
    /// More than was kept was written.
    #[schema(required)]
    stderr_truncated: Option<bool>,
    /// `GET /v1/execs/{id}/output` still has all that was kept.
    output_kept: bool,
    #[schema(required)]
    usage: Option<Usage>,
    /// Why it was not run after all.
    #[schema(required)]
    error: Option<String>,
}

/// How it ended, if it did. `failed`: it could not be run after all; `unknown`: nobody saw how, since the server, its launcher or what stood over the command was killed.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum RecordOutcome {
    Running,
    Exited,
    Signaled,
    TimedOut,
    OomKilled,
    Cancelled,
    Failed,
    Unknown,
}

/// Which records of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ExecFilter {
    /// Only those of this runtime, by its id or the name that it had.
    #[param(min_length = 1)]
    runtime: Option<String>,
    /// Only those that ended so, separated by commas.
    #[param(
        pattern = "^(running|exited|signaled|timed_out|oom_killed|cancelled|failed|unknown)(,(running|exited|signaled|timed_out|oom_killed|cancelled|failed|unknown))*$"
    )]
    outcome: Option<String>,
    /// Only those that started then or later.
    #[param(format = "date-time")]
    since: Option<String>,
}

/// Which bytes of an output.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OutputRange {
    /// `stdout` if left out.
    #[param(inline)]
    stream: Option<OutputStream>,
    /// The first byte, counted from 0.
    #[param(maximum = 18_446_744_073_709_551_615u64)]
    offset: Option<u64>,
    /// Most bytes.
    #[param(maximum = 18_446_744_073_709_551_615u64)]
    limit: Option<u64>,
    /// Go on until the command ends.
    follow: Option<bool>,
}

/// One of a command's outputs.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum OutputStream {
    Stdout,
    Stderr,
}
