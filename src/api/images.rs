//! `/v1/images`: what runtimes can be made of. The list is the operator's, and so the same for every tenant.

use super::App;
use super::auth::Caller;
use super::error::ApiError;
use super::query::{Params, answer_page};
use crate::runtime::Page;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;

/// GET `/v1/images`
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    query: Params,
) -> Result<Json<Value>, ApiError> {
    let request = query.page(&caller, "images")?;
    let names = app.runtimes.images().await?;
    let page = Page::cut(names, &request, String::clone);
    Ok(Json(answer_page(&page, |name| json!({ "name": name }))))
}
