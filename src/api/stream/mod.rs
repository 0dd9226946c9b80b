//! GET `/v1/runtimes/{runtime}/exec/stream`: one command per WebSocket.
//!
//! ```text
//! upgrade   is it a WebSocket handshake; hands the connection from HTTP over to the session
//! session   start → a running command
//! command   frames in both directions while it runs    follow   its output and its end
//! line      messages, and the close with its last words
//! frames    client's JSON → what it means; what the server says → JSON
//! socket    the TCP connection below the WebSocket: also says that the client is gone while nobody reads
//! ```
//!
//! **Flow control.** In both directions a bounded number of pieces is on its way, and then whoever sends waits: a client
//! that does not read blocks the command's writes, a command that does not read keeps us from reading the client. The
//! second means that the client's `signal`, too, waits behind its own `stdin`; a connection that ends is seen all the
//! same.

mod command;
mod follow;
mod frames;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod line;
mod session;
mod socket;
mod upgrade;

pub use follow::{Follow, Next};
pub use frames::Frame;
pub use upgrade::Handover;

use super::App;
use super::auth::Caller;
use super::error::ApiError;
use super::idempotency::MaybeKey;
use super::runtimes::Key;
use crate::runtime::Invalid;
use axum::extract::{Request, State};
use axum::response::Response;
use session::Session;
use std::sync::Arc;
use tracing::Instrument;

/// Refuses with a normal error what can be refused before the command is known, and answers 101 to the rest.
pub async fn stream(
    State(app): State<Arc<App>>,
    caller: Caller,
    Key(key): Key,
    MaybeKey(once): MaybeKey,
    mut request: Request,
) -> Result<Response, ApiError> {
    if once.is_some() {
        let problem = "can't be used with a stream, which is not kept to be sent again";
        return Err(Invalid::new("Idempotency-Key", problem).into());
    }
    let response = upgrade::response(&request)?;
    app.runtimes.get_running(caller.tenant, &key).await?;
    let handover = upgrade::handover(&request)?;
    let upgraded = hyper::upgrade::on(&mut request);
    let session = Session {
        app,
        tenant: caller.tenant,
        key,
        stop: handover.stopping(),
    };
    let serve = async move {
        match upgraded.await {
            Ok(upgraded) => session.serve(upgraded).await,
            Err(error) => tracing::debug!(%error, "a client left before its stream began"),
        }
    };
    handover.give(serve.in_current_span());
    Ok(response)
}
