//! Log lines on stderr, one per event; words of the command line; and errors with all their causes in one line.
//!
//! A log that nobody takes (a pipe whose reader stands still, a full disk) keeps nothing waiting: lines are lost then, and
//! their number is told when it goes on. See [`never_wait`].

mod unread;

pub use unread::never_wait;

use crate::config::LogFormat;
use std::error::Error;
use std::fmt::Display;
use std::io::Write;
use unread::Stream;

/// Sends this process's log lines to stderr. To be called once per process.
pub fn init(format: LogFormat) {
    let builder = tracing_subscriber::fmt()
        .with_writer(|| Stream::Stderr)
        .with_max_level(tracing::Level::INFO)
        .with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// A line for the operator on stderr. That nobody reads it any more is no reason to end, as it is for `eprintln!`.
pub fn tell(text: impl Display) {
    let line = format!("cellblock: {text}\n");
    let _ = Stream::Stderr.write_all(line.as_bytes());
}

/// A line that was asked for, on stdout. Waits for its reader; nobody reading it any more is no reason to end.
pub fn print(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A line of the service's on stdout, as [`tell`].
pub fn announce(text: impl Display) {
    let line = format!("{text}\n");
    let _ = Stream::Stdout.write_all(line.as_bytes());
}

/// An error with all its causes, outermost first. A cause whose words its wrapper has said already is not repeated.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::fmt::Error);

    #[test]
    fn tells_every_cause_once() {
        let inner = std::fmt::Error.to_string();
        assert_eq!(chain(&Outer(std::fmt::Error)), format!("outer: {inner}"));
    }
}
