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

/// How long readers may take for what is left after the cell is gone, before they are given up.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// The tasks that move a command's bytes.
pub(super) struct Pipes {
    stdin: Option<JoinHandle<()>>,
    stdout: JoinHandle<Captured>,
    stderr: JoinHandle<Captured>,
    terminal: Option<Arc<Terminal>>,
    /// What holds the command back where its readers are slow.
    bounds: [Option<Bound>; 2],
    /// The cell is gone. Dropping it says the same, so that no task outlives its exec.
    gone: watch::Sender<bool>,
    /// Nobody waits for slow readers any more.
    stop: watch::Sender<bool>,
}

impl Pipes {
    /// Lets the bytes move.
    pub(super) fn open(streams: Streams, io: Io) -> Self {
        let ((gone, ended), (stop, stopped)) = (watch::channel(false), watch::channel(false));
        let terminal = streams.terminal();
        let bounds = [io.stdout.bound(), io.stderr.bound()];
        let read = |outlet, sink| tokio::spawn(drain(outlet, sink, ended.clone(), stopped.clone()));
        Self {
            stdout: read(streams.stdout, io.stdout),
            stderr: match streams.stderr {
                Some(outlet) => read(outlet, io.stderr),
                None => tokio::spawn(async { io.stderr.finish() }),
            },
            terminal,
            bounds,
            stdin: streams.stdin.map(|pipe| tokio::spawn(feed(pipe, io.stdin))),
            gone,
            stop,
        }
    }

    /// Reads what is left in both outputs. The cell is gone, so that is no more than the pipes hold: a slow reader gets it later
    /// and is not waited for.
    pub(super) async fn close(self) -> (Captured, Captured) {
        if let Some(stdin) = &self.stdin {
            stdin.abort();
        }
        if let Some(terminal) = &self.terminal {
            terminal.finish();
        }
        self.bounds.iter().flatten().for_each(Bound::make_room);
        self.gone.send_replace(true);
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

#[cfg(test)]
mod tests {
    use super::super::sink::{Input, Sink};
    use super::*;
    use crate::warden::streams::Outlet;
    use tokio::io::AsyncWriteExt;
    use tokio::net::unix::pipe;
    use tokio::time::Instant;

    /// Time moves by itself only when everybody waits for it.
    #[tokio::test(start_paused = true)]
    async fn an_output_that_somebody_else_holds_open_is_whole_and_waits_for_nobody() {
        let bytes: Vec<u8> = (0..50_000u32).map(|n| (n % 251) as u8).collect();
        for _ in 0..100 {
            let ((mut command, stdout), (held, stderr)) =
                (pipe::pipe().unwrap(), pipe::pipe().unwrap());
            let streams = Streams {
                stdin: None,
                stdout: Outlet::Pipe(stdout),
                stderr: Some(Outlet::Pipe(stderr)),
            };
            let io = Io {
                stdin: Input::Nothing,
                stdout: Sink::memory(100_000),
                stderr: Sink::memory(10),
            };
            let pipes = Pipes::open(streams, io);
            // The last of it, so that the reactor may not have heard of it yet.
            command.write_all(&bytes).await.unwrap();
            let since = Instant::now();
            let (stdout, stderr) = pipes.close().await;
            assert_eq!(since.elapsed(), Duration::ZERO, "it waited");
            assert!(stdout.kept == bytes, "{} of {}", stdout.total, bytes.len());
            assert_eq!(stderr.total, 0);
            drop((command, held));
        }
    }
}
