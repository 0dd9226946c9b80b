//! The tasks that move a command's bytes, from its start to its end.

use super::pump::{drain, feed};
use super::sink::{Captured, Io};
use crate::warden::streams::Streams;
use crate::warden::terminal::Terminal;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long the pipes may stay open after the cell is gone, before what was read has to do.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// The tasks that move a command's bytes.
pub(super) struct Pipes {
    stdin: Option<JoinHandle<()>>,
    stdout: JoinHandle<Captured>,
    stderr: JoinHandle<Captured>,
    terminal: Option<Arc<Terminal>>,
    // Dropping it ends the readers, so that none outlives its exec.
    stop: watch::Sender<bool>,
}

impl Pipes {
    /// Lets the bytes move.
    pub(super) fn open(streams: Streams, io: Io) -> Self {
        let (stop, stopped) = watch::channel(false);
        let terminal = streams.terminal();
        let read = |outlet, sink| tokio::spawn(drain(outlet, sink, stopped.clone()));
        Self {
            stdout: read(streams.stdout, io.stdout),
            stderr: match streams.stderr {
                Some(outlet) => read(outlet, io.stderr),
                None => tokio::spawn(async { io.stderr.finish() }),
            },
            terminal,
            stdin: streams.stdin.map(|pipe| tokio::spawn(feed(pipe, io.stdin))),
            stop,
        }
    }

    /// Reads to the end of both outputs. The cell is gone, so that end is near; a slow reader is waited for.
    pub(super) async fn close(mut self) -> (Captured, Captured) {
        if let Some(stdin) = &self.stdin {
            stdin.abort();
        }
        if let Some(terminal) = &self.terminal {
            terminal.finish();
        }
        let both = async { tokio::join!(&mut self.stdout, &mut self.stderr) };
        let both = tokio::time::timeout(DRAIN_WAIT, both).await;
        let (stdout, stderr) = match both {
            Ok(both) => both,
            Err(_) => {
                self.stop.send_replace(true);
                tokio::join!(self.stdout, self.stderr)
            }
        };
        (stdout.unwrap_or_default(), stderr.unwrap_or_default())
    }
}
