//! The request that begins a stream: an exec without a shell and without a cap, perhaps with a terminal.

use super::request::{ExecRequest, ValidExec};
use crate::config::ExecBounds;
use crate::runtime::{Identity, Invalid, Settings};
use crate::warden::protocol::TerminalSize;
use std::num::NonZeroU16;

/// A terminal's size where the client names none.
const ROWS: u64 = 24;
const COLS: u64 = 80;

/// TERM where nobody sets it.
const TERM: &str = "xterm-256color";

/// A request to stream, its types checked and nothing else. Absent and null are both none.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct StreamRequest {
    /// What it has in common with the buffered exec; `stdin` is not used.
    pub exec: ExecRequest,
    /// `tty`.
    pub tty: Option<bool>,
    /// `rows`.
    pub rows: Option<u64>,
    /// `cols`.
    pub cols: Option<u64>,
    /// `stdin`: `pipe`, the default, or `none`.
    pub stdin: Option<String>,
}

/// A stream that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidStream {
    /// What to run.
    pub exec: ValidExec,
    /// Whether the client writes the command's input.
    pub stdin: bool,
}

impl StreamRequest {
    /// Checks everything and fills in the defaults: those of the buffered exec, but the longest timeout that is allowed,
    /// since a session that somebody works in must not end after a minute.
    pub fn validate(
        self,
        settings: &Settings,
        identity: Identity<'_>,
        bounds: &ExecBounds,
    ) -> Result<ValidStream, Invalid> {
        let stdin = match self.stdin.as_deref() {
            None | Some("pipe") => true,
            Some("none") => false,
            Some(_) => return Err(Invalid::one_of("stdin", ["pipe", "none"])),
        };
        // Read even where there is no terminal: a size that can't be is a mistake all the same.
        let size = terminal_size(self.rows, self.cols)?;
        let terminal = self.tty.unwrap_or(false).then_some(size);
        if terminal.is_some() && !stdin {
            return Err(Invalid::new("stdin", "must be `pipe` with a terminal"));
        }
        if terminal.is_some() && self.exec.detach {
            let problem = "must not be given together with `tty`: a terminal ends with its client";
            return Err(Invalid::new("detach", problem));
        }
        let bounds = ExecBounds {
            default_timeout_secs: bounds.max_timeout_secs,
            default_output_bytes: 0,
            ..bounds.clone()
        };
        let mut exec = self.exec.validate(settings, identity, &bounds)?;
        exec.command.shell_fallback = false;
        exec.live = true;
        exec.terminal = terminal;
        let env = &mut exec.command.env;
        if terminal.is_some() && !env.iter().any(|(name, _)| name == "TERM") {
            env.push(("TERM".to_owned(), TERM.to_owned()));
        }
        Ok(ValidStream { exec, stdin })
    }
}

/// A terminal's size in the API's fields `rows` and `cols`.
pub fn terminal_size(rows: Option<u64>, cols: Option<u64>) -> Result<TerminalSize, Invalid> {
    let check = |field: &str, value: u64| {
        u16::try_from(value)
            .ok()
            .and_then(NonZeroU16::new)
            .ok_or_else(|| {
                let most = u16::MAX;
                Invalid::new(field, format!("is {value}, but must be from 1 to {most}"))
            })
    };
    Ok(TerminalSize {
        rows: check("rows", rows.unwrap_or(ROWS))?,
        cols: check("cols", cols.unwrap_or(COLS))?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::request::test_cases::{IDENTITY, bounds, settings};
    use super::*;

    fn validate(change: impl FnOnce(&mut StreamRequest)) -> Result<ValidStream, Invalid> {
        let mut request = StreamRequest::default();
        request.exec.command = "sh".into();
        change(&mut request);
        request.validate(&settings(), IDENTITY, &bounds())
    }

    fn field(change: impl FnOnce(&mut StreamRequest)) -> String {
        validate(change).unwrap_err().field
    }

    fn term(valid: &ValidStream) -> Option<&str> {
        let env = &valid.exec.command.env;
        env.iter()
            .find(|(name, _)| name == "TERM")
            .map(|(_, value)| value.as_str())
    }

    #[test]
    fn what_is_not_said_is_a_pipe_without_a_shell_for_the_longest_time() {
        let valid = validate(|_| {}).unwrap();
        assert!(valid.stdin && valid.exec.live);
        assert_eq!(valid.exec.terminal, None);
        assert_eq!(valid.exec.timeout.as_secs(), bounds().max_timeout_secs);
        assert!(!valid.exec.command.shell_fallback);
        assert_eq!(term(&valid), None);
        assert!(valid.exec.buffered_bytes() >= 1 << 20, "its buffers count");
    }

    #[test]
    fn a_terminal_has_a_size_and_a_name() {
        let valid = validate(|request| request.tty = Some(true)).unwrap();
        let size = valid.exec.terminal.unwrap();
        assert_eq!((size.rows.get(), size.cols.get()), (24, 80));
        assert_eq!(term(&valid), Some("xterm-256color"));
        let valid = validate(|request| {
            request.tty = Some(true);
            request.exec.env.insert("TERM".into(), "dumb".into());
        });
        assert_eq!(term(&valid.unwrap()), Some("dumb"));
    }

    #[test]
    fn what_can_not_be_names_its_field() {
        assert_eq!(field(|request| request.rows = Some(0)), "rows");
        assert_eq!(field(|request| request.cols = Some(65_536)), "cols");
        assert_eq!(field(|request| request.stdin = Some("tty".into())), "stdin");
        let none = |request: &mut StreamRequest| {
            request.tty = Some(true);
            request.stdin = Some("none".into());
        };
        assert_eq!(field(none), "stdin");
        let alone = |request: &mut StreamRequest| {
            request.tty = Some(true);
            request.exec.detach = true;
        };
        assert_eq!(field(alone), "detach");
        let long = |request: &mut StreamRequest| request.exec.timeout_secs = Some(3601);
        assert_eq!(field(long), "timeout_secs");
    }
}
