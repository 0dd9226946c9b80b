//! The API's description, and the page that shows it. Both hold nothing of any tenant, so no token is needed; the page asks
//! for one when a request is tried from it. It works without any other server: its files are in the binary, and its policy
//! lets a browser load nothing from elsewhere.

use super::error::{ApiError, Code};
use super::openapi;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use std::sync::{Arc, LazyLock};
use utoipa_swagger_ui::{Config, serve};

/// What the page may load. Swagger UI sets style attributes and draws icons from data URLs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Its links are relative, so that it works below a proxy's prefix, too.
const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Cellblock API</title>
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/swagger-ui-standalone-preset.js"></script>
<script src="docs/swagger-initializer.js"></script>
</body>
</html>
"#;

/// The files that the page names; there are more in Swagger UI's distribution.
const FILES: [&str; 5] = [
    "favicon-32x32.png",
    "swagger-initializer.js",
    "swagger-ui-bundle.js",
    "swagger-ui-standalone-preset.js",
    "swagger-ui.css",
];

/// GET `/openapi.json`
pub async fn description() -> Response {
    static DESCRIPTION: LazyLock<String> = LazyLock::new(openapi::json);
    answer("application/json", DESCRIPTION.as_str())
}

/// GET `/docs`
pub async fn page() -> Response {
    answer("text/html; charset=utf-8", PAGE)
}

/// GET `/docs/{file}`
pub async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
        let config = Config::new(["openapi.json"])
            .use_base_layout()
            .default_models_expand_depth(0)
            // The default asks a public server for its opinion.
            .validator_url("none");
        Arc::new(config)
    });
    let missing = || ApiError::new(Code::NotFound, "there is no such file");
    if !FILES.contains(&name.as_str()) {
        return Err(missing());
    }
    let file = serve(&name, CONFIG.clone())
        .ok()
        .flatten()
        .ok_or_else(missing)?;
    let mut response = answer(&file.content_type, file.bytes);
    if file.gzpipped {
        let gzip = HeaderValue::from_static("gzip");
        response
            .headers_mut()
            .insert(header::CONTENT_ENCODING, gzip);
    }
    Ok(response)
}

fn answer(content_type: &str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    let headers: &mut HeaderMap = response.headers_mut();
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
