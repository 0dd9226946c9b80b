//! The outermost layer: gives every request its id, and every error its body.

use super::error::ApiError;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use std::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of the request, for handlers that write an error themselves.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// Keeps an incoming id that has the form of a UUID and makes one otherwise; answers with it, and logs under it.
pub async fn layer(mut request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(X_REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|text| valid(text))
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    request.extensions_mut().insert(RequestId(id.clone()));
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
        tracing::debug!(status = response.status().as_u16(), micros, "answered");
        response
    }
    .instrument(span)
    .await
}

/// Whether an id may be kept: a hyphenated UUID, and nothing that could confuse a log.
fn valid(text: &str) -> bool {
    text.len() == 36 && Uuid::parse_str(text).is_ok()
}
