//! The answer of an exec. Output is turned into JSON piece by piece while it is sent: JSON can be six times as long as the
//! bytes it stands for (`\u0000`), and only the bytes were set aside at admission. One answer may be sent to many.

use super::chunks::{self, Chunks};
use super::error::ApiError;
use super::exec_view::ExecView;
use crate::exec::{BufferReservation, Finished, Kept, Lossy, OutputEncoding, Record, Report, cut};
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use uuid::Uuid;

/// Output bytes in one piece: a multiple of three, so that base64 pieces join.
const PIECE: usize = 48 * 1024;

/// A successful answer, as long as somebody may want it; cheap to clone.
#[derive(Debug, Clone)]
pub struct Answer(Arc<Content>);

#[derive(Debug)]
struct Content {
    /// All of it, or what comes ahead of the outputs.
    head: String,
    outputs: Option<Outputs>,
}

#[derive(Debug)]
struct Outputs {
    stdout: Output,
    stderr: Output,
    encoding: OutputEncoding,
    /// Kept as long as the output is in memory.
    _reservation: Option<BufferReservation>,
}

impl Answer {
    /// JSON that is small.
    pub fn text(json: String) -> Self {
        Self(Arc::new(Content {
            head: json,
            outputs: None,
        }))
    }

    /// What came of a command.
    pub fn of_finished(finished: Finished, encoding: OutputEncoding) -> Result<Self, ApiError> {
        let report = Report::from(&finished);
        let outputs = [
            Kept::Memory(finished.stdout.kept),
            Kept::Memory(finished.stderr.kept),
        ];
        let outcome = finished.verdict.outcome.as_str();
        let reservation = Some(finished.reservation);
        Self::new(
            finished.exec_id,
            outcome,
            &report,
            outputs,
            encoding,
            reservation,
        )
    }

    /// What came of a command, from its record: byte for byte what was answered then.
    pub fn of_record(
        record: &Record,
        outputs: [Kept; 2],
        encoding: OutputEncoding,
    ) -> Result<Self, ApiError> {
        let (id, outcome) = (record.id, record.outcome.as_str());
        Self::new(id, outcome, &record.report, outputs, encoding, None)
    }

    fn new(
        exec_id: Uuid,
        outcome: &str,
        report: &Report,
        [stdout, stderr]: [Kept; 2],
        encoding: OutputEncoding,
        reservation: Option<BufferReservation>,
    ) -> Result<Self, ApiError> {
        let stdout_bytes = report.stdout_bytes.unwrap_or_default();
        let stderr_bytes = report.stderr_bytes.unwrap_or_default();
        let stdout_truncated = stdout_bytes > report.stdout_kept;
        let stderr_truncated = stderr_bytes > report.stderr_kept;
        let truncated = [stdout_truncated, stderr_truncated];
        let view = ExecView::new(exec_id, outcome, report, truncated, Some(encoding));
        let view = serde_json::to_string(&view).map_err(|e| ApiError::internal(&e))?;
        // The output follows inside the same object.
        let fields = view.strip_suffix('}').unwrap_or(&view);
        let output = |kept, truncated| {
            Output::new(kept, truncated && encoding == OutputEncoding::Utf8)
                .map_err(|e| ApiError::internal(&e))
        };
        Ok(Self(Arc::new(Content {
            head: format!("{{\"data\":{fields},\"stdout\":\""),
            outputs: Some(Outputs {
                stdout: output(stdout, stdout_truncated)?,
                stderr: output(stderr, stderr_truncated)?,
                encoding,
                _reservation: reservation,
            }),
        })))
    }

    /// 200 with this answer.
    pub fn into_response(self) -> Response {
        let small = self.0.outputs.as_ref().is_none_or(|outputs| {
            let memory = !outputs.stdout.in_file() && !outputs.stderr.in_file();
            memory && outputs.stdout.length() + outputs.stderr.length() <= PIECE as u64
        });
        let body = if small {
            // In one piece and with its length. Nothing here reads a file, so nothing fails.
            let pieces = Pieces::of(self).map(Result::unwrap_or_default);
            Body::from(pieces.collect::<Vec<Bytes>>().concat())
        } else {
            let (to, body) = chunks::channel(None);
            tokio::spawn(async move { self.send(&to).await });
            body
        };
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    }

    /// Sends it piece by piece, until it is sent or nobody takes it any more.
    pub async fn send(self, to: &Chunks) {
        let outputs = self.0.outputs.as_ref();
        let reads = outputs.is_some_and(|o| o.stdout.in_file() || o.stderr.in_file());
        let mut pieces = Pieces::of(self);
        loop {
            let piece = if reads {
                let read = tokio::task::spawn_blocking(move || (pieces.next(), pieces));
                let Ok((piece, rest)) = read.await else {
                    return;
                };
                pieces = rest;
                piece
            } else {
                pieces.next()
            };
            let Some(piece) = piece else { return };
            if to.send(piece).await.is_err() {
                return;
            }
        }
    }
}

/// One output, without a character that the cap split where it is to be text.
#[derive(Debug)]
enum Output {
    Memory(Bytes),
    File(Arc<File>, u64),
}

impl Output {
    fn new(kept: Kept, cut_off: bool) -> io::Result<Self> {
        let whole = match kept {
            Kept::Memory(bytes) => Self::Memory(bytes),
            Kept::File(file, length) => Self::File(file, length),
        };
        if !cut_off {
            return Ok(whole);
        }
        // A split character is in the last three bytes; what is before them stays whatever it is.
        let length = whole.length();
        let tail = whole.read(length.saturating_sub(4), 4)?;
        let length = length - (tail.len() - cut(&tail, true).len()) as u64;
        Ok(match whole {
            Self::Memory(bytes) => Self::Memory(bytes.slice(..length as usize)),
            Self::File(file, _) => Self::File(file, length),
        })
    }

    fn in_file(&self) -> bool {
        matches!(self, Self::File(..))
    }

    fn length(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, length) => *length,
        }
    }

    /// At most `most` bytes from `from` on.
    fn read(&self, from: u64, most: usize) -> io::Result<Bytes> {
        let count = (self.length() - from).min(most as u64) as usize;
        match self {
            Self::Memory(bytes) => Ok(bytes.slice(from as usize..from as usize + count)),
            Self::File(file, _) => {
                let mut bytes = vec![0; count];
                file.read_exact_at(&mut bytes, from)?;
                Ok(bytes.into())
            }
        }
    }
}

/// Where the writing stands.
#[derive(Debug, Clone, Copy)]
enum Next {
    Head,
    Stdout(u64),
    Between,
    Stderr(u64),
    Tail,
    End,
}

/// The answer in pieces.
struct Pieces {
    answer: Answer,
    next: Next,
}

impl Pieces {
    fn of(answer: Answer) -> Self {
        Self {
            answer,
            next: Next::Head,
        }
    }

    fn piece(&mut self) -> io::Result<Option<Bytes>> {
        let Content { head, outputs } = &*self.answer.0;
        let (piece, next) = match (self.next, outputs) {
            (Next::Head, None) => (head.clone(), Next::End),
            (Next::Head, Some(_)) => (head.clone(), Next::Stdout(0)),
            (Next::Stdout(from), Some(outputs)) => {
                let (piece, to) = piece(&outputs.stdout, from, outputs.encoding)?;
                match to {
                    Some(to) => (piece, Next::Stdout(to)),
                    None => (piece, Next::Between),
                }
            }
            (Next::Between, Some(_)) => ("\",\"stderr\":\"".to_owned(), Next::Stderr(0)),
            (Next::Stderr(from), Some(outputs)) => {
                let (piece, to) = piece(&outputs.stderr, from, outputs.encoding)?;
                match to {
                    Some(to) => (piece, Next::Stderr(to)),
                    None => (piece, Next::Tail),
                }
            }
            (Next::Tail, Some(_)) => ("\"}}".to_owned(), Next::End),
            (_, _) => return Ok(None),
        };
        self.next = next;
        Ok(Some(piece.into()))
    }
}

impl Iterator for Pieces {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<io::Result<Bytes>> {
        self.piece().transpose()
    }
}

/// The inside of a JSON string for the bytes from `from` on, and where the next piece begins, if there is one.
fn piece(
    output: &Output,
    from: u64,
    encoding: OutputEncoding,
) -> io::Result<(String, Option<u64>)> {
    // One byte more tells whether the last character is whole.
    let bytes = output.read(from, PIECE + 1)?;
    let end = bytes.len().min(PIECE);
    let (piece, end) = match encoding {
        OutputEncoding::Base64 => (BASE64_STANDARD.encode(&bytes[..end]), end),
        OutputEncoding::Utf8 => {
            let end = boundary(&bytes, end);
            let text = serde_json::to_string(&Lossy(&bytes[..end])).unwrap_or_default();
            let inside = text.get(1..text.len() - 1).unwrap_or_default();
            (inside.to_owned(), end)
        }
    };
    let to = from + end as u64;
    Ok((piece, (to < output.length()).then_some(to)))
}

/// The last place at or before `end` that is not inside a character: decoding on both sides of it gives what decoding
/// the whole gives.
fn boundary(bytes: &[u8], end: usize) -> usize {
    let continues = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    if !continues(end) {
        return end;
    }
    // The character that `end` may be inside of began at the most three bytes before.
    (end.saturating_sub(3)..end)
        .rev()
        .find(|at| !continues(*at))
        .unwrap_or(end)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
