//! Which path is whose: the whole of the HTTP surface on one screen.

use super::auth::Caller;
use super::error::{ApiError, Code};
use super::{
    App, checkpoints, docs, exec_output, exec_records, execs, files, images, metrics, request_id,
    runtimes, stream,
};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, any, get, post};
use axum::{Json, Router, middleware};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A router that can tell its paths.
#[derive(Default)]
pub struct Table {
    /// In axum's form, which is OpenAPI's too.
    pub paths: Vec<&'static str>,
    router: Router<Arc<App>>,
}

impl Table {
    fn route(mut self, path: &'static str, methods: MethodRouter<Arc<App>>) -> Self {
        self.paths.push(path);
        self.router = self.router.route(path, methods);
        self
    }

    fn not_here(self) -> Self {
        NOT_HERE.iter().fold(self, |mut table, path| {
            let below = format!("{path}/{{*below}}");
            table.router = table.router.route(&below, any(unsupported));
            table.route(path, any(unsupported))
        })
    }
}

/// What clients of the hosted product know and this service does not have. All methods and all that is below answer 501.
pub const NOT_HERE: &[&str] = &[
    "/v1/secrets",
    "/v1/secret-stubs",
    "/v1/default-secret-stubs",
    "/v1/secret-injection-rules",
    "/v1/audits",
    "/v1/events",
    "/v1/runtimes/{runtime}/secret-stubs",
    "/v1/runtimes/{runtime}/secret-injection-rules",
    "/v1/runtimes/{runtime}/ssh-keys",
    "/v1/runtimes/{runtime}/watchfox",
    "/v1/runtimes/{runtime}/egress",
];

/// All routes, with ids and error bodies around them.
pub fn router(app: Arc<App>) -> Router {
    table()
        .router
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(request_id::layer))
        .with_state(app)
}

/// All routes.
pub fn table() -> Table {
    Table::default()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/v1/runtimes", get(runtimes::list).post(runtimes::create))
        .route(
            "/v1/runtimes/{runtime}",
            get(runtimes::get)
                .patch(runtimes::patch)
                .delete(runtimes::delete),
        )
        .route("/v1/runtimes/{runtime}/start", post(runtimes::start))
        .route("/v1/runtimes/{runtime}/stop", post(runtimes::stop))
        .route("/v1/runtimes/{runtime}/pause", post(runtimes::pause))
        .route("/v1/runtimes/{runtime}/resume", post(runtimes::resume))
        .route("/v1/runtimes/{runtime}/exec", post(execs::exec))
        .route("/v1/runtimes/{runtime}/exec/stream", get(stream::stream))
        .route(
            "/v1/runtimes/{runtime}/files",
            get(files::read).put(files::write),
        )
        .route(
            "/v1/runtimes/{runtime}/checkpoints",
            post(checkpoints::create),
        )
        .route("/v1/checkpoints", get(checkpoints::list))
        .route(
            "/v1/checkpoints/{id}",
            get(checkpoints::get).delete(checkpoints::delete),
        )
        .route("/v1/execs", get(exec_records::list))
        .route(
            "/v1/execs/{id}",
            get(exec_records::get).delete(exec_records::cancel),
        )
        .route("/v1/execs/{id}/output", get(exec_output::get))
        .route("/v1/images", get(images::list))
        .route("/metrics", get(metrics::show))
        .route("/openapi.json", get(docs::description))
        .route("/docs", get(docs::page))
        .route("/docs/{file}", get(docs::file))
        .not_here()
}

async fn healthz() -> Json<Value> {
    Json(json!({ "data": { "status": "ok" } }))
}

/// Ready, and what of this host's limits the operator allowed to be missing.
async fn readyz(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    if app.draining.load(Ordering::Relaxed) {
        return Err(ApiError::with_reason(
            Code::Unavailable,
            "shutting_down",
            "the service is shutting down",
        ));
    }
    if !app.runtimes.can_start().await {
        return Err(ApiError::with_reason(
            Code::Unavailable,
            "launcher_unreachable",
            "the launcher does not answer or is being restarted",
        ));
    }
    if !app.runtimes.has_room() {
        return Err(ApiError::with_reason(
            Code::Unavailable,
            "no_room",
            "the server's disk is full; runtimes can be stopped and deleted",
        ));
    }
    let missing = &app.config.allow_missing_limits;
    Ok(Json(
        json!({ "data": { "status": "ok", "allowed_missing_limits": missing } }),
    ))
}

async fn unsupported(_: Caller) -> ApiError {
    ApiError::unimplemented("this service does not have this operation")
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
