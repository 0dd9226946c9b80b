//! The frames of a stream for plain HTTP clients: POST `…/exec` with `Accept: text/event-stream`. The body is that of the
//! buffered exec, its rules and defaults included; the answer are server-sent events with a frame's `type` as their name.

use super::App;
use super::error::ApiError;
use super::execs::{self, Wanted};
use super::stream::{Follow, Frame, Next};
use crate::exec::{ExecRequest, Input};
use crate::metrics::{METRICS, Phase};
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

/// Whether a client asks for events. It gets them also where it would take JSON just as well.
pub fn wanted(
    headers: &HeaderMap,
    request: &ExecRequest,
    idempotency_key: Option<&str>,
) -> Result<Option<Events>, Invalid> {
    if !accepted(headers) {
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

/// Whether events are named, and JSON is not preferred (RFC 9110, section 12.5.1).
fn accepted(headers: &HeaderMap) -> bool {
    const EVENTS: [&str; 1] = ["text/event-stream"];
    /// The most specific one counts.
    const JSON: [&str; 3] = ["application/json", "application/*", "*/*"];
    let ranges: Vec<(String, f32)> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|range| {
            let range = range.to_ascii_lowercase();
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_owned();
            let weight = parts.find_map(|parameter| parameter.strip_prefix("q="));
            // What is no weight is none.
            let weight = weight.and_then(|weight| weight.parse().ok());
            (kind, weight.unwrap_or(1.0))
        })
        .collect();
    let weight = |kinds: &[&str]| {
        let of = |kind: &&str| ranges.iter().find(|(range, _)| range == kind);
        kinds.iter().find_map(of).map_or(0.0, |(_, weight)| *weight)
    };
    let events = weight(&EVENTS);
    events > 0.0 && events >= weight(&JSON)
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
        known,
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
    METRICS.phase(Phase::Admit, known.elapsed());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_that_is_preferred_is_answered() {
        let events = |accept: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT, value.parse().unwrap());
            }
            accepted(&headers)
        };
        for accept in [
            "text/event-stream",
            "Text/Event-Stream; charset=utf-8",
            "application/json, text/event-stream",
            "text/event-stream, */*;q=0.1",
            "application/json;q=0.5,text/event-stream;q=0.500",
            "text/event-stream;q=0.2, application/json;q=0, */*",
            "text/event-stream;Q=0.001",
            "text/event-stream;q=x",
        ] {
            assert!(events(&[accept]), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/*",
            "text/event-stream;q=0",
            "text/event-stream; q=0.000",
            "application/json, text/event-stream;q=0.1",
            "text/event-stream;q=0.9, */*",
            "text/event-stream;q=nan",
        ] {
            assert!(!events(&[accept]), "{accept}");
        }
        assert!(events(&["application/json", "text/event-stream"]));
        assert!(!events(&["application/json", "text/event-stream;q=0.5"]));
    }
}
