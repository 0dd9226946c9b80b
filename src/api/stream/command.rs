//! The talk about one running command: what it says, what its client says.

use super::follow::{Follow, Next};
use super::frames::{self, ClientFrame, Frame};
use super::line::{End, Line, Sink, Source, read};
use super::socket::Socket;
use crate::exec::Control;
use crate::runtime::Invalid;
use bytes::Bytes;
use futures_util::SinkExt;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_tungstenite::tungstenite::Message;

/// The server says something at least this often.
pub const HEARTBEAT: Duration = Duration::from_secs(10);

/// How often a client is probed while its input is stalled. It may have left, and its end then stands behind the input
/// that we don't take; but what we send to one that left is answered by a reset.
const PROBE: Duration = Duration::from_millis(50);

/// Least time between two signals of a client: each goes through the warden, which serves all.
const SIGNAL_PAUSE: Duration = Duration::from_millis(10);

/// A running command and its client's ways to it.
pub struct Command {
    /// None after the end of the input, and where there is none.
    pub stdin: Option<mpsc::Sender<Bytes>>,
    /// None when it has ended already.
    pub control: Option<Control>,
    /// Its output and its end.
    pub follow: Follow,
}

impl Command {
    /// Frames in both directions until either side ends. What is left of the command is killed by being dropped.
    pub async fn run(mut self, line: &mut Line) -> End {
        let Line {
            sink,
            source,
            socket,
        } = line;
        let stalled = watch::Sender::new(false);
        let said = say(sink, &mut self.follow, stalled.subscribe());
        let mut input = ClientInput {
            stdin: self.stdin,
            socket,
            stalled,
        };
        let heard = hear(source, &mut input, self.control.as_ref());
        // Not biased: either could keep the other from its turn.
        tokio::select! {
            end = said => end,
            end = heard => end,
        }
    }
}

/// Sends what the command says, and heartbeats in its silence, until the end was told.
async fn say(sink: &mut Sink, follow: &mut Follow, mut stalled: watch::Receiver<bool>) -> End {
    let mut heartbeat = Instant::now() + HEARTBEAT;
    loop {
        let probe = async {
            if stalled.wait_for(|stalled| *stalled).await.is_err() {
                std::future::pending::<()>().await;
            }
            sleep(PROBE).await;
        };
        let (message, last) = tokio::select! {
            next = follow.next() => match next {
                Next::Output(frame) => (Message::text(frame.json), false),
                Next::Exit(frame) => (Message::text(frame.json), true),
                Next::Failed(error) => return End::failed(error),
            },
            () = sleep_until(heartbeat) => (Message::text(Frame::heartbeat().json), false),
            () = probe => (Message::Ping(Bytes::new()), false),
        };
        if !message.is_ping() {
            heartbeat = Instant::now() + HEARTBEAT;
        }
        if sink.send(message).await.is_err() {
            return End::Gone;
        }
        if last {
            return End::Exited;
        }
    }
}

/// Does what the client says until it leaves or says what can't be.
async fn hear(source: &mut Source, input: &mut ClientInput<'_>, control: Option<&Control>) -> End {
    loop {
        let frame = match read(source).await {
            Ok(text) => frames::parse(&text).map_err(End::misused),
            Err(end) => Err(end),
        };
        let result = match frame {
            Ok(ClientFrame::Stdin(bytes)) => input.write(bytes).await,
            Ok(ClientFrame::CloseStdin) => {
                input.stdin = None;
                Ok(())
            }
            Ok(ClientFrame::Signal(signal)) => {
                if let Some(control) = control {
                    control.signal(signal);
                }
                sleep(SIGNAL_PAUSE).await;
                Ok(())
            }
            Ok(ClientFrame::Resize(size)) => match control.map(|control| control.resize(size)) {
                Some(false) => Err(End::misused(Invalid::new(
                    "type",
                    "must not be `resize` without a terminal (`tty` in the start frame)",
                ))),
                _ => Ok(()),
            },
            Ok(ClientFrame::Heartbeat) => Ok(()),
            Err(end) => Err(end),
        };
        if let Err(end) = result {
            return end;
        }
    }
}

/// The way from a client to its command's input.
struct ClientInput<'a> {
    stdin: Option<mpsc::Sender<Bytes>>,
    socket: &'a Socket,
    /// True while the command does not take what is there.
    stalled: watch::Sender<bool>,
}

impl ClientInput<'_> {
    /// Hands input on; waits while the command does not read.
    async fn write(&mut self, bytes: Bytes) -> Result<(), End> {
        let Some(stdin) = &self.stdin else {
            let problem = "must not be `stdin` after the end of the input";
            return Err(End::misused(Invalid::new("type", problem)));
        };
        // A command that takes no input any more, or has ended, is no mistake of the client's.
        let Err(mpsc::error::TrySendError::Full(bytes)) = stdin.try_send(bytes) else {
            return Ok(());
        };
        self.stalled.send_replace(true);
        let written = tokio::select! {
            _ = stdin.send(bytes) => Ok(()),
            () = self.socket.closed() => Err(End::Gone),
        };
        self.stalled.send_replace(false);
        written
    }
}
