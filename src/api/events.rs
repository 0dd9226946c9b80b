//! The frames of a stream for plain HTTP clients: POST `…/exec` with `Accept: text/event-stream`. The body is that of the
//! buffered exec, its rules and defaults included; the answer are server-sent events with a frame's `type` as their name.

use super::App;
use super::body::JsonBody;
use super::error::ApiError;
use super::stream::{Follow, Frame, Next};
use crate::exec::{ExecRequest, Input, Io, ValidExec};
use crate::runtime::{Invalid, Runtime};
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// Silence after which a comment shows that the server is there.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What a client wants that asks for events.
#[derive(Debug)]
pub struct Wanted {
    /// Bytes of each output; none is all, since nothing is kept.
    cap: Option<u64>,
}

/// Whether a client asks for events. It gets them also where it would take JSON as well.
pub fn wanted(headers: &HeaderMap, request: &ExecRequest) -> Result<Option<Wanted>, Invalid> {
    let asked = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"));
    if !asked {
        return Ok(None);
    }
    if request.output_encoding.as_deref() == Some("utf8") {
        let problem = "must be `base64` or absent: events hold `data_base64`";
        return Err(Invalid::new("output_encoding", problem));
    }
    let cap = request.max_output_bytes;
    Ok(Some(Wanted { cap }))
}

/// Starts a command and answers with its events. What goes wrong until it has started is a normal error.
pub async fn respond(
    app: &App,
    wanted: Wanted,
    runtime: Arc<Runtime>,
    mut exec: ValidExec,
    body: JsonBody,
) -> Result<Response, ApiError> {
    exec.cap = 0;
    exec.live = true;
    let permit = app.executor.admit(&runtime, &exec).await?;
    drop(body);
    let stdin = exec.stdin.take().map_or(Input::Nothing, Input::Bytes);
    let (io, output) = Io::unkept(stdin).live();
    let mut execution = app.executor.start(permit, runtime, exec, io);
    execution.started().await?;
    // Dropped with the connection, and the command with it.
    let follow = Follow::new(output, execution, wanted.cap);
    let events = unfold(Some(follow), |follow| async {
        let mut follow = follow?;
        let (frame, follow) = match follow.next().await {
            Next::Output(frame) => (frame, Some(follow)),
            Next::Exit(frame) => (frame, None),
            Next::Failed(error) => (Frame::error(&error), None),
        };
        let event = Event::default().event(frame.kind).data(frame.json);
        Some((Ok::<_, Infallible>(event), follow))
    });
    let alive = KeepAlive::new().interval(HEARTBEAT).text("heartbeat");
    Ok(Sse::new(events).keep_alive(alive).into_response())
}
