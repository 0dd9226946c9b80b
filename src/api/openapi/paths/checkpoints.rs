//! Checkpoints.

use crate::api::openapi::errors::{Fails, JsonBody, Work};
use crate::api::openapi::schemas::checkpoint::{Checkpoint, CreateCheckpointRequest};
use crate::api::openapi::schemas::common::{Data, Empty, List, Paging, RuntimeKey};

/// Keep a copy of a runtime's disk
///
/// Its settings are kept with it; its processes are not: they stand still while the disk is copied. If that takes more than
/// ten seconds, the answer's `state` is `creating`, and becomes `ready` or `failed`.
#[utoipa::path(
    post, path = "/v1/runtimes/{runtime}/checkpoints", tag = "checkpoints",
    params(RuntimeKey),
    request_body = Option<CreateCheckpointRequest>,
    responses(
        (status = 200, description = "The checkpoint.", body = Data<Checkpoint>),
        JsonBody, Fails<404>, Fails<409>, Work,
    ),
)]
pub fn create_checkpoint() {}

/// List checkpoints
#[utoipa::path(
    get, path = "/v1/checkpoints", tag = "checkpoints",
    params(Paging),
    responses((status = 200, description = "Checkpoints, oldest first.", body = List<Checkpoint>), Fails<422>),
)]
pub fn list_checkpoints() {}

/// Show a checkpoint
#[utoipa::path(
    get, path = "/v1/checkpoints/{id}", tag = "checkpoints",
    params(("id" = String, Path, description = "The checkpoint's id", min_length = 1)),
    responses((status = 200, description = "The checkpoint.", body = Data<Checkpoint>), Fails<404>),
)]
pub fn get_checkpoint() {}

/// Delete a checkpoint
///
/// Waits for its making, and for a runtime that is being made of it; 503 where that takes more than 20 seconds.
#[utoipa::path(
    delete, path = "/v1/checkpoints/{id}", tag = "checkpoints",
    params(("id" = String, Path, description = "The checkpoint's id", min_length = 1)),
    responses((status = 200, description = "It is gone.", body = Data<Empty>), Fails<404>, Work),
)]
pub fn delete_checkpoint() {}
