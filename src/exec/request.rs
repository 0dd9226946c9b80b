//! What a client asks to run, and the checks that make it valid. What is wrong with a request is found here, before
//! anything runs.

use super::pump::PIECE;
use crate::cell::command::Command;
use crate::config::ExecBounds;
use crate::resources::{CellResources, MIB};
use crate::runtime::{Identity, Invalid, MIN_MEMORY_MIB, Settings, check_variables, merged};
use crate::warden::protocol::TerminalSize;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// An exec request, its types checked and nothing else. Absent and null are both none. It is serialized only to tell
/// whether two requests are the same.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct ExecRequest {
    /// `command`.
    pub command: String,
    /// `args`.
    pub args: Vec<String>,
    /// `cwd`.
    pub cwd: Option<String>,
    /// `env`.
    pub env: BTreeMap<String, String>,
    /// `stdin`.
    pub stdin: Option<String>,
    /// `stdin_base64`.
    pub stdin_base64: Option<String>,
    /// `timeout_secs`.
    pub timeout_secs: Option<u64>,
    /// `max_output_bytes`.
    pub max_output_bytes: Option<u64>,
    /// `output_encoding`.
    pub output_encoding: Option<String>,
    /// `limits.memory_mib`.
    pub memory_mib: Option<u64>,
    /// `limits.pids`.
    pub pids: Option<u64>,
    /// `limits.cpu_secs`.
    pub cpu_secs: Option<u64>,
    /// `detach`.
    pub detach: bool,
}

/// How output bytes are written into the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputEncoding {
    /// As text; what is no text is replaced.
    Utf8,
    /// Padded base64.
    Base64,
}

/// A request that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidExec {
    /// What to run.
    pub command: Command,
    /// What the command reads; none is immediate EOF.
    pub stdin: Option<Vec<u8>>,
    /// Wall clock.
    pub timeout: Duration,
    /// Bytes kept per output stream.
    pub cap: usize,
    /// How output is written into the answer.
    pub encoding: OutputEncoding,
    /// The cell's limits.
    pub resources: CellResources,
    /// It is answered at once, and its output goes to files.
    pub detach: bool,
    /// A terminal in the place of the three streams.
    pub terminal: Option<TerminalSize>,
    /// Whether somebody reads along; then there are buffers between the command and them.
    pub live: bool,
}

/// What PATH is inside.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One string of argv or of the environment with its NUL: MAX_ARG_STRLEN, execve(2).
const MAX_STRING: usize = 128 * 1024;

/// All of argv and of the environment: a quarter of the 8 MiB stack limit that a command gets, execve(2).
const MAX_STRINGS: usize = 2 * 1024 * 1024;

/// Kept free for what is added on the way: the executable's path, `-lc`, the auxiliary vector.
const SLACK: usize = 8 * 1024;

/// What a reader's and a writer's buffers may hold: the pieces on their way in both directions, as they are and as
/// messages, and one message of the largest size that is being received.
const LIVE_BYTES: u64 = 3 * MIB;

const MAX_CWD: usize = 4096;

impl ExecRequest {
    /// Checks everything against the runtime's settings and the server's bounds, and fills in the defaults.
    pub fn validate(
        self,
        settings: &Settings,
        identity: Identity<'_>,
        bounds: &ExecBounds,
    ) -> Result<ValidExec, Invalid> {
        self.check_strings()?;
        let resources = self.resources(settings)?;
        let timeout = match self.timeout_secs {
            None | Some(0) => bounds.default_timeout_secs,
            Some(secs) => within("timeout_secs", secs, 0, bounds.max_timeout_secs)?,
        };
        let (cap, most) = match self.detach {
            false => (bounds.default_output_bytes, bounds.max_output_bytes),
            true => (
                bounds.max_detached_output_bytes,
                bounds.max_detached_output_bytes,
            ),
        };
        let cap = within(
            "max_output_bytes",
            self.max_output_bytes.unwrap_or(cap),
            0,
            most,
        )?;
        let encoding = self.encoding()?;
        let base = [
            ("PATH", PATH),
            ("HOME", identity.home),
            ("USER", identity.user),
            ("LANG", "C.UTF-8"),
        ];
        let image = &settings.image_config;
        let variables = [&image.env, &settings.environment_variables, &self.env];
        let env = merged(&variables, &base);
        check_sizes(&self.command, &self.args, &env)?;
        let stdin = match (self.stdin, self.stdin_base64) {
            (Some(_), Some(_)) => {
                return Err(Invalid::new(
                    "stdin_base64",
                    "must not be given together with `stdin`",
                ));
            }
            (Some(text), None) => Some(text.into_bytes()),
            (None, Some(encoded)) => Some(
                BASE64_STANDARD
                    .decode(encoded)
                    .map_err(|_| Invalid::new("stdin_base64", "must be padded base64"))?,
            ),
            (None, None) => None,
        };
        let (cwd, instead) = beginning(self.cwd, settings, identity.home);
        Ok(ValidExec {
            command: Command {
                cwd,
                instead,
                command: self.command,
                args: self.args,
                env,
                shell_fallback: true,
            },
            stdin: stdin.filter(|bytes| !bytes.is_empty()),
            timeout: Duration::from_secs(timeout),
            cap: cap as usize,
            encoding,
            resources,
            detach: self.detach,
            terminal: None,
            live: false,
        })
    }

    /// How output is to be written.
    pub fn encoding(&self) -> Result<OutputEncoding, Invalid> {
        match self.output_encoding.as_deref() {
            None | Some("utf8") => Ok(OutputEncoding::Utf8),
            Some("base64") => Ok(OutputEncoding::Base64),
            Some(_) => Err(Invalid::one_of("output_encoding", ["utf8", "base64"])),
        }
    }

    fn check_strings(&self) -> Result<(), Invalid> {
        let nul = |field: &str| Invalid::new(field, "must not contain NUL");
        if self.command.is_empty() {
            return Err(Invalid::new("command", "must not be empty"));
        }
        if self.command.contains('\0') {
            return Err(nul("command"));
        }
        if let Some(index) = self.args.iter().position(|arg| arg.contains('\0')) {
            return Err(nul(&format!("args[{index}]")));
        }
        if let Some(cwd) = &self.cwd {
            if cwd.contains('\0') {
                return Err(nul("cwd"));
            }
            if cwd.is_empty() || cwd.len() >= MAX_CWD {
                return Err(Invalid::new(
                    "cwd",
                    format!("must be a path of 1 to {} bytes", MAX_CWD - 1),
                ));
            }
        }
        // Not `stdin`: these are bytes for the command, and the official clients send archives there.
        check_variables("env", &self.env)
    }

    fn resources(&self, settings: &Settings) -> Result<CellResources, Invalid> {
        let runtime = settings.resources();
        let memory_bytes = match self.memory_mib {
            None => runtime.memory_bytes,
            Some(mib) => {
                let most = settings.limit_memory_mib;
                MIB * within("limits.memory_mib", mib, MIN_MEMORY_MIB.min(most), most)?
            }
        };
        let pids = match self.pids {
            None => runtime.pids,
            Some(pids) => within("limits.pids", pids, 1, runtime.pids)?,
        };
        let cpu_secs = self
            .cpu_secs
            .map(|secs| within("limits.cpu_secs", secs, 1, u32::MAX.into()))
            .transpose()?;
        Ok(CellResources {
            memory_bytes,
            pids,
            cpu_secs,
        })
    }
}

impl ValidExec {
    /// Bytes of input and output that it may hold in memory.
    pub fn buffered_bytes(&self) -> u64 {
        // A piece of each stream is read while the one before it is written.
        let output = match self.detach {
            false => 2 * self.cap as u64,
            true => 4 * PIECE as u64,
        };
        let live = if self.live { LIVE_BYTES } else { 0 };
        output + live + self.stdin.as_ref().map_or(0, |stdin| stdin.len() as u64)
    }
}

/// Refuses what execve(2) would refuse with E2BIG.
fn check_sizes(command: &str, args: &[String], env: &[(String, String)]) -> Result<(), Invalid> {
    const POINTER: usize = size_of::<usize>();
    let too_long = |length: usize| length + 1 > MAX_STRING;
    let one = |field: &str| {
        Invalid::new(
            field,
            format!("must be shorter than {MAX_STRING} bytes, the kernel's limit for one argument"),
        )
    };
    if too_long(command.len()) {
        return Err(one("command"));
    }
    if let Some(index) = args.iter().position(|arg| too_long(arg.len())) {
        return Err(one(&format!("args[{index}]")));
    }
    let args: usize = args.iter().map(|arg| arg.len() + 1 + POINTER).sum();
    let env: usize = env
        .iter()
        .map(|(name, value)| name.len() + value.len() + 2 + POINTER)
        .sum();
    let all = args + env + command.len() + SLACK;
    if all > MAX_STRINGS {
        let field = if args >= env { "args" } else { "env" };
        let problem = format!(
            "is too large: arguments and environment together may take {MAX_STRINGS} bytes"
        );
        return Err(Invalid::new(field, problem));
    }
    Ok(())
}

fn within(field: &str, value: u64, least: u64, most: u64) -> Result<u64, Invalid> {
    Invalid::within(field, value, least, most, "")
}

/// Where a command begins: in the directory that is named, below its home where that is relative. Else in the image's
/// working directory, or its home; an image may name what is not in it, and then its commands begin at the root.
fn beginning(cwd: Option<String>, settings: &Settings, home: &str) -> (String, Vec<String>) {
    let named = match cwd {
        Some(cwd) if cwd.starts_with('/') => Some(cwd),
        Some(cwd) => Some(format!("{}/{cwd}", home.trim_end_matches('/'))),
        None => None,
    };
    match (named, &settings.image_config.working_dir) {
        (Some(cwd), _) => (cwd, Vec::new()),
        (None, Some(working)) => (working.clone(), vec![home.to_owned(), "/".to_owned()]),
        (None, None) if settings.image_id.is_some() => (home.to_owned(), vec!["/".to_owned()]),
        (None, None) => (home.to_owned(), Vec::new()),
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
pub(super) mod test_cases;
