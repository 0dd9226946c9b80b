//! `/v1/runtimes`: create, list, get, patch, delete, and start, stop, pause, resume.

use super::answer::Answer;
use super::auth::Caller;
use super::body::JsonBody;
use super::error::{ApiError, Code};
use super::fields::Fields;
use super::idempotency::{self, MaybeKey, Name, Turn};
use super::query::{Params, answer_page};
use super::{App, create};
use crate::log::chain;
use crate::runtime::{ARCH, CreateRequest, Egress, Invalid, Operation, Runtime, Settings, Status};
use crate::store::KeyRow;
use crate::tenant::TenantId;
use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

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
    MaybeKey(key): MaybeKey,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let request = create::parse(body.json()?)?;
    drop(body);
    let Some(key) = key else {
        let runtime = app.runtimes.create(caller.tenant, request).await?;
        return Ok(Answer::text(created(&runtime)).into_response());
    };
    let name = Name {
        tenant: caller.tenant,
        scope: "runtimes".into(),
        key,
    };
    let hash = idempotency::hash(&request);
    let tenant = caller.tenant;
    let work =
        move |app: Arc<App>, turn| async move { create_once(&app, tenant, request, turn).await };
    let made = idempotency::once(&app, name, hash, work).await?;
    Ok(made.await?.into_response())
}

/// Creates the runtime of a key, unless that was done before. An interrupted creation left nothing or a whole runtime.
async fn create_once(
    app: &App,
    tenant: TenantId,
    request: CreateRequest,
    turn: Turn,
) -> Result<Answer, ApiError> {
    let (id, made) = match &turn.found {
        Some(KeyRow {
            answer: Some(answer),
            ..
        }) => return Ok(Answer::text(answer.clone())),
        Some(row) => {
            let id = row.subject;
            (id, app.runtimes.get(tenant, &id.to_string()).ok())
        }
        None => {
            let id = Uuid::now_v7();
            app.store.insert_key(turn.key_for(id)).await?;
            (id, None)
        }
    };
    let made = match made {
        Some(made) => Ok(made),
        None => app.runtimes.create_as(id, tenant, request).await,
    };
    match made {
        Ok(runtime) => {
            let answer = created(&runtime);
            app.store.answer_key(id, answer.clone()).await?;
            Ok(Answer::text(answer))
        }
        Err(error) => {
            if let Err(error) = app.store.release_key(id).await {
                tracing::error!(
                    error = chain(&error),
                    "removing the key of a failed creation"
                );
            }
            Err(error.into())
        }
    }
}

fn created(runtime: &Runtime) -> String {
    json!({ "data": view(runtime) }).to_string()
}

/// GET `/v1/runtimes`
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    query: Params,
) -> Result<Json<Value>, ApiError> {
    let statuses = query.get("status").map(parse_statuses).transpose()?;
    let request = query.page(&caller, "runtimes")?;
    let page = app
        .runtimes
        .list(caller.tenant, statuses.as_deref(), &request);
    Ok(Json(answer_page(&page, |runtime| view(runtime))))
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

/// PATCH `/v1/runtimes/{runtime}`
pub async fn patch(
    State(app): State<Arc<App>>,
    caller: Caller,
    Key(key): Key,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    let request = create::parse_patch(body.json()?)?;
    drop(body);
    let runtime = app.runtimes.patch(caller.tenant, &key, request).await?;
    Ok(Json(json!({ "data": view(&runtime) })))
}

/// POST `/v1/runtimes/{runtime}/start`
pub async fn start(
    State(app): State<Arc<App>>,
    caller: Caller,
    Key(key): Key,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    operate(&app, &caller, &key, &body, Operation::Start).await
}

/// POST `/v1/runtimes/{runtime}/stop`
pub async fn stop(
    State(app): State<Arc<App>>,
    caller: Caller,
    Key(key): Key,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    operate(&app, &caller, &key, &body, Operation::Stop).await
}

/// POST `/v1/runtimes/{runtime}/pause`
pub async fn pause(
    State(app): State<Arc<App>>,
    caller: Caller,
    Key(key): Key,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    operate(&app, &caller, &key, &body, Operation::Pause).await
}

/// POST `/v1/runtimes/{runtime}/resume`
pub async fn resume(
    State(app): State<Arc<App>>,
    caller: Caller,
    Key(key): Key,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    operate(&app, &caller, &key, &body, Operation::Resume).await
}

async fn operate(
    app: &App,
    caller: &Caller,
    key: &str,
    body: &JsonBody,
    operation: Operation,
) -> Result<Json<Value>, ApiError> {
    // Nothing is read from it, but what is no object was meant for something else.
    if let Some(raw) = body.json_or_empty()? {
        Fields::of_body(raw, &[])?;
    }
    let runtime = app.runtimes.operate(caller.tenant, key, operation).await?;
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
    let mut object = json!({
        "id": runtime.id,
        "display_name": runtime.name,
        "status": state.status.as_str(),
        "created_at": runtime.created_at,
        "updated_at": state.updated_at,
        "resources": resources(settings),
        "environment_variables": settings.environment_variables,
        "ingress_specs": settings.ingress,
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
        "image_id": settings.image_id,
        "profile": settings.profile,
        "filesystem": settings.filesystem.as_str(),
        "limits": limits(settings),
        "network": "none",
    });
    // Shown only where something was asked for.
    if let (Some(object), Ok(Value::Object(agent))) = (
        object.as_object_mut(),
        serde_json::to_value(&settings.agent),
    ) {
        object.extend(agent);
    }
    object
}

/// `resources`, which a checkpoint has too.
pub fn resources(settings: &Settings) -> Value {
    json!({
        "requests": { "memory_mib": settings.request_memory_mib, "vcpus": settings.vcpus },
        "limits": { "memory_mib": settings.limit_memory_mib },
        "current": { "memory_mib": settings.request_memory_mib },
    })
}

/// `limits`, which a checkpoint has too.
pub fn limits(settings: &Settings) -> Value {
    json!({ "pids": settings.pids, "disk_mib": settings.disk_mib })
}
