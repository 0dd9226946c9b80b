//! JSON request bodies: read with a bound on their size, on the time between their pieces and on what all of them
//! together hold in memory. A body that is sent by halves costs what has arrived, for a bounded time.

use super::App;
use super::error::{ApiError, Code};
use super::fields::parse_json;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// Longest silence while a body arrives.
const IDLE: Duration = Duration::from_secs(10);

/// Longest time for a whole body.
const WHOLE: Duration = Duration::from_secs(120);

/// How long a refused body is read on, so that its sender gets to read the answer.
const LINGER: Duration = Duration::from_secs(5);

/// … while it comes: who is silent for so long has had the time to read it.
const SILENCE: Duration = Duration::from_secs(1);

/// A body is counted in units of this many bytes…
const UNIT: usize = 1024;

/// … and twice: as it came, and as the strings that are read from it.
const COPIES: usize = 2;

/// The memory that all bodies may hold together.
#[derive(Debug)]
pub struct BodyBudget(Arc<Semaphore>);

impl BodyBudget {
    /// A budget of so many bytes.
    pub fn new(bytes: u64) -> Self {
        let units = usize::try_from(bytes / UNIT as u64).unwrap_or(usize::MAX);
        Self(Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))))
    }

    /// Sets so many bytes aside until the permit is dropped.
    pub fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        u32::try_from(bytes.div_ceil(UNIT))
            .ok()
            .and_then(|units| self.0.clone().try_acquire_many_owned(units).ok())
            .ok_or_else(|| {
                ApiError::with_reason(
                    Code::Unavailable,
                    "server_busy",
                    "too many requests are being read",
                )
            })
    }

    fn take(&self, bytes: usize, held: &mut Option<OwnedSemaphorePermit>) -> Result<(), ApiError> {
        let have = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = (bytes * COPIES).div_ceil(UNIT).saturating_sub(have);
        let permit = self.reserve(more * UNIT)?;
        match held {
            Some(held) => held.merge(permit),
            None => *held = Some(permit),
        }
        Ok(())
    }
}

/// A whole body, which is said to be JSON.
#[derive(Debug)]
pub struct JsonBody {
    bytes: Vec<u8>,
    _held: Option<OwnedSemaphorePermit>,
}

impl JsonBody {
    /// The JSON.
    pub fn json(&self) -> Result<&RawValue, ApiError> {
        parse_json(&self.bytes)
            .map_err(|problem| ApiError::invalid(StatusCode::BAD_REQUEST, problem))
    }

    /// The JSON, where there is any: `null` is none.
    pub fn json_or_empty(&self) -> Result<Option<&RawValue>, ApiError> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let raw = self.json()?;
        Ok((raw.get() != "null").then_some(raw))
    }
}

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let (parts, mut body) = request.into_parts();
        let read = async {
            check_type(&parts.headers)?;
            check_length(&parts.headers, app.config.max_body_bytes)?;
            read(&mut body, app).await
        };
        let read = read.await;
        if read.is_err() {
            linger(body);
        }
        read
    }
}

/// Reads a body on for a while, whoever refused it: to close at once would reset the connection while the client still
/// sends, and the answer would be lost.
pub(super) fn linger(mut body: axum::body::Body) {
    tokio::spawn(timeout(LINGER, async move {
        while let Ok(Some(Ok(_))) = timeout(SILENCE, body.frame()).await {}
    }));
}

async fn read(body: &mut axum::body::Body, app: &App) -> Result<JsonBody, ApiError> {
    let deadline = Instant::now() + WHOLE;
    let mut bytes = Vec::new();
    let mut held = None;
    loop {
        let frame = timeout_at(deadline.min(Instant::now() + IDLE), body.frame())
            .await
            .map_err(|_| {
                ApiError::invalid(
                    StatusCode::BAD_REQUEST,
                    "the request body did not arrive in time",
                )
            })?;
        let data = match frame {
            None => return Ok(JsonBody { bytes, _held: held }),
            Some(Err(_)) => {
                return Err(ApiError::invalid(
                    StatusCode::BAD_REQUEST,
                    "the request body broke off",
                ));
            }
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        let length = bytes.len() + data.len();
        if length as u64 > app.config.max_body_bytes {
            return Err(too_large(app.config.max_body_bytes));
        }
        app.body_budget.take(length, &mut held)?;
        bytes.extend_from_slice(&data);
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    // JSON has no such parameter (RFC 8259, section 11), but clients give one.
    let utf8 = parts
        .filter_map(|parameter| parameter.split_once('='))
        .filter(|(name, _)| name.trim_end() == "charset")
        .all(|(_, charset)| charset.trim().trim_matches('"') == "utf-8");
    let problem = match (json, utf8) {
        (true, true) => return Ok(()),
        (true, false) => "the body's `charset` must be `utf-8` or absent",
        (false, _) => "the body must be `application/json`",
    };
    Err(ApiError::invalid(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        problem,
    ))
}

/// The length that a body announces, if it does.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn check_length(headers: &HeaderMap, most: u64) -> Result<(), ApiError> {
    if content_length(headers).is_some_and(|length| length > most) {
        Err(too_large(most))
    } else {
        Ok(())
    }
}

fn too_large(most: u64) -> ApiError {
    ApiError::invalid(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is larger than {most} bytes"),
    )
    .detail("max_body_bytes", most)
}
