//! The tasks that move a command's bytes, from its start to its end.

use super::pump::{drain, feed};
use super::reader::Bound;
use super::sink::{Captured, Io};
use crate::warden::streams::Streams;
use crate::warden::terminal::Terminal;
use std::convert::Infallible;
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
    /// What holds the command back where its readers are slow.
    bounds: [Option<Bound>; 2],
    // Dropping it ends the readers, so that none outlives its exec.
    stop: watch::Sender<bool>,
}

impl Pipes {
    /// Lets the bytes move.
    pub(super) fn open(streams: Streams, io: Io) -> Self {
        let (stop, stopped) = watch::channel(false);
        let terminal = streams.terminal();
        let bounds = [io.stdout.bound(), io.stderr.bound()];
        let read = |outlet, sink| tokio::spawn(drain(outlet, sink, stopped.clone()));
        Self {
            stdout: read(streams.stdout, io.stdout),
            stderr: match streams.stderr {
                Some(outlet) => read(outlet, io.stderr),
                None => tokio::spawn(async { io.stderr.finish() }),
            },
            terminal,
            bounds,
            stdin: streams.stdin.map(|pipe| tokio::spawn(feed(pipe, io.stdin))),
            stop,
        }
    }

    /// Reads to the end of both outputs. The cell is gone, so that end is near, and what is left is no more than the pipes
    /// hold: a slow reader gets it later and is not waited for.
    pub(super) async fn close(self) -> (Captured, Captured) {
        if let Some(stdin) = &self.stdin {
            stdin.abort();
        }
        if let Some(terminal) = &self.terminal {
            terminal.finish();
        }
        self.bounds.iter().flatten().for_each(Bound::make_room);
        let both = async { tokio::join!(self.stdout, self.stderr) };
        let giving_up = async {
            tokio::time::sleep(DRAIN_WAIT).await;
            self.stop.send_replace(true);
            std::future::pending::<Infallible>().await
        };
        let (stdout, stderr) = tokio::select! {
            both = both => both,
            never = giving_up => match never {},
        };
        (stdout.unwrap_or_default(), stderr.unwrap_or_default())
    }
}
