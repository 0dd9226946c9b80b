//! The outermost layer: gives every request its id, and every error its body, and counts the answers.

use super::error::ApiError;
use crate::metrics::{self, METRICS};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use std::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of the request, for handlers that write an error themselves, and when it came.
#[derive(Debug, Clone)]
pub struct RequestId(pub String, pub Instant);

/// Keeps an incoming id that has the form of a UUID and makes one otherwise; answers with it, and logs under it.
pub async fn layer(mut request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(X_REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|text| valid(text))
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    request
        .extensions_mut()
        .insert(RequestId(id.clone(), Instant::now()));
    let mut counted = metrics::Request {
        route: route(&request),
        method: method(request.method()),
        status: 0,
    };
    let span =
        tracing::info_span!("request", id, method = %request.method(), path = request.uri().path());

    async {
        let started = Instant::now();
        let mut response = next.run(request).await;
        if let Some(error) = response.extensions_mut().remove::<ApiError>() {
            error.render(&id, &mut response);
        }
        // An id is a UUID in ASCII, so this always holds.
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(X_REQUEST_ID, value);
        }
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        counted.status = response.status().as_u16();
        METRICS.answered(&counted);
        tracing::debug!(status = counted.status, micros, "answered");
        response
    }
    .instrument(span)
    .await
}

/// The template of the route: a path is the client's choice, and there is no end of those.
fn route(request: &Request) -> String {
    let matched = request.extensions().get::<MatchedPath>();
    matched.map_or("none", MatchedPath::as_str).to_owned()
}

/// A method's name, where it is one of HTTP's: clients can make up others.
fn method(method: &Method) -> &'static str {
    const NAMES: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let found = NAMES.iter().find(|name| method == **name);
    found.copied().unwrap_or("other")
}

/// Whether an id may be kept: a hyphenated UUID, and nothing that could confuse a log.
fn valid(text: &str) -> bool {
    text.len() == 36 && Uuid::parse_str(text).is_ok()
}
