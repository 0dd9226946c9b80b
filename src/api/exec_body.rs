//! The exec body. Unknown fields are refused: a limit that is silently ignored is the worst mistake a client can make.

use super::error::ApiError;
use super::fields::Fields;
use crate::exec::ExecRequest;
use crate::runtime::Invalid;
use serde_json::value::RawValue;

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

/// Reads the body's fields; what they mean is checked later.
pub fn parse(body: &RawValue) -> Result<ExecRequest, ApiError> {
    let fields = Fields::of_body(body, FIELDS)?;
    fields.deny_unknown()?;
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
        detach: fields.boolean("detach")?.unwrap_or(false),
        ..ExecRequest::default()
    })
}
