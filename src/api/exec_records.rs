//! `/v1/execs`: list, show and cancel.

use super::App;
use super::auth::Caller;
use super::chunks;
use super::error::{ApiError, Code};
use super::exec_view::UsageView;
use super::query::{Params, answer_page, pagination};
use crate::exec::{OUTCOMES, RUNNING, Record, Stream};
use crate::runtime::{Invalid, Page};
use crate::store::ExecFilter;
use crate::tenant::TenantId;
use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Records read at once where no limit is given.
const BATCH: usize = 100;

/// How long a cancelled command may take to be gone before the answer comes nevertheless.
const CANCEL_WAIT: Duration = Duration::from_secs(5);

/// An exec's id in the path. What is no id is nobody's exec.
#[derive(Debug, Clone, Copy)]
pub struct ExecId(pub Uuid);

impl FromRequestParts<Arc<App>> for ExecId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, app).await;
        let id = path.ok().and_then(|Path(id)| Uuid::parse_str(&id).ok());
        id.map(Self).ok_or_else(not_found)
    }
}

/// There is no such exec in the tenant.
pub fn not_found() -> ApiError {
    ApiError::new(Code::NotFound, "the exec was not found")
}

/// GET `/v1/execs`
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    query: Params,
) -> Result<Response, ApiError> {
    let filter = ExecFilter {
        runtime: query.get("runtime").map(str::to_owned),
        outcomes: query
            .get("outcome")
            .map(outcomes)
            .transpose()?
            .unwrap_or_default(),
        since: query.get("since").map(since).transpose()?,
    };
    let request = query.page(&caller, "execs")?;
    let batch = request.limit.unwrap_or(BATCH);
    let (records, found) = app
        .executor
        .records()
        .list(
            caller.tenant,
            filter.clone(),
            request.after,
            request.offset as u64,
            batch as u64,
        )
        .await?;
    let (offset, total) = (found.offset as usize, found.total as usize);
    let rest = request.limit.is_none() && offset + records.len() < total;
    if !rest {
        let page = Page::of(records, offset, total, &request, |record| record.id);
        return Ok(Json(answer_page(&page, |record| view(&app, record))).into_response());
    }
    // All of them, however many: written while they are read.
    let (to, body) = chunks::channel(None);
    let end = Page::of(Vec::new(), offset, total, &request, |record: &Record| {
        record.id
    });
    tokio::spawn(async move {
        let written = write_all(&app, caller.tenant, filter, records, &end, &to).await;
        if let Err(error) = written {
            let _ = to.send(Err(std::io::Error::other(error))).await;
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Writes the records and all that follow them. A reader that goes away is no error.
async fn write_all(
    app: &App,
    tenant: TenantId,
    filter: ExecFilter,
    mut records: Vec<Record>,
    end: &Page<Record>,
    to: &chunks::Chunks,
) -> Result<(), crate::store::StoreError> {
    let mut text = String::from("{\"data\":[");
    let mut separator = "";
    while let Some(last) = records.last().map(|record| record.id) {
        for record in &records {
            text += separator;
            text += &view(app, record).to_string();
            separator = ",";
        }
        if to.send(Ok(std::mem::take(&mut text).into())).await.is_err() {
            return Ok(());
        }
        let all = app.executor.records();
        let next = all.list_after(tenant, filter.clone(), last, BATCH as u64);
        records = next.await?;
    }
    text += &format!("],\"pagination\":{}}}", pagination(end));
    let _ = to.send(Ok(text.into())).await;
    Ok(())
}

/// GET `/v1/execs/{id}`
pub async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    ExecId(id): ExecId,
) -> Result<Json<Value>, ApiError> {
    let record = app.executor.records().get(caller.tenant, id).await?;
    let record = record.ok_or_else(not_found)?;
    Ok(Json(json!({ "data": view(&app, &record) })))
}

/// DELETE `/v1/execs/{id}`: ends the command. Its record stays, and ending it twice is no error.
pub async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller,
    ExecId(id): ExecId,
) -> Result<Json<Value>, ApiError> {
    match app.executor.running(caller.tenant, id, Stream::Stdout) {
        Some(exec) => {
            exec.cancel();
            if tokio::time::timeout(CANCEL_WAIT, exec.ended())
                .await
                .is_err()
            {
                tracing::warn!(exec_id = %id, "a cancelled command takes long to end");
            }
        }
        None => {
            let record = app.executor.records().get(caller.tenant, id).await?;
            record.ok_or_else(not_found)?;
        }
    }
    Ok(Json(json!({ "data": {} })))
}

pub(super) fn outcomes(list: &str) -> Result<Vec<String>, Invalid> {
    let words = list.split(',').map(str::trim);
    words
        .filter(|word| !word.is_empty())
        .map(|word| match OUTCOMES.contains(&word) {
            true => Ok(word.to_owned()),
            false => Err(Invalid::one_of("outcome", OUTCOMES)),
        })
        .collect()
}

/// A time in milliseconds since 1970, rounded up.
pub(super) fn since(text: &str) -> Result<i64, Invalid> {
    // A plus sign in a query string means a space.
    let time: jiff::Timestamp = text.replace(' ', "+").parse().map_err(|_| {
        Invalid::new(
            "since",
            "must be a time of RFC 3339, such as 2026-01-31T12:00:00Z",
        )
    })?;
    let nanos = time.as_nanosecond();
    Ok(
        i64::try_from(nanos.div_euclid(1_000_000)).unwrap_or(i64::MAX)
            + i64::from(nanos.rem_euclid(1_000_000) > 0),
    )
}

pub(super) fn rfc3339(millis: i64) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(millis).ok()?;
    Some(format!("{time:.3}"))
}

/// The record object.
fn view(app: &App, record: &Record) -> Value {
    let report = &record.report;
    let (mut stdout_bytes, mut stderr_bytes) = (report.stdout_bytes, report.stderr_bytes);
    if record.outcome == RUNNING {
        [stdout_bytes, stderr_bytes] = app.executor.written(record.id);
    }
    let truncated = |bytes: Option<u64>, kept| bytes.map(|bytes| bytes > kept);
    // Of what goes to a client as it comes there is no cap here.
    let capped = report.exit_code.is_some() && !report.streamed;
    json!({
        "exec_id": record.id,
        "runtime_id": record.runtime,
        "runtime": record.runtime_name,
        "command": record.command,
        "detached": record.detached,
        "started_at": rfc3339(record.started_at()),
        "ended_at": record.ended_at.and_then(rfc3339),
        "duration_ms": report.duration_ms,
        "outcome": record.outcome,
        "exit_code": report.exit_code,
        "signal": report.signal,
        "timed_out": record.outcome == "timed_out",
        "oom_killed": record.outcome == "oom_killed",
        "stdout_bytes": stdout_bytes,
        "stderr_bytes": stderr_bytes,
        "stdout_truncated": capped.then(|| truncated(stdout_bytes, report.stdout_kept)),
        "stderr_truncated": capped.then(|| truncated(stderr_bytes, report.stderr_kept)),
        "output_kept": record.output_kept(),
        "usage": report.usage.map(UsageView::from),
        "error": report.error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_takes_what_rfc_3339_allows() {
        assert_eq!(since("1970-01-01T00:00:01Z").unwrap(), 1000);
        assert_eq!(since("1970-01-01T00:00:00.0001Z").unwrap(), 1);
        assert_eq!(since("1970-01-01T01:00:00+01:00").unwrap(), 0);
        // As it arrives when somebody forgot to escape the plus sign.
        assert_eq!(since("1970-01-01T01:00:00 01:00").unwrap(), 0);
        for wrong in ["", "yesterday", "2026-01-01", "2026-01-01T00:00:00", "1"] {
            assert_eq!(since(wrong).unwrap_err().field, "since", "{wrong}");
        }
    }

    #[test]
    fn outcomes_are_a_list_of_known_words() {
        assert_eq!(outcomes("exited, unknown,").unwrap(), ["exited", "unknown"]);
        assert_eq!(outcomes("ended").unwrap_err().field, "outcome");
    }
}
