//! The runtime object: one superset that clients of every version can read.

use super::common::Variables;
use super::policy::{EgressPolicy, IdlePolicy, IngressSpec, TokenSavingPolicy};
use utoipa::{IntoParams, ToSchema};

/// A root file system with a sandbox profile, limits and a state.
#[derive(ToSchema)]
pub struct Runtime {
    #[schema(format = "uuid")]
    id: String,
    /// Its name.
    display_name: String,
    status: RuntimeStatus,
    #[schema(format = "date-time")]
    created_at: String,
    /// When its status or its settings last changed.
    #[schema(format = "date-time")]
    updated_at: String,
    resources: Resources,
    environment_variables: Variables,
    image: String,
    /// The content that `image` stood for, which stays below the files whatever becomes of the name; null where that was no
    /// imported image.
    #[schema(required, pattern = "^sha256:[0-9a-f]{64}$")]
    image_id: Option<String>,
    /// Name of its sandbox profile.
    profile: String,
    filesystem: Filesystem,
    limits: RuntimeLimits,
    network: Network,
    egress_policy: EgressPolicy,
    ingress_specs: Vec<IngressSpec>,
    idle_policy: IdlePolicy,
    /// Always false.
    ssh_enabled: bool,
    llm_tool_io_capture_enabled: bool,
    llm_token_saving_policy: TokenSavingPolicy,
    /// As `resources.requests.vcpus`, for old clients.
    #[schema(deprecated)]
    vcpus: u32,
    #[schema(deprecated)]
    min_memory_mib: u64,
    /// As `resources.current.memory_mib`, for old clients.
    #[schema(deprecated)]
    cur_memory_mib: u64,
    /// As `resources.limits.memory_mib`, for old clients.
    #[schema(deprecated)]
    max_memory_mib: u64,
    arch: Arch,
    /// As it was asked for; no agent is installed.
    #[schema(required = false, nullable = false)]
    runtime_agent: Option<String>,
    #[schema(required = false, nullable = false)]
    runtime_agent_post_install_script: Option<String>,
    #[schema(required = false, nullable = false)]
    runtime_agent_post_config_script: Option<String>,
    #[schema(required = false, nullable = false)]
    runtime_agent_secret_preset: Option<String>,
}

/// What a runtime is doing.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum RuntimeStatus {
    Creating,
    Running,
    Paused,
    Suspended,
    Shutdown,
    Deleting,
    Error,
    Crashed,
}

/// What a runtime gets.
#[derive(ToSchema)]
pub struct Resources {
    requests: ResourceRequested,
    limits: Memory,
    current: Memory,
}

/// What was asked for.
#[derive(ToSchema)]
struct ResourceRequested {
    memory_mib: u64,
    /// A ceiling, not a reservation.
    vcpus: u32,
}

/// An amount of memory.
#[derive(ToSchema)]
struct Memory {
    memory_mib: u64,
}

/// Further limits.
#[derive(ToSchema)]
pub struct RuntimeLimits {
    /// Processes and threads.
    pids: u64,
    /// Size of the writable layer.
    disk_mib: u64,
}

/// Where a command's writes go: to the runtime's own layer; nowhere, since each command starts from the image; or nothing
/// can be written but `/tmp`.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum Filesystem {
    Persistent,
    Ephemeral,
    ReadOnly,
}

/// What of the network can be reached: nothing but the command's own loopback.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum Network {
    None,
}

/// The machine's architecture.
#[derive(ToSchema)]
pub enum Arch {
    #[schema(rename = "x86_64")]
    X86,
    #[schema(rename = "aarch64")]
    Arm,
}

/// Which runtimes of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StatusFilter {
    /// Only runtimes of these, separated by commas; `active` is `running`, and `stopped` is `shutdown`.
    #[param(
        pattern = "^(creating|running|active|paused|suspended|shutdown|stopped|deleting|error|crashed)(,(creating|running|active|paused|suspended|shutdown|stopped|deleting|error|crashed))*$"
    )]
    status: Option<String>,
}
