//! The bodies of create and patch. Unknown fields are ignored: old clients send dialects.

use super::common::Variables;
use super::policy::{EgressPolicyRequest, IdlePolicy, IngressSpec, TokenSavingPolicyRequest};
use super::runtime::{Filesystem, Network};
use utoipa::ToSchema;

/// A new runtime. All may be left out; null is as good as left out, and unknown fields are ignored.
#[derive(ToSchema)]
pub struct CreateRuntimeRequest {
    /// Unique in the tenant, and not in the form of a UUID; a random one if left out.
    #[schema(
        min_length = 1,
        max_length = 63,
        pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]*$"
    )]
    name: Option<String>,
    resources: Option<CreateResources>,
    /// For every command in the runtime.
    environment_variables: Option<Variables>,
    /// A name of `GET /v1/images`; `host`, this machine's own `/usr`, if left out.
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f/]*$"
    )]
    image: Option<String>,
    /// A sandbox profile: `default`, `strict`, or another one of the server's.
    #[schema(min_length = 1)]
    profile: Option<String>,
    filesystem: Option<Filesystem>,
    limits: Option<CreateLimits>,
    network: Option<Network>,
    /// Start from this checkpoint's disk. The image, profile and file system must be the checkpoint's, or left out.
    #[schema(min_length = 1)]
    checkpoint_id: Option<String>,
    egress_policy: Option<EgressPolicyRequest>,
    #[schema(max_items = 100)]
    ingress_specs: Option<Vec<IngressSpec>>,
    idle_policy: Option<IdlePolicy>,
    /// Kept and shown, and nothing else: nothing is captured.
    llm_tool_io_capture_enabled: Option<bool>,
    llm_token_saving_policy: Option<TokenSavingPolicyRequest>,
    /// Kept and shown, and nothing else: no agent is installed.
    #[schema(max_length = 65_536)]
    runtime_agent: Option<String>,
    #[schema(max_length = 65_536)]
    runtime_agent_post_install_script: Option<String>,
    #[schema(max_length = 65_536)]
    runtime_agent_post_config_script: Option<String>,
    #[schema(max_length = 65_536)]
    runtime_agent_secret_preset: Option<String>,
    /// What old clients call `resources.requests.vcpus`.
    #[schema(deprecated, minimum = 1, maximum = 100_000)]
    vcpus: Option<u32>,
    /// What old clients call `resources.requests.memory_mib`.
    #[schema(deprecated, minimum = 16, maximum = 1_073_741_824)]
    cur_memory_mib: Option<u64>,
    /// What old clients call the least memory; 0 is none.
    #[schema(deprecated, maximum = 1_073_741_824)]
    min_memory_mib: Option<u64>,
    /// What old clients call `resources.limits.memory_mib`; 0 is none.
    #[schema(deprecated, maximum = 1_073_741_824)]
    max_memory_mib: Option<u64>,
    /// What old clients call the `suspend_after_secs` of `idle_policy`.
    #[schema(deprecated, maximum = 18_446_744_073_709_551_615u64)]
    idle_suspend_after_secs: Option<u64>,
    /// The machine's own, or left out.
    #[schema(deprecated)]
    arch: Option<ArchRequest>,
}

/// What a runtime gets.
#[derive(ToSchema)]
struct CreateResources {
    requests: Option<ResourceRequests>,
    limits: Option<MemoryLimit>,
}

/// What is asked for.
#[derive(ToSchema)]
struct ResourceRequests {
    /// 1024 if left out, or the limit if that is less. Sizes that this machine can't give are refused.
    #[schema(minimum = 16, maximum = 1_073_741_824)]
    memory_mib: Option<u64>,
    /// A ceiling, not a reservation; 1 if left out.
    #[schema(minimum = 1, maximum = 100_000)]
    vcpus: Option<u32>,
}

/// What is enforced.
#[derive(ToSchema)]
struct MemoryLimit {
    /// Not less than what is asked for, which it is if left out.
    #[schema(minimum = 16, maximum = 1_073_741_824)]
    memory_mib: Option<u64>,
}

/// Further limits of a runtime.
#[derive(ToSchema)]
struct CreateLimits {
    /// Processes and threads.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pids: Option<u64>,
    /// Size of the writable layer.
    #[schema(minimum = 16, maximum = 1_073_741_824)]
    disk_mib: Option<u64>,
}

/// Names of architectures, Docker's too.
#[derive(ToSchema)]
enum ArchRequest {
    #[schema(rename = "x86_64")]
    X86,
    #[schema(rename = "aarch64")]
    Arm,
    #[schema(rename = "amd64")]
    Amd64,
    #[schema(rename = "arm64")]
    Arm64,
}

/// What to change of a runtime: all of it or, if something can't be, nothing. What is left out stays; null is as good as
/// left out, and unknown fields are ignored.
#[derive(ToSchema)]
pub struct PatchRuntimeRequest {
    /// A new name.
    #[schema(
        min_length = 1,
        max_length = 63,
        pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]*$"
    )]
    display_name: Option<String>,
    /// As `display_name`, which counts where both are given.
    #[schema(
        min_length = 1,
        max_length = 63,
        pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]*$"
    )]
    name: Option<String>,
    resources: Option<CreateResources>,
    /// All of them: those that are not named here are removed.
    environment_variables: Option<Variables>,
    limits: Option<PatchLimits>,
    egress_policy: Option<EgressPolicyRequest>,
    /// All of them.
    #[schema(max_items = 100)]
    ingress_specs: Option<Vec<IngressSpec>>,
    idle_policy: Option<IdlePolicy>,
    /// Kept and shown, and nothing else: nothing is captured.
    llm_tool_io_capture_enabled: Option<bool>,
    llm_token_saving_policy: Option<TokenSavingPolicyRequest>,
    /// Kept and shown, and nothing else: no agent is installed.
    #[schema(max_length = 65_536)]
    runtime_agent: Option<String>,
    #[schema(max_length = 65_536)]
    runtime_agent_post_install_script: Option<String>,
    #[schema(max_length = 65_536)]
    runtime_agent_post_config_script: Option<String>,
    #[schema(max_length = 65_536)]
    runtime_agent_secret_preset: Option<String>,
    /// What old clients call `resources.requests.vcpus`.
    #[schema(deprecated, minimum = 1, maximum = 100_000)]
    vcpus: Option<u32>,
    /// What old clients call `resources.requests.memory_mib`.
    #[schema(deprecated, minimum = 16, maximum = 1_073_741_824)]
    cur_memory_mib: Option<u64>,
    /// What old clients call the least memory; 0 is none.
    #[schema(deprecated, maximum = 1_073_741_824)]
    min_memory_mib: Option<u64>,
    /// What old clients call `resources.limits.memory_mib`; 0 is none.
    #[schema(deprecated, maximum = 1_073_741_824)]
    max_memory_mib: Option<u64>,
    /// What old clients call the `suspend_after_secs` of `idle_policy`.
    #[schema(deprecated, maximum = 18_446_744_073_709_551_615u64)]
    idle_suspend_after_secs: Option<u64>,
}

/// Further limits that can be changed. The size of the disk can't: restore a checkpoint to a larger one.
#[derive(ToSchema)]
struct PatchLimits {
    /// Processes and threads.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pids: Option<u64>,
}

/// Nothing to say.
#[derive(ToSchema)]
pub struct EmptyRequest {}
