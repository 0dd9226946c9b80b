//! `/v1/checkpoints`, and `/v1/runtimes/{runtime}/checkpoints`: make, list, get, delete.

use super::App;
use super::auth::Caller;
use super::body::JsonBody;
use super::error::{ApiError, Code};
use super::fields::Fields;
use super::query::{Params, answer_page};
use super::runtimes::{Key, limits, resources};
use crate::runtime::{ARCH, Checkpoint, CheckpointRequest};
use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use serde_json::{Value, json};
use std::sync::Arc;

/// A checkpoint's id in the path.
#[derive(Debug)]
pub struct Id(String);

impl FromRequestParts<Arc<App>> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        // What is not UTF-8 is nobody's id.
        let Path(id) = Path::<String>::from_request_parts(parts, app)
            .await
            .map_err(|_| ApiError::new(Code::NotFound, "the checkpoint was not found"))?;
        Ok(Self(id))
    }
}

/// POST `/v1/runtimes/{runtime}/checkpoints`
pub async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Key(key): Key,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    let request = match body.json_or_empty()? {
        None => CheckpointRequest::default(),
        Some(raw) => {
            let fields = Fields::of_body(raw, &["name", "kind"])?;
            CheckpointRequest {
                name: fields.string("name")?,
                kind: fields.string("kind")?,
            }
        }
    };
    drop(body);
    let checkpoint = app
        .runtimes
        .checkpoint(caller.tenant, &key, request)
        .await?;
    Ok(Json(json!({ "data": view(&checkpoint) })))
}

/// GET `/v1/checkpoints`
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    query: Params,
) -> Result<Json<Value>, ApiError> {
    let request = query.page(&caller, "checkpoints")?;
    let page = app.runtimes.checkpoints(caller.tenant, &request);
    Ok(Json(answer_page(&page, |checkpoint| view(checkpoint))))
}

/// GET `/v1/checkpoints/{id}`
pub async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<Value>, ApiError> {
    let checkpoint = app.runtimes.get_checkpoint(caller.tenant, &id)?;
    Ok(Json(json!({ "data": view(&checkpoint) })))
}

/// DELETE `/v1/checkpoints/{id}`
pub async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<Value>, ApiError> {
    app.runtimes.delete_checkpoint(caller.tenant, &id).await?;
    Ok(Json(json!({ "data": {} })))
}

/// The checkpoint object: one superset that clients of every version can read.
fn view(checkpoint: &Checkpoint) -> Value {
    let settings = &checkpoint.settings;
    json!({
        "id": checkpoint.id,
        "display_name": checkpoint.name,
        "state": checkpoint.state().as_str(),
        "created_at": checkpoint.created_at,
        "resources": resources(settings),
        "vcpus": settings.vcpus,
        "min_memory_mib": settings.min_memory_mib,
        "cur_memory_mib": settings.request_memory_mib,
        "max_memory_mib": settings.limit_memory_mib,
        "arch": ARCH,
        "kind": "full",
        "includes_memory": false,
        "runtime_id": checkpoint.runtime,
        "image": settings.image,
        "image_id": settings.image_id,
        "profile": settings.profile,
        "filesystem": settings.filesystem.as_str(),
        "limits": limits(settings),
        "disk_bytes": checkpoint.disk_bytes(),
    })
}
