//! What became of a command, as JSON: everything but its output.

use crate::exec::{Outcome, OutputEncoding, Report};
use crate::resources::Usage;
use serde::Serialize;
use uuid::Uuid;

/// The result fields of an exec.
#[derive(Serialize)]
pub struct ExecView<'a> {
    duration_ms: u64,
    exit_code: u8,
    stdout_truncated: bool,
    stderr_truncated: bool,
    exec_id: Uuid,
    outcome: &'a str,
    signal: Option<&'a str>,
    timed_out: bool,
    oom_killed: bool,
    stdout_bytes: u64,
    stderr_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_encoding: Option<&'static str>,
    usage: UsageView,
}

/// What a command used.
#[derive(Serialize)]
pub struct UsageView {
    cpu_ms: u64,
    user_ms: u64,
    system_ms: u64,
    peak_memory_bytes: u64,
    peak_pids: Option<u64>,
}

impl<'a> ExecView<'a> {
    /// `truncated` says of stdout and of stderr whether the client gets less than all; `encoding` how they are written,
    /// where they are in the same object.
    pub fn new(
        exec_id: Uuid,
        outcome: &'a str,
        report: &'a Report,
        [stdout_truncated, stderr_truncated]: [bool; 2],
        encoding: Option<OutputEncoding>,
    ) -> Self {
        Self {
            duration_ms: report.duration_ms.unwrap_or_default(),
            exit_code: report.exit_code.unwrap_or_default(),
            stdout_truncated,
            stderr_truncated,
            exec_id,
            outcome,
            signal: report.signal.as_deref(),
            timed_out: outcome == Outcome::TimedOut.as_str(),
            oom_killed: outcome == Outcome::OomKilled.as_str(),
            stdout_bytes: report.stdout_bytes.unwrap_or_default(),
            stderr_bytes: report.stderr_bytes.unwrap_or_default(),
            output_encoding: encoding.map(|encoding| match encoding {
                OutputEncoding::Utf8 => "utf8",
                OutputEncoding::Base64 => "base64",
            }),
            usage: report.usage.unwrap_or_default().into(),
        }
    }
}

impl From<Usage> for UsageView {
    fn from(usage: Usage) -> Self {
        Self {
            cpu_ms: usage.cpu_us / 1000,
            user_ms: usage.user_us / 1000,
            system_ms: usage.system_us / 1000,
            peak_memory_bytes: usage.peak_memory_bytes,
            peak_pids: usage.peak_pids,
        }
    }
}
