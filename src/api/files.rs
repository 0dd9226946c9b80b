//! `/v1/runtimes/{runtime}/files?path=`: one regular file, read and written as raw bytes.

use super::App;
use super::auth::Caller;
use super::body::{content_length, linger};
use super::error::ApiError;
use super::runtimes::Key;
use crate::cell::file::Refusal;
use crate::files::{Broken, Download, FileError, FilePath, Source, SourceError};
use crate::runtime::{Invalid, Runtime};
use axum::body::{Body, HttpBody};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use nix::errno::Errno;
use percent_encoding::percent_decode;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::timeout;

/// GET (and HEAD): 200 with the bytes.
pub async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Key(key): Key,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let path = path_parameter(query.as_deref().unwrap_or_default())?;
    let (runtime, path) = find(&app, &caller, &key, &path).await?;
    let shown = path.shown();
    let download = app.files.read(runtime, path).await;
    let download = download.map_err(|error| ApiError::of_file(error, &shown))?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        // What a tenant stored must not become a page of ours, whatever a browser makes of it.
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let length = HeaderValue::from(download.size);
    let body = Body::new(Pieces {
        left: download.size,
        download,
    });
    let mut response = (headers, body).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length);
    Ok(response)
}

/// A runtime's disk is a file on the host's. When that is full, a write may have no better word for it than that the runtime's
/// disk failed (EIO), and a file system that has given itself up for it takes nothing any more (EROFS).
fn told_by_a_full_host(app: &App, error: FileError) -> FileError {
    match error {
        FileError::Refused {
            writing,
            refusal: Refusal::Kernel(Errno::EIO | Errno::EROFS),
        } if !app.runtimes.has_room() => FileError::Refused {
            writing,
            refusal: Refusal::HostFull,
        },
        other => other,
    }
}

/// PUT: 204 when the file is stored and in its place.
pub async fn write(
    State(app): State<Arc<App>>,
    caller: Caller,
    Key(key): Key,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let body = Upload {
        awaits_continue: headers.contains_key(header::EXPECT),
        idle: Duration::from_secs(app.config.files.file_idle_secs),
        body: Some(body),
        end: Ok(()),
    };
    let path = path_parameter(query.as_deref().unwrap_or_default())?;
    refuse_conditions(&headers)?;
    let (runtime, path) = find(&app, &caller, &key, &path).await?;
    let shown = path.shown();
    let written = app
        .files
        .write(runtime, path, content_length(&headers), body);
    written
        .await
        .map_err(|error| ApiError::of_file(told_by_a_full_host(&app, error), &shown))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(
    app: &App,
    caller: &Caller,
    key: &str,
    path: &[u8],
) -> Result<(Arc<Runtime>, FilePath), ApiError> {
    let runtime = app.runtimes.get_with_files(caller.tenant, key).await?;
    let home = app.runtimes.identity(&runtime.settings)?.home;
    let path = FilePath::parse(path, home)?;
    Ok((runtime, path))
}

/// The bytes of `path`. Read here and not by an extractor, since a file's name need not be text and one that is replaced
/// would be another file's.
fn path_parameter(query: &str) -> Result<Vec<u8>, Invalid> {
    let mut values = query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name) == b"path").then(|| decoded(value))
    });
    match (values.next(), values.next()) {
        (Some(path), None) => Ok(path),
        (None, _) => Err(Invalid::new(
            "path",
            "is needed: the file inside the runtime",
        )),
        (Some(_), Some(_)) => Err(Invalid::new("path", "must be given once only")),
    }
}

/// As forms are encoded: a plus sign is a space.
fn decoded(text: &str) -> Vec<u8> {
    percent_decode(text.replace('+', " ").as_bytes()).collect()
}

/// A client that sends a part, or something that is to be unpacked, must not find it in the place of the whole; nor one that
/// sets a condition find the file replaced though that does not hold.
fn refuse_conditions(headers: &HeaderMap) -> Result<(), ApiError> {
    let whole = "is not supported: send the whole file";
    let condition = "is not supported: a file is replaced whatever it was before";
    for (name, problem) in [
        ("Content-Range", whole),
        ("If-Match", condition),
        ("If-None-Match", condition),
        ("If-Unmodified-Since", condition),
    ] {
        if headers.contains_key(name) {
            return Err(Invalid::new(name, problem).into());
        }
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(ApiError::invalid(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "`Content-Encoding` is not supported: send the file's own bytes",
        )),
        _ => Ok(()),
    }
}

/// The body of an answer. Its length is known, and a connection whose body ends before that is closed, so that nobody
/// takes a part for the whole.
struct Pieces {
    left: u64,
    download: Download,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let piece = ready!(self.download.pieces.poll_recv(context));
        if let Some(Ok(piece)) = &piece {
            self.left = self.left.saturating_sub(piece.len() as u64);
        }
        Poll::Ready(match piece {
            // The transfer was ended in the middle.
            None if self.left > 0 => Some(Err(Broken)),
            piece => piece.map(|piece| piece.map(Frame::data)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The body of a request.
struct Upload {
    /// None when nothing more comes.
    body: Option<Body>,
    /// How it ended, by then.
    end: Result<(), SourceError>,
    idle: Duration,
    /// The client sends nothing before it is asked to, which the first look at the body does.
    awaits_continue: bool,
}

impl Source for Upload {
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        self.awaits_continue = false;
        let Some(body) = &mut self.body else {
            return self.end.map(|()| None);
        };
        loop {
            self.end = match timeout(self.idle, body.frame()).await {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => return Ok(Some(bytes)),
                    // Trailers are nothing to store.
                    Err(_) => continue,
                },
                Ok(None) => Ok(()),
                // Fewer bytes than were announced, too, are an error.
                Ok(Some(Err(_))) => Err(SourceError::BrokenOff),
                Err(_) => Err(SourceError::Silent),
            };
            self.body = None;
            return self.end.map(|()| None);
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(body) = self.body.take()
            && !self.awaits_continue
        {
            linger(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_bytes() {
        let path = |query| path_parameter(query).unwrap();
        assert_eq!(path("path=/a%20b+c%2Bd"), b"/a b c+d");
        assert_eq!(path("x=1&path=%ff%00&y"), b"\xff\0");
        assert_eq!(path("path=a=b"), b"a=b");
        assert_eq!(path("path"), b"");
        assert_eq!(path("p%61th=x"), b"x");
    }

    #[test]
    fn there_is_one_path() {
        let problem = |query| path_parameter(query).unwrap_err().to_string();
        assert!(problem("").contains("`path` is needed"));
        assert!(problem("Path=x").contains("`path` is needed"));
        assert!(problem("path=a&path=b").contains("once"));
    }
}
