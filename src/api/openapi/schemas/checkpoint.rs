//! Checkpoints.

use super::runtime::{Arch, Filesystem, Resources, RuntimeLimits};
use utoipa::ToSchema;

/// What to keep of a runtime.
#[derive(ToSchema)]
pub struct CreateCheckpointRequest {
    /// A name of at most 128 bytes, which need not be unique; the runtime's and a random number if left out.
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
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
    kind: CheckpointKind,
    /// Always false: processes are not kept.
    includes_memory: bool,
    /// The runtime that it was made of, which may be gone.
    #[schema(format = "uuid")]
    runtime_id: String,
    image: String,
    /// The content that `image` stood for, which stays below the files whatever becomes of the name; null where that was no
    /// imported image.
    #[schema(required, pattern = "^sha256:[0-9a-f]{64}$")]
    image_id: Option<String>,
    profile: String,
    filesystem: Filesystem,
    limits: RuntimeLimits,
    /// What the copy takes on the host's disk as long as it shares nothing with others; null until it is ready.
    #[schema(required)]
    disk_bytes: Option<u64>,
}

/// What has become of it.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum CheckpointState {
    Creating,
    Ready,
    Failed,
}
