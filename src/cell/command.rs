//! A command on its way into a cell: encoded by the api process, opened by nobody but the payload itself, after it has
//! given up every privilege.
//!
//! Layout: three little-endian u32 (flags, number of args, number of env strings), then NUL-ended strings: cwd, command,
//! args…, env… (`NAME=value`).

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Working directory inside; a relative one starts at `home`.
    pub cwd: String,
    /// Executable, or a shell line where `args` is empty and it resolves to no executable.
    pub command: String,
    /// Arguments after argv[0].
    pub args: Vec<String>,
    /// The whole environment; its PATH is what `command` is looked up on.
    pub env: Vec<(String, String)>,
    /// Whether a `command` that resolves to no executable may run as a shell line (the buffered exec: yes).
    pub shell_fallback: bool,
}
