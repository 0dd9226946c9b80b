//! `/v1/runtimes`: create, list, get, delete.

use super::auth::Caller;
use super::body::JsonBody;
use super::error::{ApiError, Code};
use super::{App, create};
use crate::runtime::{ARCH, Egress, Invalid, PageRequest, Runtime, Status};
use crate::warden::protocol::Filesystem;
use axum::Json;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde_json::{Value, json};
use std::sync::Arc;

/// What a client calls a runtime in the path: an id or a name.
#[derive(Debug)]
pub struct Key(pub String);

impl FromRequestParts<Arc<App>> for Key {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        // What is not UTF-8 is nobody's name.
        let Path(key) = Path::<String>::from_request_parts(parts, app)
            .await
            .map_err(|_| ApiError::new(Code::NotFound, "the runtime was not found"))?;
        Ok(Self(key))
    }
}

/// POST `/v1/runtimes`
pub async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    refuse_idempotency_key(&headers)?;
    let request = create::parse(body.json()?)?;
    drop(body);
    let runtime = app.runtimes.create(caller.tenant, request).await?;
    Ok(Json(json!({ "data": view(&runtime) })))
}

/// GET `/v1/runtimes`
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    query: Result<Query<Vec<(String, String)>>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(pairs) = query.map_err(|_| Invalid::new("query", "is not a valid query string"))?;
    let get = |name: &str| {
        pairs
            .iter()
            .rev()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    };
    let statuses = get("status").map(parse_statuses).transpose()?;
    let request = PageRequest::parse(get("limit"), get("offset"), get("after"))?;
    let page = app
        .runtimes
        .list(caller.tenant, statuses.as_deref(), &request);
    Ok(Json(json!({
        "data": page.items.iter().map(|runtime| view(runtime)).collect::<Vec<_>>(),
        "pagination": {
            "next_cursor": page.next_cursor,
            "has_more": page.next_cursor.is_some(),
            "limit": page.limit,
            "offset": page.offset,
            "total": page.total,
            "next_offset": page.next_offset(),
        },
    })))
}

/// GET `/v1/runtimes/{runtime}`
pub async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    Key(key): Key,
) -> Result<Json<Value>, ApiError> {
    let runtime = app.runtimes.get(caller.tenant, &key)?;
    Ok(Json(json!({ "data": view(&runtime) })))
}

/// DELETE `/v1/runtimes/{runtime}`
pub async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Key(key): Key,
) -> Result<Json<Value>, ApiError> {
    app.runtimes.delete(caller.tenant, &key).await?;
    Ok(Json(json!({ "data": {} })))
}

/// Keys are not kept yet. To run what was meant to run once at most would be worse than to refuse.
pub fn refuse_idempotency_key(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key("idempotency-key") {
        let message = "`Idempotency-Key` is not supported yet; nothing was done";
        return Err(ApiError::unimplemented(Some("Idempotency-Key"), message));
    }
    Ok(())
}

fn parse_statuses(list: &str) -> Result<Vec<Status>, Invalid> {
    list.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(|word| {
            Status::parse(word).ok_or_else(|| {
                let words = Status::ALL.iter().map(|status| status.as_str());
                Invalid::one_of("status", words.chain(["active", "stopped"]))
            })
        })
        .collect()
}

/// The runtime object: one superset that clients of every version can read.
fn view(runtime: &Runtime) -> Value {
    let state = runtime.state();
    let settings = &runtime.settings;
    let Egress {
        mode,
        allowed_hosts,
        denied_hosts,
        enabled,
    } = &settings.egress;
    let filesystem = match settings.filesystem {
        Filesystem::Persistent => "persistent",
        Filesystem::Ephemeral => "ephemeral",
        Filesystem::ReadOnly => "read_only",
    };
    json!({
        "id": runtime.id,
        "display_name": runtime.name,
        "status": state.status.as_str(),
        "created_at": runtime.created_at,
        "updated_at": state.updated_at,
        "resources": {
            "requests": { "memory_mib": settings.request_memory_mib, "vcpus": settings.vcpus },
            "limits": { "memory_mib": settings.limit_memory_mib },
            "current": { "memory_mib": settings.request_memory_mib },
        },
        "environment_variables": settings.environment_variables,
        "ingress_specs": [],
        "egress_policy": {
            "mode": mode,
            "allowed_hosts": allowed_hosts,
            "denied_hosts": denied_hosts,
            "enabled": enabled,
            "intercept_enabled": enabled,
        },
        "idle_policy": settings.idle_policy,
        "ssh_enabled": false,
        "llm_tool_io_capture_enabled": settings.llm_tool_io_capture_enabled,
        "llm_token_saving_policy": settings.llm_token_saving_policy,
        "vcpus": settings.vcpus,
        "min_memory_mib": settings.min_memory_mib,
        "cur_memory_mib": settings.request_memory_mib,
        "max_memory_mib": settings.limit_memory_mib,
        "arch": ARCH,
        "image": settings.image,
        "profile": settings.profile,
        "filesystem": filesystem,
        "limits": { "pids": settings.pids, "disk_mib": settings.disk_mib },
        "network": "none",
    })
}
