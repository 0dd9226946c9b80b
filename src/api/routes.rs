//! Which path is whose: the whole of the HTTP surface on one screen.

use super::auth::Caller;
use super::error::{ApiError, Code};
use super::{App, exec_output, exec_records, execs, request_id, runtimes, stream};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// All routes, with ids and error bodies around them.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/v1/runtimes", get(runtimes::list).post(runtimes::create))
        .route(
            "/v1/runtimes/{runtime}",
            get(runtimes::get).delete(runtimes::delete).patch(later),
        )
        .route("/v1/runtimes/{runtime}/exec", post(execs::exec))
        .route("/v1/runtimes/{runtime}/exec/stream", get(stream::stream))
        .route("/v1/execs", get(exec_records::list))
        .route(
            "/v1/execs/{id}",
            get(exec_records::get).delete(exec_records::cancel),
        )
        .route("/v1/execs/{id}/output", get(exec_output::get))
        // Promised by the contract, and not built yet: 501, so that nobody takes them for a typing error.
        .route("/v1/runtimes/{runtime}/start", post(later))
        .route("/v1/runtimes/{runtime}/stop", post(later))
        .route("/v1/runtimes/{runtime}/pause", post(later))
        .route("/v1/runtimes/{runtime}/resume", post(later))
        .route("/v1/runtimes/{runtime}/files", get(later).put(later))
        .route("/v1/runtimes/{runtime}/checkpoints", post(later))
        .route("/v1/checkpoints", get(later))
        .route("/v1/checkpoints/{id}", get(later).delete(later))
        .route("/v1/images", get(later))
        .route("/openapi.json", get(later_for_all))
        .route("/docs", get(later_for_all))
        .route("/metrics", get(later))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(request_id::layer))
        .with_state(app)
}

async fn healthz() -> Json<Value> {
    Json(json!({ "data": { "status": "ok" } }))
}

/// Ready, and what of this host's limits the operator allowed to be missing.
async fn readyz(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    if app.draining.load(Ordering::Relaxed) {
        return Err(ApiError::new(
            Code::Unavailable,
            "the service is shutting down",
        ));
    }
    let missing = &app.config.allow_missing_limits;
    Ok(Json(
        json!({ "data": { "status": "ok", "allowed_missing_limits": missing } }),
    ))
}

async fn later(_: Caller) -> ApiError {
    later_for_all().await
}

async fn later_for_all() -> ApiError {
    ApiError::unimplemented(None, "this operation is not supported yet")
}

async fn no_route() -> ApiError {
    ApiError::new(Code::NotFound, "there is no such route")
}

async fn wrong_method() -> ApiError {
    ApiError::invalid(
        StatusCode::METHOD_NOT_ALLOWED,
        "this route does not have this method",
    )
}
