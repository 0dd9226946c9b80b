//! The server itself.

use crate::api::openapi::errors::Fails;
use crate::api::openapi::schemas::common::{Data, RawBytes};
use utoipa::ToSchema;

/// That the server answers.
#[derive(ToSchema)]
struct Health {
    status: Ok,
}

/// That the server runs commands.
#[derive(ToSchema)]
struct Readiness {
    status: Ok,
    /// Limits that this host can't enforce and that the operator allowed to be missing.
    allowed_missing_limits: Vec<String>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum Ok {
    Ok,
}

/// Alive
#[utoipa::path(
    get, path = "/healthz", tag = "service",
    responses((status = 200, description = "It is.", body = Data<Health>)),
)]
pub fn healthz() {}

/// Alive
#[utoipa::path(
    head, path = "/healthz", tag = "service",
    responses((status = 200, description = "It is.", content_type = "application/json")),
)]
pub fn healthz_head() {}

/// Ready to run commands
#[utoipa::path(
    get, path = "/readyz", tag = "service",
    responses((status = 200, description = "It is.", body = Data<Readiness>), Fails<503>),
)]
pub fn readyz() {}

/// Counts and states for Prometheus
///
/// Of all tenants together, in the text format of OpenMetrics 1.0.
#[utoipa::path(
    get, path = "/metrics", tag = "service",
    responses((status = 200, description = "They are.", body = String, content_type = "application/openmetrics-text")),
)]
pub fn metrics() {}

/// This description
#[utoipa::path(
    get, path = "/openapi.json", tag = "service",
    responses((status = 200, description = "OpenAPI 3.1.", body = Object)),
)]
pub fn openapi_json() {}

/// This description as a page
#[utoipa::path(
    get, path = "/docs", tag = "service",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")),
)]
pub fn docs() {}

/// A file of that page
#[utoipa::path(
    get, path = "/docs/{file}", tag = "service",
    params(("file" = inline(DocsFile), Path, description = "Its name")),
    responses(
        (status = 200, description = "The file.", content(
            (String = "text/css"), (String = "text/javascript"), (RawBytes = "image/png"),
        )),
        Fails<404>,
    ),
)]
pub fn docs_file() {}

/// The page's files.
#[derive(ToSchema)]
enum DocsFile {
    #[schema(rename = "favicon-32x32.png")]
    Icon,
    #[schema(rename = "swagger-initializer.js")]
    Initializer,
    #[schema(rename = "swagger-ui-bundle.js")]
    Bundle,
    #[schema(rename = "swagger-ui-standalone-preset.js")]
    Preset,
    #[schema(rename = "swagger-ui.css")]
    Style,
}
