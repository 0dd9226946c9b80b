//! The buffered exec.

use super::common::Variables;
use utoipa::ToSchema;

/// A command. All but `command` may be left out or null; an unknown field is refused, and
/// one that is given twice.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// An executable, looked up on the runtime's PATH. Without `args`, a line that names no executable and holds whitespace
    /// or a shell's metacharacter is run by `sh -lc`.
    #[schema(min_length = 1, max_length = 131_071, pattern = "^[^\\u0000]*$")]
    command: String,
    /// Its arguments. With the environment, at most 2 MiB.
    args: Option<Vec<Argument>>,
    /// The working directory, which must exist; absolute, or relative to the home that is used if left out.
    #[schema(min_length = 1, max_length = 4095, pattern = "^[^\\u0000]*$")]
    cwd: Option<String>,
    /// Added to the runtime's own variables.
    env: Option<Variables>,
    /// What the command reads; immediate end of file if left out.
    stdin: Option<String>,
    /// As `stdin`, in padded base64; one of the two at most.
    #[schema(
        content_encoding = "base64",
        pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$"
    )]
    stdin_base64: Option<String>,
    /// Wall clock, which stands still while the runtime is paused; 60 if 0 or left out.
    #[schema(maximum = 3600)]
    timeout_secs: Option<u64>,
    /// Bytes kept of each output stream; the rest is counted. At most 32 MiB, 4 MiB if left out; with `detach` at most
    /// 256 MiB, which it is if left out.
    #[schema(maximum = 268_435_456)]
    max_output_bytes: Option<u64>,
    output_encoding: Option<OutputEncoding>,
    limits: Option<ExecLimits>,
    /// Answer at once, and let the command go on: see `GET /v1/execs/{id}`.
    detach: Option<bool>,
}

/// An argument; shorter than the 128 KiB that the kernel takes.
#[derive(ToSchema)]
#[schema(max_length = 131_071, pattern = "^[^\\u0000]*$")]
struct Argument(String);

/// Limits of one command, below the runtime's own.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
struct ExecLimits {
    #[schema(minimum = 16, maximum = 1_073_741_824)]
    memory_mib: Option<u64>,
    /// Processes and threads.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pids: Option<u64>,
    /// CPU time of all its processes together.
    #[schema(minimum = 1, maximum = 4_294_967_295u64)]
    cpu_secs: Option<u64>,
}

/// How output is written into the answer: as text in which what is no UTF-8 is replaced, or as padded base64.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum OutputEncoding {
    Utf8,
    Base64,
}

/// What came of a command; with `detach`, that it runs.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum ExecAnswer {
    Ended(ExecResult),
    Detached(DetachedExec),
}

/// What came of a command. That it does not exist or failed is a result, too.
#[derive(ToSchema)]
pub struct ExecResult {
    /// Wall clock.
    #[schema(minimum = 1)]
    duration_ms: u64,
    /// The command's own; 128+N when a signal ended it, 124 timed out, 127 not found, 126 not executable, 137 out of memory.
    exit_code: u8,
    stdout: String,
    stderr: String,
    /// More than was kept was written.
    stdout_truncated: bool,
    /// More than was kept was written.
    stderr_truncated: bool,
    #[schema(format = "uuid")]
    exec_id: String,
    outcome: Outcome,
    /// Name of the signal that ended it, such as `TERM`.
    #[schema(required)]
    signal: Option<String>,
    timed_out: bool,
    oom_killed: bool,
    /// Bytes written in all.
    stdout_bytes: u64,
    /// Bytes written in all.
    stderr_bytes: u64,
    output_encoding: OutputEncoding,
    usage: Usage,
}

/// How a command ended.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum Outcome {
    Exited,
    Signaled,
    TimedOut,
    OomKilled,
    Cancelled,
}

/// What a command and all its children used.
#[derive(ToSchema)]
pub struct Usage {
    cpu_ms: u64,
    user_ms: u64,
    system_ms: u64,
    peak_memory_bytes: u64,
    /// Null where the kernel does not count it.
    #[schema(required)]
    peak_pids: Option<u64>,
}

/// A command that runs on with nobody waiting.
#[derive(ToSchema)]
pub struct DetachedExec {
    #[schema(format = "uuid")]
    exec_id: String,
    outcome: Running,
}

/// It runs.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum Running {
    Running,
}
