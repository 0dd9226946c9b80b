//! POST `/v1/runtimes/{runtime}/exec`: the buffered exec.

use super::App;
use super::answer;
use super::auth::Caller;
use super::body::JsonBody;
use super::error::{ApiError, Code};
use super::fields::Fields;
use super::runtimes::{Key, refuse_idempotency_key};
use crate::exec::{ExecRequest, Identity, Io};
use axum::extract::State;
use axum::http::{HeaderMap, header};
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
    refuse_event_stream(&headers)?;
    let request = parse(body.json()?)?;
    let runtime = app.runtimes.get_running(caller.tenant, &key).await?;
    let profile = app.runtimes.profile(&runtime.settings).ok_or_else(|| {
        ApiError::new(
            Code::FailedPrecondition,
            "the runtime's sandbox profile does not exist any more",
        )
    })?;
    let identity = Identity {
        user: &profile.user,
        home: &profile.home,
    };
    let mut valid = request.validate(&runtime.settings, identity, &app.config.exec)?;
    let encoding = valid.encoding;
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
    let limits = fields.object("limits", &["memory_mib", "pids", "cpu_secs"])?;
    if let Some(limits) = &limits {
        limits.deny_unknown()?;
    }
    let limit = |name| {
        limits
            .as_ref()
            .map_or(Ok(None), |limits| limits.whole(name))
    };
    let command = fields.string("command")?.ok_or_else(|| {
        crate::runtime::Invalid::new("command", "is needed: the executable to run")
    })?;
    Ok(ExecRequest {
        command,
        args: fields.strings("args")?.unwrap_or_default(),
        cwd: fields.string("cwd")?,
        env: fields.string_map("env")?.unwrap_or_default(),
        stdin: fields.string("stdin")?,
        stdin_base64: fields.string("stdin_base64")?,
        timeout_secs: fields.whole("timeout_secs")?,
        max_output_bytes: fields.whole("max_output_bytes")?,
        output_encoding: fields.string("output_encoding")?,
        memory_mib: limit("memory_mib")?,
        pids: limit("pids")?,
        cpu_secs: limit("cpu_secs")?,
    })
}

/// A client that asks for events would not understand the one answer that there is so far.
fn refuse_event_stream(headers: &HeaderMap) -> Result<(), ApiError> {
    let wanted = headers.get_all(header::ACCEPT).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.contains("text/event-stream"))
    });
    if wanted {
        return Err(ApiError::unimplemented(
            Some("Accept"),
            "`Accept: text/event-stream` is not supported yet; nothing was run",
        ));
    }
    Ok(())
}
