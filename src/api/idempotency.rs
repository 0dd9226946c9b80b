//! `Idempotency-Key`: a request that a client may send again, and that is carried out once. While it is carried out, all
//! who sent it wait for the one answer; afterwards the stored outcome answers.

use super::App;
use super::answer::Answer;
use super::error::{ApiError, Code};
use crate::exec::KEY_LIFE;
use crate::runtime::Invalid;
use crate::store::KeyRow;
use crate::tenant::TenantId;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;
use uuid::Uuid;

const HEADER: &str = "Idempotency-Key";

/// Most characters of a key.
const MAX_KEY: usize = 255;

/// The request's key, where it has one.
#[derive(Debug)]
pub struct MaybeKey(pub Option<String>);

impl FromRequestParts<Arc<App>> for MaybeKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        let mut values = parts.headers.get_all(HEADER).iter();
        let Some(value) = values.next() else {
            return Ok(Self(None));
        };
        let bytes = value.as_bytes();
        let visible = bytes.iter().all(u8::is_ascii_graphic);
        if !visible || !(1..=MAX_KEY).contains(&bytes.len()) || values.next().is_some() {
            let problem = format!("must be one header of 1 to {MAX_KEY} visible ASCII characters");
            return Err(Invalid::new(HEADER, problem).into());
        }
        Ok(Self(Some(String::from_utf8_lossy(bytes).into_owned())))
    }
}

/// Which request is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    /// Whose it is.
    pub tenant: TenantId,
    /// The operation, and the runtime where it has one.
    pub scope: String,
    /// The client's key.
    pub key: String,
}

/// What tells a request from another one.
pub type RequestHash = [u8; 32];

/// The hash of a request. What JSON leaves open (order, white space, null or absent) makes no difference.
pub fn hash(request: &impl serde::Serialize) -> RequestHash {
    let mut hash = Sha256::new();
    // Neither plain data nor a hash can fail.
    let _ = serde_json::to_writer(&mut hash, request);
    hash.finalize().into()
}

type Outcome = Result<Answer, ApiError>;

/// Requests with a key that are being carried out.
#[derive(Debug, Default)]
pub struct Flights(Mutex<HashMap<Name, Flight>>);

#[derive(Debug)]
struct Flight {
    request: RequestHash,
    outcome: watch::Sender<Option<Outcome>>,
}

/// The right to carry a request out, or to answer with what came of it.
#[derive(Debug)]
pub struct Turn {
    /// What is stored of it.
    pub found: Option<KeyRow>,
    name: Name,
    request: RequestHash,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Turn {
    /// The row that notes that the request makes `subject`.
    pub fn key_for(&self, subject: Uuid) -> KeyRow {
        KeyRow {
            tenant: self.name.tenant.0,
            scope: self.name.scope.clone(),
            key: self.name.key.clone(),
            request: self.request,
            subject,
            answer: None,
            created_at: now(),
        }
    }

    /// Resolves when nobody waits for the answer any more.
    pub async fn abandoned(&self) {
        self.outcome.closed().await;
    }
}

/// Has `work` carry a request out in a task of its own, unless somebody does so already, and gives the wait for the answer.
///
/// # Errors
/// When the key stands for another request.
pub async fn once<W, F>(
    app: &Arc<App>,
    name: Name,
    request: RequestHash,
    work: W,
) -> Result<impl Future<Output = Outcome> + Send + 'static + use<W, F>, ApiError>
where
    W: FnOnce(Arc<App>, Turn) -> F + Send + 'static,
    F: Future<Output = Outcome> + Send,
{
    // Before anything is begun, so that a wrong request never stands in the way of the right one.
    if !app.flights.has(&name)
        && let Some(row) = stored(app, &name).await?
        && row.request != request
    {
        return Err(another_request());
    }
    let (outcome, answer) = match app.flights.join(&name, request)? {
        Joined::Waiting(answer) => return Ok(wait(answer)),
        Joined::First(outcome, answer) => (outcome, answer),
    };
    let flight = Listed {
        app: app.clone(),
        name: name.clone(),
    };
    let busy = app.executor.busy();
    tokio::spawn(async move {
        let _busy = busy;
        let app = flight.app.clone();
        let done = match stored(&app, &name).await {
            Err(error) => Err(error),
            Ok(Some(row)) if row.request != request => Err(another_request()),
            Ok(found) => {
                let turn = Turn {
                    found,
                    name,
                    request,
                    outcome: outcome.clone(),
                };
                work(app, turn).await
            }
        };
        // From here on the stored outcome answers.
        drop(flight);
        outcome.send_replace(Some(done));
    });
    Ok(wait(answer))
}

async fn wait(mut answer: watch::Receiver<Option<Outcome>>) -> Outcome {
    match answer.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(interrupted())),
        Err(_) => Err(interrupted()),
    }
}

async fn stored(app: &App, name: &Name) -> Result<Option<KeyRow>, ApiError> {
    let since = app.executor.records().now_for_ages() - KEY_LIFE.as_millis() as i64;
    let Name { tenant, scope, key } = name.clone();
    Ok(app.store.key(tenant.0, scope, key, since).await?)
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn another_request() -> ApiError {
    let message =
        "this `Idempotency-Key` was used for another request; use a new key for a new request";
    ApiError::with_reason(Code::FailedPrecondition, "key_reused", message).detail("field", HEADER)
}

fn interrupted() -> ApiError {
    ApiError::with_reason(
        Code::Unavailable,
        "interrupted",
        "the request was interrupted; send it again",
    )
}

enum Joined {
    Waiting(watch::Receiver<Option<Outcome>>),
    First(
        watch::Sender<Option<Outcome>>,
        watch::Receiver<Option<Outcome>>,
    ),
}

impl Flights {
    fn join(&self, name: &Name, request: RequestHash) -> Result<Joined, ApiError> {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(name) {
            if flight.request != request {
                return Err(another_request());
            }
            return Ok(Joined::Waiting(flight.outcome.subscribe()));
        }
        let (outcome, answer) = watch::channel(None);
        let flight = Flight {
            request,
            outcome: outcome.clone(),
        };
        flights.insert(name.clone(), flight);
        Ok(Joined::First(outcome, answer))
    }

    fn has(&self, name: &Name) -> bool {
        self.flights().contains_key(name)
    }

    // Single calls on the map can't leave it half changed.
    fn flights(&self) -> MutexGuard<'_, HashMap<Name, Flight>> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Keeps a flight listed, however its task ends.
struct Listed {
    app: Arc<App>,
    name: Name,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.app.flights.flights().remove(&self.name);
    }
}
