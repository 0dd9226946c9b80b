//! POST `/v1/runtimes/{runtime}/exec`: the buffered exec, or its events, see [`events`].

use super::App;
use super::answer;
use super::auth::Caller;
use super::body::JsonBody;
use super::error::{ApiError, Code};
use super::events;
use super::fields::Fields;
use super::runtimes::{Key, refuse_idempotency_key};
use crate::exec::{ExecRequest, Identity, Io};
use crate::runtime::{Invalid, Profile, Runtime};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::value::RawValue;
use std::sync::Arc;

const FIELDS: &[&str] = &[
    "command",
    "args",
    "cwd",
    "env",
    "stdin",
    "stdin_base64",
    "timeout_secs",
    "max_output_bytes",
    "output_encoding",
    "limits",
    "detach",
];

/// Runs a command and answers when it has ended. A client that hangs up makes this future be dropped, and so the command
/// be killed.
pub async fn exec(
    State(app): State<Arc<App>>,
    caller: Caller,
    Key(key): Key,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, ApiError> {
    refuse_idempotency_key(&headers)?;
    let request = parse(body.json()?)?;
    let events = events::wanted(&headers, &request)?;
    let runtime = app.runtimes.get_running(caller.tenant, &key).await?;
    let profile = profile(&app, &runtime)?;
    let identity = Identity {
        user: &profile.user,
        home: &profile.home,
    };
    let mut valid = request.validate(&runtime.settings, identity, &app.config.exec)?;
    let encoding = valid.encoding;
    if let Some(events) = events {
        return events::respond(&app, events, runtime, valid, body).await;
    }
    // The body's memory is given back only when the command's own is set aside.
    let permit = app.executor.admit(&runtime, &valid).await?;
    drop(body);
    let io = Io::buffered(&mut valid);
    let mut execution = app.executor.start(permit, runtime, valid, io);
    let finished = execution.finished().await?;
    answer::answer(finished, encoding)
}

fn parse(body: &RawValue) -> Result<ExecRequest, ApiError> {
    let fields = Fields::of_body(body, FIELDS)?;
    fields.deny_unknown()?;
    if fields.boolean("detach")? == Some(true) {
        return Err(ApiError::unimplemented(
            Some("detach"),
            "`detach` is not supported yet; nothing was run",
        ));
    }
    Ok(ExecRequest {
        stdin: fields.string("stdin")?,
        stdin_base64: fields.string("stdin_base64")?,
        max_output_bytes: fields.whole("max_output_bytes")?,
        output_encoding: fields.string("output_encoding")?,
        ..common(&fields)?
    })
}

/// The fields that every way to run a command has.
pub fn common(fields: &Fields<'_>) -> Result<ExecRequest, ApiError> {
    let limits = fields.object("limits", &["memory_mib", "pids", "cpu_secs"])?;
    if let Some(limits) = &limits {
        limits.deny_unknown()?;
    }
    let limit = |name| {
        limits
            .as_ref()
            .map_or(Ok(None), |limits| limits.whole(name))
    };
    let command = fields
        .string("command")?
        .ok_or_else(|| Invalid::new("command", "is needed: the executable to run"))?;
    Ok(ExecRequest {
        command,
        args: fields.strings("args")?.unwrap_or_default(),
        cwd: fields.string("cwd")?,
        env: fields.string_map("env")?.unwrap_or_default(),
        timeout_secs: fields.whole("timeout_secs")?,
        memory_mib: limit("memory_mib")?,
        pids: limit("pids")?,
        cpu_secs: limit("cpu_secs")?,
        ..ExecRequest::default()
    })
}

/// The profile of a runtime, which says who its commands are.
pub fn profile<'a>(app: &'a App, runtime: &Runtime) -> Result<&'a Profile, ApiError> {
    app.runtimes.profile(&runtime.settings).ok_or_else(|| {
        ApiError::new(
            Code::FailedPrecondition,
            "the runtime's sandbox profile does not exist any more",
        )
    })
}
