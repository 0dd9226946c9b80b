//! Commands and their records.

use crate::api::openapi::errors::{Fails, JsonBody, Work};
use crate::api::openapi::schemas::common::{
    Data, Empty, IdempotencyKey, List, Paging, RawBytes, RuntimeKey,
};
use crate::api::openapi::schemas::exec::{ExecAnswer, ExecRequest};
use crate::api::openapi::schemas::record::{ExecFilter, ExecRecord, OutputRange};

/// Run a command
///
/// Answers when the command's main process is gone; whatever it left behind is killed. A command that does not exist, fails,
/// or runs out of time or memory is a result, too, with status 200. The command is killed when the client hangs up, unless
/// `detach` is true: then its id is answered when it has started, and the command runs to its end or its timeout.
///
/// A command that runs for more than ten seconds is answered 200 before its end is known, with a space every five seconds
/// ahead of the JSON; an error after that is the JSON of an error in that answer.
///
/// With `Accept: text/event-stream`, unless JSON is preferred there (`q`), the answer is the command's output as it comes: the
/// frames of the WebSocket that the server sends there, each as an event named by its `type`, and a comment in every ten
/// seconds of silence. What can't be
/// started is refused as ever; what goes wrong later is an `error` event. `output_encoding` must be `base64` or left out then,
/// and there can be no `Idempotency-Key`.
#[utoipa::path(
    post, path = "/v1/runtimes/{runtime}/exec", tag = "execs",
    params(RuntimeKey, IdempotencyKey),
    request_body(content = ExecRequest, examples(
        ("shell" = (summary = "A shell line", value = json!({"command": "echo hello; id"}))),
        ("argv" = (summary = "An executable and its arguments", value = json!({
            "command": "sort", "args": ["-r"], "stdin": "a\nb\n", "env": {"LC_ALL": "C"}, "cwd": "/tmp", "timeout_secs": 5,
        }))),
        ("limits" = (summary = "Below the runtime's limits", value = json!({
            "command": "true", "limits": {"memory_mib": 64, "pids": 8, "cpu_secs": 1}, "output_encoding": "base64",
            "max_output_bytes": 1024,
        }))),
    )),
    responses(
        (status = 200, description = "What came of it.", content(
            (Data<ExecAnswer> = "application/json"), (String = "text/event-stream"),
        )),
        JsonBody, Fails<404>, Fails<409>, Fails<429>, Fails<504>, Work,
    ),
)]
pub fn exec_runtime() {}

/// Run a command in a WebSocket
///
/// One JSON object per text frame, with a `type`; bytes are in `data_base64`. The client's first frame is `start`, with
/// `command`, `args`, `env`, `cwd`, `tty`, `rows`, `cols`, `timeout_secs`, `limits`, `detach` and `stdin` (`pipe` or `none`); no
/// shell is involved. Then it may send `stdin`, `close_stdin`, `signal` (`signal`: INT, TERM, HUP, QUIT, USR1, USR2 or KILL),
/// `resize` (`rows`, `cols`) and `heartbeat`. The server sends `started` (`exec_id`) to `detach`, `stdout` and `stderr`,
/// `heartbeat` after ten seconds of silence, and at last `exit` (`code`, and what `POST …/exec` answers but the output) or
/// `error` (`message`, `code`, `details`). There can be no `Idempotency-Key`.
#[utoipa::path(
    get, path = "/v1/runtimes/{runtime}/exec/stream", tag = "execs",
    params(RuntimeKey),
    responses((status = 101, description = "The stream begins."), Fails<404>, Fails<409>, Fails<422>, Fails<503>),
)]
pub fn exec_stream() {}

/// List execs
#[utoipa::path(
    get, path = "/v1/execs", tag = "execs",
    params(ExecFilter, Paging),
    responses((status = 200, description = "Records, newest first.", body = List<ExecRecord>), Fails<422>, Work),
)]
pub fn list_execs() {}

/// Show an exec
#[utoipa::path(
    get, path = "/v1/execs/{id}", tag = "execs",
    params(("id" = String, Path, description = "The exec's id", min_length = 1)),
    responses((status = 200, description = "The record.", body = Data<ExecRecord>), Fails<404>, Work),
)]
pub fn get_exec() {}

/// Cancel an exec
///
/// Ends the command; its record stays. Of a command that has ended nothing changes.
#[utoipa::path(
    delete, path = "/v1/execs/{id}", tag = "execs",
    params(("id" = String, Path, description = "The exec's id", min_length = 1)),
    responses((status = 200, description = "It was told to end.", body = Data<Empty>), Fails<404>, Work),
)]
pub fn cancel_exec() {}

/// Read an exec's output
///
/// Where there are no bytes, such as beyond the end, the answer is empty. The output of a command that runs can be read as
/// far as it is kept, if it is detached; with `follow` the answer goes on until the command ends. Output that is not kept, or
/// not any more, is 404 with the reason `output_not_kept`.
#[utoipa::path(
    get, path = "/v1/execs/{id}/output", tag = "execs",
    params(("id" = String, Path, description = "The exec's id", min_length = 1), OutputRange),
    responses(
        (status = 200, description = "The bytes.", body = RawBytes, content_type = "application/octet-stream"),
        Fails<404>, Fails<422>, Work,
    ),
)]
pub fn get_exec_output() {}
