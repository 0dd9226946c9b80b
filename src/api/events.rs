//! The frames of a stream for plain HTTP clients: POST `…/exec` with `Accept: text/event-stream`. The body is that of the
//! buffered exec, its rules and defaults included; the answer are server-sent events with a frame's `type` as their name.

use super::App;
use super::error::ApiError;
use super::execs::{self, Wanted};
use super::stream::{Follow, Frame, Next};
use crate::exec::{ExecRequest, Input};
use crate::runtime::Invalid;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::Instant;

/// Silence after which a comment shows that the server is there.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How long a command that names a working directory may turn out to be impossible before its events begin. They begin
/// earlier where there is one.
const GRACE: Duration = Duration::from_secs(1);

/// What a client wants that asks for events.
#[derive(Debug)]
pub struct Events {
    /// Bytes of each output; none is all, since nothing is kept for the answer.
    cap: Option<u64>,
}

/// Whether a client asks for events. It gets them also where it would take JSON as well.
pub fn wanted(
    headers: &HeaderMap,
    request: &ExecRequest,
    idempotency_key: Option<&str>,
) -> Result<Option<Events>, Invalid> {
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
    if idempotency_key.is_some() {
        let problem = "can't be used with events, which are not kept to be sent again";
        return Err(Invalid::new("Idempotency-Key", problem));
    }
    let cap = request.max_output_bytes;
    Ok(Some(Events { cap }))
}

/// Starts a command and answers with its events. What goes wrong until it has started is a normal error, unless that takes
/// longer than until `begin`.
pub async fn respond(
    app: &App,
    wanted: Wanted,
    events: Events,
    begin: Instant,
) -> Result<Response, ApiError> {
    let Wanted {
        tenant,
        runtime,
        request,
        body,
    } = wanted;
    let names_cwd = request.cwd.is_some();
    let (runtime, mut exec) = execs::check(app, tenant, &runtime, |settings, identity, bounds| {
        request.validate(settings, identity, bounds)
    })
    .await?;
    exec.live = true;
    if !exec.detach {
        exec.cap = 0;
    }
    let permit = app.executor.admit(&runtime, &exec).await?;
    drop(body);
    let detach = exec.detach;
    let grace = if names_cwd { GRACE } else { Duration::ZERO };
    let stdin = exec.stdin.take().map_or(Input::Nothing, Input::Bytes);
    let (execution, output) = execs::start_live(app, permit, runtime, exec, stdin);
    // Dropped with the connection, and the command with it.
    let mut follow = Follow::new(output, execution, events.cap, detach);
    follow.begin(begin, grace).await?;
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
