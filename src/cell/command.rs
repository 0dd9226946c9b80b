//! A command on its way into a cell: encoded by the api process, decoded by nobody but the payload itself, after it has
//! given up every privilege. The warden only checks the length.
//!
//! Layout: four little-endian u32 (flags, number of other directories, of args and of env strings), then NUL-ended strings:
//! cwd, command, other directories…, args…, env… (`NAME=value`). A string that holds a NUL can't be encoded; the api refuses those before.

use std::ffi::CString;

/// The largest encoded command in bytes: twice what execve(2) takes with an 8 MiB stack, so that the kernel's own limit
/// is the one that is met.
pub const MAX_ENCODED: u64 = 4 * 1024 * 1024;

const SHELL_FALLBACK: u32 = 1;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Absolute working directory inside.
    pub cwd: String,
    /// Directories to begin in where `cwd` can't be entered; the first that can be is taken.
    pub instead: Vec<String>,
    /// Executable, or a shell line where `args` is empty and it resolves to no executable.
    pub command: String,
    /// Arguments after argv[0].
    pub args: Vec<String>,
    /// The whole environment; its PATH is what `command` is looked up on.
    pub env: Vec<(String, String)>,
    /// Whether a `command` that resolves to no executable may run as a shell line (the buffered exec: yes).
    pub shell_fallback: bool,
}

/// A decoded command: C strings, ready for execve(2).
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Working directory inside.
    pub cwd: CString,
    /// See [`Command::instead`].
    pub instead: Vec<CString>,
    /// See [`Command::command`].
    pub command: CString,
    /// See [`Command::args`].
    pub args: Vec<CString>,
    /// `NAME=value` strings.
    pub env: Vec<CString>,
    /// See [`Command::shell_fallback`].
    pub shell_fallback: bool,
}

impl Command {
    /// The bytes that [`Decoded::decode`] reads.
    pub fn encode(&self) -> Vec<u8> {
        let flags = if self.shell_fallback {
            SHELL_FALLBACK
        } else {
            0
        };
        let mut bytes = Vec::with_capacity(1024);
        let counts = [self.instead.len(), self.args.len(), self.env.len()];
        for number in [flags].into_iter().chain(counts.map(|count| count as u32)) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let plain = [&self.cwd, &self.command].into_iter();
        for string in plain.chain(&self.instead).chain(&self.args) {
            bytes.extend_from_slice(string.as_bytes());
            bytes.push(0);
        }
        for (name, value) in &self.env {
            for part in [name.as_bytes(), b"=", value.as_bytes(), b"\0"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes
    }
}

impl Decoded {
    /// Reads what [`Command::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Decoded> {
        let mut numbers = [0u32; 4];
        for (index, number) in numbers.iter_mut().enumerate() {
            *number = u32::from_le_bytes(bytes.get(index * 4..index * 4 + 4)?.try_into().ok()?);
        }
        let body = bytes.get(16..)?.strip_suffix(b"\0")?;
        let mut strings = body.split(|byte| *byte == 0).map(|s| CString::new(s).ok());
        let [flags, instead, args, env] = numbers;
        let mut take = |count: u32| -> Option<Vec<CString>> {
            (0..count).map(|_| strings.next().flatten()).collect()
        };
        let [cwd, command] = take(2)?.try_into().ok()?;
        let decoded = Decoded {
            cwd,
            command,
            instead: take(instead)?,
            args: take(args)?,
            env: take(env)?,
            shell_fallback: flags & SHELL_FALLBACK != 0,
        };
        strings.next().is_none().then_some(decoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decodes_what_was_encoded(
            cwd in "[^\0]{0,20}", command in "[^\0]{0,20}",
            instead in prop::collection::vec("[^\0]{0,9}", 0..3),
            args in prop::collection::vec("[^\0]{0,9}", 0..5),
            env in prop::collection::vec(("[^\0=]{1,5}", "[^\0]{0,9}"), 0..5),
            shell_fallback: bool,
        ) {
            let sent = Command { cwd, command, instead, args, env, shell_fallback };
            let got = Decoded::decode(&sent.encode()).unwrap();
            let text = |s: &CString| s.to_str().unwrap().to_owned();
            prop_assert_eq!(text(&got.cwd), sent.cwd);
            prop_assert_eq!(text(&got.command), sent.command);
            prop_assert_eq!(got.instead.iter().map(text).collect::<Vec<_>>(), sent.instead);
            prop_assert_eq!(got.args.iter().map(text).collect::<Vec<_>>(), sent.args);
            let env: Vec<_> = sent.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
            prop_assert_eq!(got.env.iter().map(text).collect::<Vec<_>>(), env);
            prop_assert_eq!(got.shell_fallback, shell_fallback);
        }

        #[test]
        fn never_panics_on_foreign_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Decoded::decode(&bytes);
        }
    }
}
