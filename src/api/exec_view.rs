//! What became of a command, as JSON: everything but its output.

use crate::exec::{Finished, Outcome, OutputEncoding, Verdict};
use serde::Serialize;

/// The result fields of an exec.
#[derive(Serialize)]
pub struct ExecView<'a> {
    duration_ms: u64,
    exit_code: u8,
    stdout_truncated: bool,
    stderr_truncated: bool,
    exec_id: uuid::Uuid,
    outcome: &'static str,
    signal: Option<&'a str>,
    timed_out: bool,
    oom_killed: bool,
    stdout_bytes: u64,
    stderr_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_encoding: Option<&'static str>,
    usage: UsageView,
}

#[derive(Serialize)]
struct UsageView {
    cpu_ms: u64,
    user_ms: u64,
    system_ms: u64,
    peak_memory_bytes: u64,
    peak_pids: Option<u64>,
}

impl<'a> ExecView<'a> {
    /// For an answer that holds the output that was kept.
    pub fn buffered(finished: &'a Finished, encoding: OutputEncoding) -> Self {
        let encoding = match encoding {
            OutputEncoding::Utf8 => "utf8",
            OutputEncoding::Base64 => "base64",
        };
        let truncated = [finished.stdout.truncated(), finished.stderr.truncated()];
        Self::new(finished, truncated, Some(encoding))
    }

    /// For the end of a stream; `truncated` says of stdout and stderr whether the client got less than all.
    pub fn streamed(finished: &'a Finished, truncated: [bool; 2]) -> Self {
        Self::new(finished, truncated, None)
    }

    fn new(
        finished: &'a Finished,
        [stdout_truncated, stderr_truncated]: [bool; 2],
        output_encoding: Option<&'static str>,
    ) -> Self {
        let Verdict {
            outcome,
            exit_code,
            ref signal,
        } = finished.verdict;
        let usage = &finished.usage;
        Self {
            duration_ms: finished.duration_ms,
            exit_code,
            stdout_truncated,
            stderr_truncated,
            exec_id: finished.exec_id,
            outcome: outcome.as_str(),
            signal: signal.as_deref(),
            timed_out: outcome == Outcome::TimedOut,
            oom_killed: outcome == Outcome::OomKilled,
            stdout_bytes: finished.stdout.total,
            stderr_bytes: finished.stderr.total,
            output_encoding,
            usage: UsageView {
                cpu_ms: usage.cpu_us / 1000,
                user_ms: usage.user_us / 1000,
                system_ms: usage.system_us / 1000,
                peak_memory_bytes: usage.peak_memory_bytes,
                peak_pids: usage.peak_pids,
            },
        }
    }
}
