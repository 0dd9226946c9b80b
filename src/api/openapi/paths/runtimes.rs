//! Runtimes and their states.

use crate::api::openapi::errors::{Fails, JsonBody, Work};
use crate::api::openapi::schemas::common::{Data, Empty, IdempotencyKey, List, Paging, RuntimeKey};
use crate::api::openapi::schemas::create::{
    CreateRuntimeRequest, EmptyRequest, PatchRuntimeRequest,
};
use crate::api::openapi::schemas::runtime::{Runtime, StatusFilter};

/// Create a runtime
///
/// Answers when commands can run in it; if that takes more than ten seconds, with the status `creating`. 404 is an unknown
/// `checkpoint_id`.
#[utoipa::path(
    post, path = "/v1/runtimes", tag = "runtimes",
    params(IdempotencyKey),
    request_body(content = CreateRuntimeRequest, examples(
        ("defaults" = (summary = "With all defaults", value = json!({}))),
        ("small" = (summary = "Small", value = json!({
            "resources": {"requests": {"memory_mib": 64, "vcpus": 1}, "limits": {"memory_mib": 128}},
            "limits": {"pids": 64, "disk_mib": 64},
            "environment_variables": {"GREETING": "hello"},
            "filesystem": "ephemeral",
        }))),
    )),
    responses(
        (status = 200, description = "The new runtime.", body = Data<Runtime>),
        JsonBody, Fails<404>, Fails<409>, Work,
    ),
)]
pub fn create_runtime() {}

/// List runtimes
#[utoipa::path(
    get, path = "/v1/runtimes", tag = "runtimes",
    params(StatusFilter, Paging),
    responses((status = 200, description = "Runtimes, oldest first.", body = List<Runtime>), Fails<422>),
)]
pub fn list_runtimes() {}

/// Show a runtime
#[utoipa::path(
    get, path = "/v1/runtimes/{runtime}", tag = "runtimes",
    params(RuntimeKey),
    responses((status = 200, description = "The runtime.", body = Data<Runtime>), Fails<404>),
)]
pub fn get_runtime() {}

/// Change a runtime
///
/// New limits hold at once, for commands that run, too.
#[utoipa::path(
    patch, path = "/v1/runtimes/{runtime}", tag = "runtimes",
    params(RuntimeKey),
    request_body(content = PatchRuntimeRequest, example = json!({"resources": {"limits": {"memory_mib": 256}}})),
    responses(
        (status = 200, description = "The runtime as it is now.", body = Data<Runtime>),
        JsonBody, Fails<404>, Fails<409>, Work,
    ),
)]
pub fn patch_runtime() {}

/// Delete a runtime
///
/// Kills what runs in it and removes its files. Its checkpoints and the records of its commands stay. 409: it is still being
/// created.
#[utoipa::path(
    delete, path = "/v1/runtimes/{runtime}", tag = "runtimes",
    params(RuntimeKey),
    responses((status = 200, description = "It is gone.", body = Data<Empty>), Fails<404>, Fails<409>, Work),
)]
pub fn delete_runtime() {}

/// Start a stopped runtime
#[utoipa::path(
    post, path = "/v1/runtimes/{runtime}/start", tag = "runtimes",
    params(RuntimeKey),
    request_body = Option<EmptyRequest>,
    responses(
        (status = 200, description = "The runtime, `running`.", body = Data<Runtime>),
        JsonBody, Fails<404>, Fails<409>, Work,
    ),
)]
pub fn start_runtime() {}

/// Stop a runtime
///
/// Kills every process in it. Its files stay.
#[utoipa::path(
    post, path = "/v1/runtimes/{runtime}/stop", tag = "runtimes",
    params(RuntimeKey),
    request_body = Option<EmptyRequest>,
    responses(
        (status = 200, description = "The runtime, `shutdown`.", body = Data<Runtime>),
        JsonBody, Fails<404>, Fails<409>, Work,
    ),
)]
pub fn stop_runtime() {}

/// Pause a runtime
///
/// Its processes are frozen where they are, and their memory is kept. Their time stands still too, and that of files on
/// their way.
#[utoipa::path(
    post, path = "/v1/runtimes/{runtime}/pause", tag = "runtimes",
    params(RuntimeKey),
    request_body = Option<EmptyRequest>,
    responses(
        (status = 200, description = "The runtime, `paused`.", body = Data<Runtime>),
        JsonBody, Fails<404>, Fails<409>, Work,
    ),
)]
pub fn pause_runtime() {}

/// Resume a paused runtime
#[utoipa::path(
    post, path = "/v1/runtimes/{runtime}/resume", tag = "runtimes",
    params(RuntimeKey),
    request_body = Option<EmptyRequest>,
    responses(
        (status = 200, description = "The runtime, `running`.", body = Data<Runtime>),
        JsonBody, Fails<404>, Fails<409>, Work,
    ),
)]
pub fn resume_runtime() {}
