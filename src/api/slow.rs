//! The answer of what may take long. Clients give up after a while without a byte, so an answer that is late begins
//! before it is known: status 200 and now and then a space, which JSON allows ahead of its value. What goes wrong from then
//! on is an error's body in that answer.

use super::answer::Answer;
use super::chunks;
use super::error::ApiError;
use super::request_id::RequestId;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// How long an answer may take before it begins with spaces. The official client waits 30 s for a first byte.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Between two spaces.
const BEAT: Duration = Duration::from_secs(5);

/// Waits for `result`, at most until `begin` before the answer begins. Where the client goes away, `result` is dropped.
pub async fn reply(
    result: impl Future<Output = Result<Answer, ApiError>> + Send + 'static,
    begin: Instant,
    request_id: RequestId,
) -> Result<Response, ApiError> {
    let mut result = Box::pin(result);
    if let Ok(result) = timeout_at(begin, &mut result).await {
        return result.map(Answer::into_response);
    }
    let (to, body) = chunks::channel(None);
    tokio::spawn(async move {
        let result = loop {
            // A space that finds no place is not missed: the ones before it are still under way.
            let _ = to.try_send(Ok(Bytes::from_static(b" ")));
            tokio::select! {
                result = &mut result => break result,
                () = sleep(BEAT) => {}
                () = to.closed() => return,
            }
        };
        match result {
            Ok(answer) => answer.send(&to).await,
            Err(error) => {
                let _ = to.send(Ok(error.into_body(&request_id.0).into())).await;
            }
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

#[cfg(test)]
#[path = "slow_tests.rs"]
mod tests;
