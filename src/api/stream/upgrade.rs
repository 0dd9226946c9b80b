//! From HTTP to WebSocket: the handshake (RFC 6455, section 4.2), and the way from a handler, which only answers, to the
//! connection, which lives on.

use super::super::error::ApiError;
use crate::runtime::Invalid;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::Response;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

type Session = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a handler leaves for its connection: what to go on with when HTTP has ended.
#[derive(Clone)]
pub struct Handover {
    session: Arc<Mutex<Option<Session>>>,
    stop: watch::Receiver<bool>,
}

impl Handover {
    /// For a connection that learns through `stop` that the service ends.
    pub fn new(stop: watch::Receiver<bool>) -> Self {
        Self {
            session: Arc::default(),
            stop,
        }
    }

    /// Leaves a session.
    pub fn give(&self, session: impl Future<Output = ()> + Send + 'static) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::pin(session));
    }

    /// What was left.
    pub fn take(&self) -> Option<Session> {
        self.session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Turns true when the service ends.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.clone()
    }
}

/// The handover of a request's connection.
pub fn handover(request: &Request) -> Result<Handover, ApiError> {
    let handover = request.extensions().get::<Handover>().cloned();
    handover.ok_or_else(|| not_a_handshake("Upgrade", "is not possible on this connection"))
}

/// 101 for a handshake; for anything else an error that says what is missing.
pub fn response(request: &Request) -> Result<Response, ApiError> {
    let headers = request.headers();
    if request.method() != Method::GET || !has_token(headers, header::UPGRADE, "websocket") {
        return Err(not_a_handshake(
            "Upgrade",
            "must be `websocket`: this route is for WebSocket clients (GET with an upgrade)",
        ));
    }
    if !has_token(headers, header::CONNECTION, "upgrade") {
        return Err(not_a_handshake("Connection", "must hold `Upgrade`"));
    }
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    if version.is_none_or(|version| version != "13") {
        return Err(Invalid::one_of("Sec-WebSocket-Version", ["13"]).into());
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|key| key.len() == 24)
        .ok_or_else(|| not_a_handshake("Sec-WebSocket-Key", "must be 16 bytes as padded base64"))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = derive_accept_key(key.as_bytes());
    for (name, value) in [
        (header::UPGRADE, "websocket"),
        (header::CONNECTION, "Upgrade"),
        (header::SEC_WEBSOCKET_ACCEPT, &accept),
    ] {
        let value = value.try_into().map_err(|error| {
            ApiError::internal(&error as &axum::http::header::InvalidHeaderValue)
        })?;
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

/// Whether a comma list in a header holds a word, in any case.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(token))
}

fn not_a_handshake(header: &str, problem: &str) -> ApiError {
    Invalid::new(header, problem).into()
}
