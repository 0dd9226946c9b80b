//! POST `/v1/runtimes/{runtime}/exec`: the buffered exec, and the detached one.

use super::App;
use super::answer::Answer;
use super::auth::Caller;
use super::body::JsonBody;
use super::error::{ApiError, Code};
use super::events;
use super::exec_body;
use super::idempotency::{self, MaybeKey, Name, Turn};
use super::request_id::RequestId;
use super::runtimes::Key;
use super::slow;
use crate::config::ExecBounds;
use crate::exec::{
    ExecRequest, Execution, Input, Io, Kept, LiveOutput, OutputEncoding, Permit, Start, Stream,
    UNKNOWN, ValidExec,
};
use crate::metrics::{METRICS, Phase};
use crate::runtime::{Identity, Invalid, Runtime, Settings};
use crate::store::{ExecFilter, KeyRow};
use crate::tenant::TenantId;
use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// How long a detached exec may take to start before it is answered nevertheless: its runtime is being mounted, or its disk
/// copied. The record says what becomes of it.
const START_PATIENCE: Duration = Duration::from_secs(1);

/// How long a detached exec that names a working directory may turn out to be impossible before it is answered.
const GRACE: Duration = Duration::from_millis(100);

/// Runs a command and answers when it has ended, or at once. A client that hangs up before makes the wait be dropped, and
/// so the command be killed.
pub async fn exec(
    State(app): State<Arc<App>>,
    caller: Caller,
    Key(runtime): Key,
    MaybeKey(key): MaybeKey,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let known = Instant::now();
    let begin = known + slow::PATIENCE;
    METRICS.phase(Phase::Auth, request_id.1.elapsed());
    let wanted = Wanted {
        tenant: caller.tenant,
        known,
        runtime,
        request: exec_body::parse(body.json()?)?,
        body,
    };
    let events = events::wanted(&headers, &wanted.request, key.as_deref())?;
    if let Some(events) = events {
        return events::respond(&app, wanted, events, begin).await;
    }
    let Some(key) = key else {
        let detach = wanted.detach();
        let (mut execution, encoding) = start(&app, wanted, None).await?;
        if let Some(grace) = detach {
            return Ok(started(execution, grace).await?.into_response());
        }
        let ended = async move { Answer::of_finished(execution.finished().await?, encoding) };
        return slow::reply(ended, begin, request_id).await;
    };
    let name = Name {
        tenant: caller.tenant,
        scope: format!("exec {}", runtime_id(&app, &wanted).await?),
        key,
    };
    let hash = idempotency::hash(&wanted.request);
    let work = |app: Arc<App>, turn| async move { exec_once(&app, wanted, turn).await };
    let ended = idempotency::once(&app, name, hash, work).await?;
    slow::reply(ended, begin, request_id).await
}

/// A request whose types are right.
pub struct Wanted {
    /// Whose token it was.
    pub tenant: TenantId,
    /// When that was known.
    pub known: Instant,
    /// The runtime, as the client named it.
    pub runtime: String,
    /// What is to be run.
    pub request: ExecRequest,
    /// Where the request came from: its memory is given back only when the command's own is set aside.
    pub body: JsonBody,
}

impl Wanted {
    /// Whether it is detached; if so, how long it may turn out to be impossible before it is answered.
    fn detach(&self) -> Option<Duration> {
        let names_cwd = self.request.cwd.is_some();
        let grace = if names_cwd { GRACE } else { Duration::ZERO };
        self.request.detach.then_some(grace)
    }
}

/// Checks, admits and starts it.
async fn start(
    app: &App,
    wanted: Wanted,
    turn: Option<&Turn>,
) -> Result<(Execution, OutputEncoding), ApiError> {
    let Wanted {
        tenant,
        known,
        runtime,
        request,
        body,
    } = wanted;
    let (runtime, mut exec) = check(app, tenant, &runtime, |settings, identity, bounds| {
        request.validate(settings, identity, bounds)
    })
    .await?;
    let encoding = exec.encoding;
    let permit = app.executor.admit(&runtime, &exec).await?;
    METRICS.phase(Phase::Admit, known.elapsed());
    drop(body);
    let exec_id = Uuid::now_v7();
    let start = Start {
        exec_id,
        permit,
        io: streams(app, &mut exec, exec_id),
        runtime,
        exec,
        key: turn.map(|turn| turn.key_for(exec_id)),
    };
    Ok((app.executor.start(start), encoding))
}

/// The runtime, which must run, and what its rules make of a request.
pub async fn check<T>(
    app: &App,
    tenant: TenantId,
    runtime: &str,
    validate: impl FnOnce(&Settings, Identity<'_>, &ExecBounds) -> Result<T, Invalid>,
) -> Result<(Arc<Runtime>, T), ApiError> {
    let runtime = app.runtimes.get_running(tenant, runtime).await?;
    let identity = app.runtimes.identity(&runtime.settings)?;
    let valid = validate(&runtime.settings, identity, &app.config.exec)?;
    Ok((runtime, valid))
}

/// Starts a command whose client reads along. A detached one goes on from here on, whatever becomes of the client.
pub fn start_live(
    app: &App,
    permit: Permit,
    runtime: Arc<Runtime>,
    mut exec: ValidExec,
    stdin: Input,
) -> (Execution, LiveOutput) {
    let exec_id = Uuid::now_v7();
    let detach = exec.detach;
    let outputs = app.executor.records().outputs();
    let (io, output) = Io::streamed(&mut exec, stdin, outputs, exec_id).live();
    let start = Start {
        exec_id,
        permit,
        runtime,
        exec,
        io,
        key: None,
    };
    let mut execution = app.executor.start(start);
    if detach {
        execution.detach();
    }
    (execution, output)
}

fn streams(app: &App, exec: &mut ValidExec, exec_id: Uuid) -> Io {
    match exec.detach {
        true => Io::spooled(exec, app.executor.records().outputs(), exec_id),
        false => Io::buffered(exec),
    }
}

/// Lets a detached exec go on alone, and answers.
async fn started(mut execution: Execution, grace: Duration) -> Result<Answer, ApiError> {
    let exec_id = execution.exec_id;
    // From here on a client that hangs up changes nothing.
    execution.detach();
    if timeout(START_PATIENCE, execution.begun()).await.is_ok() {
        execution.started().await?;
        // What is wrong with the working directory shows a moment after the start.
        if timeout(grace, execution.ended()).await.is_ok() {
            execution.refused().await?;
        }
    }
    Ok(running(exec_id))
}

fn running(exec_id: Uuid) -> Answer {
    let data = json!({ "exec_id": exec_id, "outcome": crate::exec::RUNNING });
    Answer::text(json!({ "data": data }).to_string())
}

/// The id of the runtime that is meant. One that was deleted still has the answers that it gave.
async fn runtime_id(app: &App, wanted: &Wanted) -> Result<Uuid, ApiError> {
    let missing = match app.runtimes.get(wanted.tenant, &wanted.runtime) {
        Ok(runtime) => return Ok(runtime.id),
        Err(error) => error,
    };
    if let Ok(id) = Uuid::parse_str(&wanted.runtime) {
        return Ok(id);
    }
    let named = ExecFilter {
        runtime: Some(wanted.runtime.clone()),
        ..ExecFilter::default()
    };
    let records = app.executor.records();
    let (newest, _) = records.list(wanted.tenant, named, None, 0, 1).await?;
    newest
        .first()
        .map(|record| record.runtime)
        .ok_or_else(|| missing.into())
}

/// Runs the command of a key, unless that was done before.
async fn exec_once(app: &App, wanted: Wanted, turn: Turn) -> Result<Answer, ApiError> {
    let detach = wanted.detach();
    if let Some(row) = &turn.found {
        return match detach {
            Some(_) => Ok(running(row.subject)),
            None => replay(app, wanted, row).await,
        };
    }
    let (mut execution, encoding) = tokio::select! {
        started = start(app, wanted, Some(&turn)) => started?,
        () = turn.abandoned() => return Err(nobody_waits()),
    };
    if let Some(grace) = detach {
        return started(execution, grace).await;
    }
    let finished = tokio::select! {
        finished = execution.finished() => finished,
        () = turn.abandoned() => {
            execution.abandon();
            execution.finished().await
        }
    };
    Answer::of_finished(finished?, encoding)
}

/// The stored outcome of a key's command.
async fn replay(app: &App, wanted: Wanted, row: &KeyRow) -> Result<Answer, ApiError> {
    let records = app.executor.records();
    let Some(record) = records.get(wanted.tenant, row.subject).await? else {
        return Err(not_told(row.subject, UNKNOWN, "record_not_kept"));
    };
    if record.report.exit_code.is_none() {
        // Of a command that runs somebody here would know.
        return Err(not_told(record.id, UNKNOWN, "interrupted"));
    }
    let output = async |stream| {
        let kept = records.output(&record, stream).await?;
        kept.ok_or_else(|| not_told(record.id, &record.outcome, "output_not_kept"))
    };
    let outputs: [Kept; 2] = [output(Stream::Stdout).await?, output(Stream::Stderr).await?];
    Answer::of_record(&record, outputs, wanted.request.encoding()?)
}

fn not_told(exec_id: Uuid, outcome: &str, reason: &str) -> ApiError {
    let message = match reason {
        "interrupted" => {
            "the command of this `Idempotency-Key` was interrupted; whether and how it ended is unknown, and it is not \
             run again: use a new key to run it"
        }
        _ => {
            "the command of this `Idempotency-Key` ended, but its answer is not kept any more, and it is not run again: \
             use a new key to run it"
        }
    };
    ApiError::with_reason(Code::FailedPrecondition, reason, message)
        .detail("exec_id", exec_id.to_string())
        .detail("outcome", outcome)
}

fn nobody_waits() -> ApiError {
    ApiError::with_reason(
        Code::Unavailable,
        "abandoned",
        "everybody who waited for this request has gone; nothing was run",
    )
}
