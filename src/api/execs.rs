//! POST `/v1/runtimes/{runtime}/exec`: the buffered exec.

use super::App;
use super::auth::Caller;
use super::body::JsonBody;
use super::error::{ApiError, Code};
use super::fields::Fields;
use super::runtimes::{Key, refuse_idempotency_key};
use crate::exec::{
    BufferReservation, Captured, ExecRequest, Finished, Identity, Lossy, Outcome, OutputEncoding,
    cut,
};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use base64::display::Base64Display;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Serialize, Serializer};
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

/// Answers larger than this are written on a thread where that disturbs nobody.
const LARGE: usize = 1024 * 1024;

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
    let valid = request.validate(&runtime.settings, identity, &app.config.exec)?;
    let encoding = valid.encoding;
    // The body's memory is given back only when the command's own is set aside.
    let permit = app.executor.admit(&runtime, &valid).await?;
    drop(body);
    let finished = app.executor.run(permit, runtime, valid).await?;
    answer(finished, encoding).await
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

#[derive(Serialize)]
struct Envelope<'a> {
    data: View<'a>,
}

#[derive(Serialize)]
struct View<'a> {
    duration_ms: u64,
    exit_code: u8,
    stdout: Output<'a>,
    stderr: Output<'a>,
    stdout_truncated: bool,
    stderr_truncated: bool,
    exec_id: uuid::Uuid,
    outcome: &'static str,
    signal: Option<&'a str>,
    timed_out: bool,
    oom_killed: bool,
    stdout_bytes: u64,
    stderr_bytes: u64,
    output_encoding: &'static str,
    usage: UsageView,
}

#[derive(Serialize)]
struct UsageView {
    cpu_ms: u64,
    user_ms: u64,
    system_ms: u64,
    peak_memory_bytes: u64,
    peak_pids: Option<u64>,
}

/// Output on its way into JSON, without a copy between.
struct Output<'a> {
    captured: &'a Captured,
    encoding: OutputEncoding,
}

impl Serialize for Output<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kept = &self.captured.kept;
        match self.encoding {
            OutputEncoding::Utf8 => {
                Lossy(cut(kept, self.captured.truncated())).serialize(serializer)
            }
            OutputEncoding::Base64 => {
                serializer.collect_str(&Base64Display::new(kept, &BASE64_STANDARD))
            }
        }
    }
}

async fn answer(finished: Finished, encoding: OutputEncoding) -> Result<Response, ApiError> {
    let large = finished.stdout.kept.len() + finished.stderr.kept.len() > LARGE;
    let written = if large {
        let task = tokio::task::spawn_blocking(move || write(finished, encoding));
        task.await.map_err(|error| ApiError::internal(&error))?
    } else {
        write(finished, encoding)
    };
    let bytes = written.map_err(|error| ApiError::internal(&error))?;
    Ok((
        [(header::CONTENT_TYPE, "application/json")],
        Body::from(bytes),
    )
        .into_response())
}

/// The answer, holding on to the memory set aside for it until it is sent or its client is gone.
struct Written {
    json: Vec<u8>,
    _reservation: BufferReservation,
}

impl AsRef<[u8]> for Written {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

fn write(finished: Finished, encoding: OutputEncoding) -> Result<Bytes, serde_json::Error> {
    let Finished {
        exec_id,
        verdict,
        duration_ms,
        stdout,
        stderr,
        usage,
        reservation,
    } = finished;
    let output = |captured| Output { captured, encoding };
    let json = serde_json::to_vec(&Envelope {
        data: View {
            duration_ms,
            exit_code: verdict.exit_code,
            stdout: output(&stdout),
            stderr: output(&stderr),
            stdout_truncated: stdout.truncated(),
            stderr_truncated: stderr.truncated(),
            exec_id,
            outcome: verdict.outcome.as_str(),
            signal: verdict.signal.as_deref(),
            timed_out: verdict.outcome == Outcome::TimedOut,
            oom_killed: verdict.outcome == Outcome::OomKilled,
            stdout_bytes: stdout.total,
            stderr_bytes: stderr.total,
            output_encoding: match encoding {
                OutputEncoding::Utf8 => "utf8",
                OutputEncoding::Base64 => "base64",
            },
            usage: UsageView {
                cpu_ms: usage.cpu_us / 1000,
                user_ms: usage.user_us / 1000,
                system_ms: usage.system_us / 1000,
                peak_memory_bytes: usage.peak_memory_bytes,
                peak_pids: usage.peak_pids,
            },
        },
    })?;
    Ok(Bytes::from_owner(Written {
        json,
        _reservation: reservation,
    }))
}
