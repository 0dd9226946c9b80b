//! What is remembered of an exec.

use super::error::ExecError;
use super::executor::Finished;
use crate::resources::Usage;
use crate::store::ExecRow;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Every word that a record's outcome can be: still running, one of [`Outcome`](super::Outcome)'s, or none of those.
pub const OUTCOMES: [&str; 8] = [
    RUNNING,
    "exited",
    "signaled",
    "timed_out",
    "oom_killed",
    "cancelled",
    FAILED,
    UNKNOWN,
];

/// It has not ended.
pub const RUNNING: &str = "running";
/// It was accepted and could not be run after all; the record's error says why.
pub const FAILED: &str = "failed";
/// The server or the launcher ended before it: whether and how it ended is not known.
pub const UNKNOWN: &str = "unknown";

/// Most bytes of a command line in a record.
const MAX_COMMAND: usize = 256;

/// An exec's record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The exec.
    pub id: Uuid,
    /// The runtime that it ran in, which may be gone.
    pub runtime: Uuid,
    /// The runtime's name at that time.
    pub runtime_name: String,
    /// argv[0] or a shell line, its first bytes.
    pub command: String,
    /// Nobody waited for its end.
    pub detached: bool,
    /// One of [`OUTCOMES`].
    pub outcome: String,
    /// When it ended, in milliseconds since 1970; none while it runs, and where that is unknown.
    pub ended_at: Option<i64>,
    /// What is known of its end.
    pub report: Report,
    /// Bytes of its output that are kept now.
    pub kept: u64,
    /// They are in files.
    pub(super) in_files: bool,
}

/// What is known of an exec's end; stored as JSON, `{}` before it, and an older server's without what was added later.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// As in the answer.
    pub exit_code: Option<u8>,
    /// As in the answer.
    pub signal: Option<String>,
    /// As in the answer.
    pub duration_ms: Option<u64>,
    /// Bytes of stdout in all.
    pub stdout_bytes: Option<u64>,
    /// Bytes of stderr in all.
    pub stderr_bytes: Option<u64>,
    /// How many of them were kept when it ended.
    pub stdout_kept: u64,
    /// The same of stderr.
    pub stderr_kept: u64,
    /// What its cell used.
    pub usage: Option<Usage>,
    /// Why it was not run.
    pub error: Option<String>,
    /// Its output went to the client of its stream and was never to be kept.
    #[serde(default)]
    pub streamed: bool,
}

impl Record {
    /// When it started, in milliseconds since 1970.
    pub fn started_at(&self) -> i64 {
        started_at(self.id)
    }

    /// Whether its output can be read, as far as it was below the cap.
    pub fn output_kept(&self) -> bool {
        !self.report.streamed && self.kept >= self.report.stdout_kept + self.report.stderr_kept
    }
}

impl From<ExecRow> for Record {
    fn from(row: ExecRow) -> Self {
        let report = serde_json::from_str(&row.report).unwrap_or_else(|error| {
            tracing::error!(exec_id = %row.id, %error, "reading the stored end of an exec");
            Report::default()
        });
        Self {
            id: row.id,
            runtime: row.runtime,
            runtime_name: row.runtime_name,
            command: row.command,
            detached: row.detached,
            outcome: row.outcome,
            ended_at: row.ended_at,
            report,
            kept: row.kept,
            in_files: row.in_files,
        }
    }
}

/// The time in a UUIDv7: its first 48 bits, RFC 9562.
pub(super) fn started_at(id: Uuid) -> i64 {
    (id.as_u128() >> 80) as i64
}

/// The part of a command that a record holds.
pub(super) fn shortened(command: &str) -> String {
    command[..command.floor_char_boundary(MAX_COMMAND)].to_owned()
}

/// Outcome and report of an exec that ended so; None where the error that was answered says all, and there is no id to
/// ask for.
pub(super) fn ended(
    result: &Result<Finished, ExecError>,
    detached: bool,
) -> Option<(&'static str, Report)> {
    let error = match result {
        Ok(finished) => return Some((finished.verdict.outcome.as_str(), finished.into())),
        Err(error) => error,
    };
    let told = detached || error.names_record();
    match error.ran_nothing() {
        false => Some((UNKNOWN, Report::default())),
        true if told => {
            let error = Some(error.to_string());
            let report = Report {
                error,
                ..Report::default()
            };
            Some((FAILED, report))
        }
        true => None,
    }
}

impl From<&Finished> for Report {
    fn from(finished: &Finished) -> Self {
        Self {
            exit_code: Some(finished.verdict.exit_code),
            signal: finished.verdict.signal.clone(),
            duration_ms: Some(finished.duration_ms),
            stdout_bytes: Some(finished.stdout.total),
            stderr_bytes: Some(finished.stderr.total),
            stdout_kept: finished.stdout.kept_bytes,
            stderr_kept: finished.stderr.kept_bytes,
            usage: Some(finished.usage),
            error: None,
            streamed: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_when_it_was_made() {
        let before = jiff::Timestamp::now().as_millisecond();
        let at = started_at(Uuid::now_v7());
        let after = jiff::Timestamp::now().as_millisecond();
        assert!((before..=after + 1).contains(&at), "{before} {at} {after}");
        assert_eq!(started_at(crate::store::first_id_at(at)), at);
    }

    #[test]
    fn what_is_not_stored_yet_is_nothing() {
        let report: Report = serde_json::from_str("{}").unwrap();
        assert_eq!(report, Report::default());
    }

    #[test]
    fn long_commands_are_cut_between_characters() {
        assert_eq!(shortened("ls"), "ls");
        assert_eq!(shortened(&"é".repeat(200)).len(), 256);
        assert_eq!(shortened(&format!("a{}", "é".repeat(200))).len(), 255);
    }
}
