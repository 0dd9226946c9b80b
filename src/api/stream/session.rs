//! One WebSocket from its first message to its close.

use super::super::error::{ApiError, Code};
use super::super::{App, execs};
use super::command::{Command, HEARTBEAT};
use super::follow::Follow;
use super::frames::{self, Frame};
use super::line::{End, Line, MAX_MESSAGE};
use crate::exec::{Input, StreamRequest, live_input};
use crate::tenant::TenantId;
use axum::http::StatusCode;
use futures_util::SinkExt;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// `start` must have come within this time.
const START_WAIT: Duration = Duration::from_secs(10);

/// What a session needs to know.
pub struct Session {
    /// Everything shared.
    pub app: Arc<App>,
    /// Whose token it was.
    pub tenant: TenantId,
    /// The runtime, as the client named it.
    pub key: String,
    /// Turns true when the service ends.
    pub stop: watch::Receiver<bool>,
}

impl Session {
    /// Talks with the client until one of the two closes.
    pub async fn serve(self, upgraded: Upgraded) {
        let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
            tracing::error!("a WebSocket over something that is no TCP connection");
            return;
        };
        let early = !parts.read_buf.is_empty();
        let mut line = Line::new(parts.io.into_inner(), parts.read_buf).await;
        let end = self.converse(&mut line, early).await;
        line.close(end).await;
    }

    async fn converse(mut self, line: &mut Line, early: bool) -> End {
        let begun = async {
            let (request, held) = self.first(line, early).await?;
            self.start(line, request, held).await
        };
        match begun.await {
            Ok(command) => command.run(line).await,
            Err(end) => end,
        }
    }

    /// Waits for `start`, and returns it with the memory set aside for it, which is from its first byte on.
    async fn first(
        &mut self,
        line: &mut Line,
        early: bool,
    ) -> Result<(StreamRequest, OwnedSemaphorePermit), End> {
        let deadline = Instant::now() + START_WAIT;
        let budget = &self.app.body_budget;
        let message = async {
            if !early {
                line.socket.readable().await;
            }
            let held = budget.reserve(MAX_MESSAGE).map_err(End::failed)?;
            let text = match line.read().await {
                Err(End::Binary) => return Err(End::misused(frames::not_start())),
                other => other?,
            };
            let request = frames::parse_start(&text).map_err(End::misused)?;
            Ok((request, held))
        };
        let request = tokio::select! {
            message = timeout_at(deadline, message) => message,
            _ = self.stop.wait_for(|stop| *stop) => {
                let error = ApiError::with_reason(
                    Code::Unavailable,
                    "shutting_down",
                    "the service is shutting down",
                );
                return Err(End::Error(Box::new(error), CloseCode::Away));
            }
        };
        request.unwrap_or_else(|_| {
            let secs = START_WAIT.as_secs();
            let problem = format!("no start frame came within {secs} seconds");
            let error = ApiError::invalid(StatusCode::REQUEST_TIMEOUT, problem);
            Err(End::misused(error))
        })
    }

    /// From a request to a running command.
    async fn start(
        &self,
        line: &mut Line,
        request: StreamRequest,
        held: OwnedSemaphorePermit,
    ) -> Result<Command, End> {
        let detach = request.exec.detach;
        let starting = async {
            let app = &self.app;
            let (runtime, valid) =
                execs::check(app, self.tenant, &self.key, |settings, identity, bounds| {
                    request.validate(settings, identity, bounds)
                })
                .await?;
            let permit = app.executor.admit(&runtime, &valid.exec).await?;
            // From here on the command's own is set aside.
            drop(held);
            let (stdin, input) = match valid.stdin {
                true => {
                    let (stdin, input) = live_input();
                    (Some(stdin), input)
                }
                false => (None, Input::Nothing),
            };
            let (mut execution, output) =
                execs::start_live(app, permit, runtime, valid.exec, input);
            execution.started().await?;
            let control = execution.control().cloned();
            let follow = Follow::new(output, execution, None, detach);
            Ok::<_, ApiError>(Command {
                stdin,
                control,
                follow,
            })
        };
        let Line { sink, socket, .. } = line;
        // The runtime may stand still, and its clients wait with it.
        let heartbeats = async {
            loop {
                sleep(HEARTBEAT).await;
                let heartbeat = Message::text(Frame::heartbeat().json);
                // That the client is gone is seen below, where it matters.
                let _ = sink.send(heartbeat).await;
            }
        };
        tokio::select! {
            started = starting => started.map_err(End::failed),
            () = socket.closed(), if !detach => Err(End::Gone),
            never = heartbeats => never,
        }
    }
}
