//! GET `/v1/execs/{id}/output`: what a command wrote, from any byte on, while it runs and afterwards. Memory stays flat: a
//! task reads a piece, and the next one when the client has taken that.

use super::App;
use super::auth::Caller;
use super::chunks::{self, Chunks};
use super::error::{ApiError, Code};
use super::exec_records::{ExecId, not_found};
use super::query::Params;
use crate::exec::{Kept, LiveExec, PIECE, Progress, Stream};
use crate::runtime::Invalid;
use crate::tenant::TenantId;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::sync::watch;
use uuid::Uuid;

/// Which bytes of which output: those from `from` up to `to`, as far as there are any.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    tenant: TenantId,
    id: Uuid,
    stream: Stream,
    from: u64,
    to: u64,
}

/// Where it is now.
enum Found {
    /// It ended.
    Ended(Kept),
    /// It runs, and writes to a file.
    Growing(watch::Receiver<Progress>),
    /// It runs, and what it writes can be read when it has ended.
    Hidden(LiveExec),
}

/// See the module. Where there are no bytes, such as beyond the end, the answer is empty.
pub async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    ExecId(id): ExecId,
    query: Params,
) -> Result<Response, ApiError> {
    let stream = match query.get("stream") {
        None => Stream::Stdout,
        Some(word) => Stream::BOTH
            .into_iter()
            .find(|stream| stream.as_str() == word)
            .ok_or_else(|| Invalid::one_of("stream", Stream::BOTH.map(Stream::as_str)))?,
    };
    let from = query.whole("offset")?.unwrap_or(0);
    let limit = query.whole("limit")?.unwrap_or(u64::MAX);
    let follow = query.boolean("follow")?.unwrap_or(false);
    let wanted = Wanted {
        tenant: caller.tenant,
        id,
        stream,
        from,
        to: from.saturating_add(limit),
    };
    let found = find(&app, wanted).await?;
    let available = match &found {
        Found::Ended(kept) => Some(length(kept)),
        _ if follow => None,
        Found::Growing(progress) => Some(progress.borrow().kept),
        Found::Hidden(_) => Some(0),
    };
    let to = available.map_or(wanted.to, |available| wanted.to.min(available));
    let wanted = Wanted { to, ..wanted };
    let (chunks, body) = chunks::channel(available.map(|_| to.saturating_sub(from)));
    tokio::spawn(async move {
        let sent = tokio::select! {
            sent = send(&app, wanted, found, &chunks) => sent,
            // A follower that leaves is not noticed by what it waits for.
            () = chunks.closed() => return,
        };
        if let Err(error) = sent {
            tracing::warn!(exec_id = %id, %error, "sending an exec's output");
            let _ = chunks.send(Err(error)).await;
        }
    });
    let octets = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((octets, body).into_response())
}

async fn find(app: &App, wanted: Wanted) -> Result<Found, ApiError> {
    let Wanted {
        tenant, id, stream, ..
    } = wanted;
    // First here: an exec is listed until its record has ended.
    if let Some(mut exec) = app.executor.running(tenant, id, stream) {
        return Ok(match exec.progress.take() {
            Some(progress) => Found::Growing(progress),
            None if exec.streamed => return Err(not_kept()),
            None => Found::Hidden(exec),
        });
    }
    let records = app.executor.records();
    let record = records.get(tenant, id).await?.ok_or_else(not_found)?;
    let kept = records.output(&record, stream).await?;
    kept.map(Found::Ended).ok_or_else(not_kept)
}

fn not_kept() -> ApiError {
    let message = "the output of this exec is not kept, or not any more";
    ApiError::new(Code::NotFound, message).detail("reason", "output_not_kept")
}

fn length(kept: &Kept) -> u64 {
    match kept {
        Kept::Memory(bytes) => bytes.len() as u64,
        Kept::File(_, length) => *length,
    }
}

async fn send(app: &App, wanted: Wanted, found: Found, to: &Chunks) -> io::Result<()> {
    let kept = match found {
        Found::Ended(kept) => kept,
        Found::Growing(progress) => return follow(app, wanted, progress, to).await,
        Found::Hidden(_) if wanted.from >= wanted.to => return Ok(()),
        Found::Hidden(exec) => {
            exec.ended().await;
            match find(app, wanted).await {
                Ok(Found::Ended(kept)) => kept,
                _ => return Err(io::Error::other("the output was not kept")),
            }
        }
    };
    let end = wanted.to.min(length(&kept));
    match kept {
        Kept::Memory(bytes) if wanted.from < end => {
            let _ = to
                .send(Ok(bytes.slice(wanted.from as usize..end as usize)))
                .await;
            Ok(())
        }
        Kept::Memory(_) => Ok(()),
        Kept::File(file, _) => copy(&file, wanted.from, end, to).await.map(drop),
    }
}

/// Sends what is in the file, and what comes, until all that is wanted is sent or nothing can come any more.
async fn follow(
    app: &App,
    wanted: Wanted,
    mut progress: watch::Receiver<Progress>,
    to: &Chunks,
) -> io::Result<()> {
    let mut at = wanted.from;
    let mut file = None;
    loop {
        // Asked before the look at the progress: what comes between the two is seen by the next look.
        let ended = progress.has_changed().is_err();
        let end = progress.borrow_and_update().kept.min(wanted.to);
        if at < end {
            let file = match &file {
                Some(file) => file,
                None => file.insert(open(app, wanted).await?),
            };
            at = copy(file, at, end, to).await?;
        }
        if ended || at >= wanted.to {
            return Ok(());
        }
        // Its end is seen above.
        let _ = progress.changed().await;
    }
}

async fn open(app: &App, wanted: Wanted) -> io::Result<Arc<File>> {
    let outputs = app.executor.records().outputs().clone();
    let open = move || outputs.file(wanted.id, wanted.stream);
    let opened = tokio::task::spawn_blocking(open).await;
    match opened.map_err(io::Error::other).flatten()? {
        Some((file, _)) => Ok(file.into()),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Sends the bytes from `at` up to `end`, which the file holds; tells where it stopped.
async fn copy(file: &Arc<File>, mut at: u64, end: u64, to: &Chunks) -> io::Result<u64> {
    while at < end {
        let (file, count) = (file.clone(), (end - at).min(PIECE as u64) as usize);
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; count];
            file.read_exact_at(&mut bytes, at)?;
            io::Result::Ok(Bytes::from(bytes))
        });
        let bytes = read.await.map_err(io::Error::other).flatten()?;
        at += bytes.len() as u64;
        if to.send(Ok(bytes)).await.is_err() {
            break;
        }
    }
    Ok(at)
}
