//! The record of one exec from its start to its end, kept by the exec's own task: whatever becomes of that, the record
//! ends.

use super::error::ExecError;
use super::executor::Finished;
use super::live::Listed;
use super::record::{self, RUNNING, Report, UNKNOWN};
use super::records::Records;
use crate::metrics::{METRICS, Phase};
use crate::store::{ExecRow, ExecWrite, KeyRow, StoreError};
use bytes::Bytes;
use std::time::Instant;
use tokio::sync::watch;

/// See the module.
#[derive(Debug)]
pub(super) struct Recording {
    records: Records,
    /// As it was at the start, until the end is noted.
    row: Option<ExecRow>,
    /// A key stands for this exec.
    keyed: bool,
    streamed: bool,
    listed: Listed,
    began: Instant,
}

impl Recording {
    /// Notes that `row` runs. A detached exec and one with a key are durable. The output of one that is `streamed` is kept
    /// nowhere.
    pub(super) fn begin(
        records: &Records,
        mut row: ExecRow,
        key: Option<KeyRow>,
        streamed: bool,
        listed: Listed,
    ) -> Self {
        row.report = stored(&Report {
            streamed,
            ..Report::default()
        });
        let keyed = key.is_some();
        let durable = keyed || row.detached;
        records.put(with_output(row.clone(), Default::default()), key, durable);
        Self {
            records: records.clone(),
            row: Some(row),
            keyed,
            streamed,
            listed,
            began: Instant::now(),
        }
    }

    /// Waits until the record is as safe as it has to be for the command to start.
    pub(super) async fn safe(&self) -> Result<(), StoreError> {
        match &self.row {
            Some(row) if row.detached || self.keyed => self.records.flush().await,
            _ => Ok(()),
        }
    }

    /// Turns true when somebody cancels the exec.
    pub(super) fn stopped(&self) -> watch::Receiver<bool> {
        self.listed.stopped()
    }

    /// Notes how it ended. With a key, waits until that is written: the answer must be there for whoever asks again.
    pub(super) async fn end(mut self, result: &Result<Finished, ExecError>) {
        let Some(row) = self.row.take() else { return };
        let id = row.id;
        let end = record::ended(result, row.detached);
        let again = result.as_ref().is_err_and(ExecError::ran_nothing);
        // A detached one was answered when it began.
        if self.keyed && again && !row.detached {
            self.records.release_key(id);
        }
        let output = match result {
            Ok(finished) => {
                METRICS.ran(finished.duration, self.began.elapsed());
                [finished.stdout.kept.clone(), finished.stderr.kept.clone()]
            }
            Err(_) => Default::default(),
        };
        match end {
            Some((outcome, report)) => self.put(row, outcome, report, output),
            None => self.records.forget(id),
        }
        if let Ok(finished) = result {
            METRICS.phase(Phase::Close, finished.drained.elapsed());
        }
        if self.keyed
            && let Err(error) = self.records.flush().await
        {
            let error = crate::log::chain(&error);
            tracing::error!(exec_id = %id, error, "storing the answer of an idempotency key");
        }
    }

    fn put(&self, row: ExecRow, outcome: &str, mut report: Report, output: [Bytes; 2]) {
        METRICS.exec(outcome, 1);
        report.streamed = self.streamed;
        let spools = self.listed.progress();
        if let [Some(stdout), Some(stderr)] = spools {
            // Known even where the end is not.
            (report.stdout_kept, report.stderr_kept) = (stdout.kept, stderr.kept);
        }
        let row = ExecRow {
            outcome: outcome.to_owned(),
            // The clock may have been set back meanwhile; ids never are.
            ended_at: (outcome != UNKNOWN).then(|| {
                jiff::Timestamp::now()
                    .as_millisecond()
                    .max(record::started_at(row.id))
            }),
            report: stored(&report),
            kept: report.stdout_kept + report.stderr_kept,
            in_files: spools.iter().flatten().any(|spool| spool.kept > 0),
            ..row
        };
        self.records.put(with_output(row, output), None, self.keyed);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(row) = self.row.take() {
            debug_assert_eq!(row.outcome, RUNNING);
            self.put(row, UNKNOWN, Report::default(), Default::default());
        }
    }
}

fn stored(report: &Report) -> String {
    // Plain numbers and strings: this can't fail.
    serde_json::to_string(report).unwrap_or_else(|_| "{}".into())
}

fn with_output(row: ExecRow, output: [Bytes; 2]) -> ExecWrite {
    ExecWrite { row, output }
}
