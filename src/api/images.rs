//! `/v1/images`: what runtimes can be made of. The list is the operator's, and so the same for every tenant.

use super::App;
use super::auth::Caller;
use super::error::ApiError;
use super::query::{Params, answer_page};
use crate::image::content::ImageConfig;
use crate::image::listed::Listed;
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
    let images = app.runtimes.images().await?;
    let page = Page::cut(images, &request, |image| image.name.clone());
    Ok(Json(answer_page(&page, view)))
}

fn view(image: &Listed) -> Value {
    let created = image.created.as_deref();
    json!({
        "name": image.name,
        "kind": image.kind.as_str(),
        "id": image.id,
        "architecture": image.architecture,
        "size_bytes": image.bytes,
        "layers": image.layers,
        // An image may say anything there.
        "created_at": created.filter(|text| text.parse::<jiff::Timestamp>().is_ok()),
        "config": image.config.as_ref().map(config),
    })
}

/// What its commands begin with. It is as public as the rest of the image.
fn config(config: &ImageConfig) -> Value {
    json!({
        "env": config.env,
        "user": config.user,
        "working_dir": config.working_dir,
    })
}
