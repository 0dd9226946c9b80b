//! Checkpoints.

use super::runtime::{Arch, Resources};
use utoipa::ToSchema;

/// What to keep of a runtime.
#[derive(ToSchema)]
pub struct CreateCheckpointRequest {
    /// A name; a random one if left out.
    #[schema(min_length = 1, max_length = 63)]
    name: Option<String>,
    kind: Option<CheckpointKind>,
}

/// The disk, and what the runtime is settled to be.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum CheckpointKind {
    Full,
}

/// A copy of a runtime's disk and settings.
#[derive(ToSchema)]
pub struct Checkpoint {
    #[schema(format = "uuid")]
    id: String,
    /// Its name.
    display_name: String,
    state: CheckpointState,
    #[schema(format = "date-time")]
    created_at: String,
    resources: Resources,
    #[schema(deprecated)]
    vcpus: u32,
    #[schema(deprecated)]
    min_memory_mib: u64,
    #[schema(deprecated)]
    cur_memory_mib: u64,
    #[schema(deprecated)]
    max_memory_mib: u64,
    arch: Arch,
}

/// What has become of it.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum CheckpointState {
    Creating,
    Ready,
    Failed,
}
