//! The answer of an exec. Output is turned into JSON piece by piece while it is sent: JSON can be six times as long as the
//! bytes it stands for (`\u0000`), and only the bytes were set aside at admission.

use super::error::ApiError;
use super::exec_view::ExecView;
use crate::exec::{BufferReservation, Captured, Finished, Lossy, OutputEncoding, cut};
use axum::body::{Body, HttpBody};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use hyper::body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Output bytes in one piece: a multiple of three, so that base64 pieces join.
const PIECE: usize = 48 * 1024;

/// 200 with what came of a command.
pub fn answer(finished: Finished, encoding: OutputEncoding) -> Result<Response, ApiError> {
    let mut pieces = Pieces::new(finished, encoding).map_err(|e| ApiError::internal(&e))?;
    let small = pieces.stdout.kept.len() + pieces.stderr.kept.len() <= PIECE;
    let body = if small {
        // In one piece and with its length.
        Body::from(pieces.by_ref().collect::<Vec<Bytes>>().concat())
    } else {
        Body::new(pieces)
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Where the writing stands.
#[derive(Debug, Clone, Copy)]
enum Next {
    Head,
    Stdout(usize),
    Between,
    Stderr(usize),
    Tail,
    End,
}

/// The answer in pieces, holding on to the memory set aside for it until it is sent or its client is gone.
struct Pieces {
    head: String,
    stdout: Captured,
    stderr: Captured,
    encoding: OutputEncoding,
    next: Next,
    _reservation: BufferReservation,
}

impl Pieces {
    fn new(finished: Finished, encoding: OutputEncoding) -> Result<Self, serde_json::Error> {
        let view = serde_json::to_string(&ExecView::buffered(&finished, encoding))?;
        // The output follows inside the same object.
        let fields = view.strip_suffix('}').unwrap_or(&view);
        let head = format!("{{\"data\":{fields},\"stdout\":\"");
        let Finished {
            mut stdout,
            mut stderr,
            reservation,
            ..
        } = finished;
        if encoding == OutputEncoding::Utf8 {
            for captured in [&mut stdout, &mut stderr] {
                let whole = cut(&captured.kept, captured.truncated()).len();
                captured.kept.truncate(whole);
            }
        }
        Ok(Self {
            head,
            stdout,
            stderr,
            encoding,
            next: Next::Head,
            _reservation: reservation,
        })
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let (piece, next) = match self.next {
                Next::Head => (std::mem::take(&mut self.head), Next::Stdout(0)),
                Next::Stdout(from) if from >= self.stdout.kept.len() => {
                    self.next = Next::Between;
                    continue;
                }
                Next::Stdout(from) => {
                    let (piece, to) = piece(&self.stdout.kept, from, self.encoding);
                    (piece, Next::Stdout(to))
                }
                Next::Between => ("\",\"stderr\":\"".to_owned(), Next::Stderr(0)),
                Next::Stderr(from) if from >= self.stderr.kept.len() => {
                    self.next = Next::Tail;
                    continue;
                }
                Next::Stderr(from) => {
                    let (piece, to) = piece(&self.stderr.kept, from, self.encoding);
                    (piece, Next::Stderr(to))
                }
                Next::Tail => ("\"}}".to_owned(), Next::End),
                Next::End => return None,
            };
            self.next = next;
            return Some(piece.into());
        }
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next().map(|piece| Ok(Frame::data(piece))))
    }
}

/// The inside of a JSON string for the bytes from `from` on, and where the next piece begins.
fn piece(bytes: &[u8], from: usize, encoding: OutputEncoding) -> (String, usize) {
    let end = bytes.len().min(from + PIECE);
    match encoding {
        OutputEncoding::Base64 => (BASE64_STANDARD.encode(&bytes[from..end]), end),
        OutputEncoding::Utf8 => {
            let to = boundary(bytes, end);
            let text = serde_json::to_string(&Lossy(&bytes[from..to])).unwrap_or_default();
            let inside = text.get(1..text.len() - 1).unwrap_or_default();
            (inside.to_owned(), to)
        }
    }
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_boundary_splits_no_character(bytes in prop::collection::vec(prop_oneof![
            Just(0xf0u8), Just(0x9f), Just(0x98), Just(0x80), Just(0xc3), Just(b'a'), any::<u8>()
        ], 4..40), at in 4usize..40) {
            let at = boundary(&bytes, at.min(bytes.len()));
            let decode = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            prop_assert_eq!(decode(&bytes[..at]) + &decode(&bytes[at..]), decode(&bytes));
            prop_assert!(at > 0);
        }
    }

    #[test]
    fn pieces_make_the_whole() {
        let text = "é\"\\\n\u{1}😀".repeat(PIECE / 4);
        for encoding in [OutputEncoding::Utf8, OutputEncoding::Base64] {
            let (mut at, mut json) = (0, String::new());
            while at < text.len() {
                let (inside, next) = piece(text.as_bytes(), at, encoding);
                assert!(next > at);
                json += &inside;
                at = next;
            }
            let expected = match encoding {
                OutputEncoding::Utf8 => text.clone(),
                OutputEncoding::Base64 => BASE64_STANDARD.encode(&text),
            };
            let read: String = serde_json::from_str(&format!("\"{json}\"")).unwrap();
            assert_eq!(read, expected);
        }
    }
}
