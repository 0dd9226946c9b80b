//! The API's description, and the page that shows it. Both hold nothing of any tenant, so no token is needed; the page asks
//! for one when a request is tried from it. It works without any other server: its files are in the binary, and its policy
//! lets a browser load nothing from elsewhere.

use super::error::{ApiError, Code};
use super::openapi;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
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
pub async fn file(name: Result<Path<String>, PathRejection>) -> Result<Response, ApiError> {
    static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
        let config = Config::new(["openapi.json"])
            .use_base_layout()
            .default_models_expand_depth(0)
            // The default asks a public server for its opinion.
            .validator_url("none");
        Arc::new(config)
    });
    let missing = || ApiError::new(Code::NotFound, "there is no such file");
    let Path(name) = name.map_err(|_| missing())?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::test_support::Api;

    #[test]
    fn the_description_needs_no_token() {
        let answer = Api::start().send("GET", "/openapi.json", "", "");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.body["openapi"], "3.1.0");
    }

    #[test]
    fn the_page_names_the_files_that_there_are() {
        for name in FILES {
            assert!(PAGE.contains(&format!("\"docs/{name}\"")), "{name}");
        }
        let named = PAGE.matches("=\"docs/").count();
        assert_eq!(named, FILES.len());
    }

    /// What is asked with HEAD, since the answers' bodies are no text.
    #[test]
    fn the_page_and_its_files_are_of_their_types_and_load_nothing_from_elsewhere() {
        let api = Api::start();
        let mut pages = vec![("/docs".to_owned(), "text/html; charset=utf-8")];
        for name in FILES {
            let kind = match name.rsplit('.').next().unwrap() {
                "js" => "text/javascript",
                "css" => "text/css",
                _ => "image/png",
            };
            pages.push((format!("/docs/{name}"), kind));
        }
        for (path, kind) in pages {
            let answer = api.send("HEAD", &path, "", "");
            assert_eq!(
                (answer.status, answer.header("content-type")),
                (200, Some(kind)),
                "{path}"
            );
            let length: usize = answer.header("content-length").unwrap().parse().unwrap();
            assert!(length > 200, "{path}");
            let policy = answer.header("content-security-policy").unwrap();
            assert!(policy.starts_with("default-src 'none';"), "{policy}");
            for source in policy.split([' ', ';']) {
                assert!(!source.contains(['/', '.', '*']), "{source} in {policy}");
            }
        }
    }

    #[tokio::test]
    async fn the_page_is_told_where_the_description_is_and_asks_no_other_server() {
        let name = Ok(Path("swagger-initializer.js".to_owned()));
        let body = file(name).await.unwrap().into_body();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        assert!(text.contains(r#""url": "openapi.json""#), "{text}");
        assert!(text.contains(r#""validatorUrl": "none""#), "{text}");
        assert!(!text.contains("://"), "{text}");
    }

    #[test]
    fn other_files_are_not_found() {
        let api = Api::start();
        for name in ["index.html", "oauth2-redirect.html", "..%2fdocs", "%ff", ""] {
            let answer = api.send("GET", &format!("/docs/{name}"), "", "");
            assert_eq!((answer.status, answer.code()), (404, "not_found"), "{name}");
        }
    }
}
