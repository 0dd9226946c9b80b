//! What a client can do to its running command beside writing to it.

use crate::warden::client::Signals;
use crate::warden::protocol::{CommandSignal, TerminalSize};
use crate::warden::terminal::Terminal;
use std::sync::Arc;

/// A handle to a running command. After the end nothing happens any more.
#[derive(Debug, Clone)]
pub struct Control {
    pub(super) signals: Signals,
    pub(super) terminal: Option<Arc<Terminal>>,
}

impl Control {
    /// Sends a signal to the process group of the main process.
    pub fn signal(&self, signal: CommandSignal) {
        self.signals.send(signal);
    }

    /// Changes the terminal's size; false where there is no terminal.
    pub fn resize(&self, size: TerminalSize) -> bool {
        let Some(terminal) = &self.terminal else {
            return false;
        };
        if let Err(error) = terminal.resize(size) {
            tracing::debug!(%error, "resizing a terminal");
        }
        true
    }
}
