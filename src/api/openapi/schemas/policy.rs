//! Settings of the hosted product that are kept and shown, and nothing else.

use utoipa::ToSchema;

/// Kept and shown, and nothing else: a runtime has no network (`network` is `none`).
#[derive(ToSchema)]
pub struct EgressPolicy {
    mode: EgressMode,
    allowed_hosts: Vec<String>,
    denied_hosts: Vec<String>,
    enabled: bool,
    intercept_enabled: bool,
}

/// As [`EgressPolicy`], where all may be left out.
#[derive(ToSchema)]
pub struct EgressPolicyRequest {
    mode: Option<EgressMode>,
    /// Names or patterns of at most 255 bytes.
    #[schema(max_items = 1000)]
    allowed_hosts: Option<Vec<Host>>,
    /// Names or patterns of at most 255 bytes.
    #[schema(max_items = 1000)]
    denied_hosts: Option<Vec<Host>>,
    enabled: Option<bool>,
    /// What old clients call `enabled`.
    #[schema(deprecated)]
    intercept_enabled: Option<bool>,
}

/// A host's name, or a pattern.
#[derive(ToSchema)]
#[schema(max_length = 255)]
struct Host(String);

/// Whether the hosts listed are the allowed or the denied ones.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum EgressMode {
    Allowlist,
    Denylist,
}

/// Kept and shown, and nothing else: a runtime is never suspended by itself.
#[derive(ToSchema)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum IdlePolicy {
    /// Never.
    Disabled,
    /// Suspend, and wake by `start` only.
    SuspendOnly {
        /// Idle seconds.
        #[schema(maximum = 18_446_744_073_709_551_615u64)]
        suspend_after_secs: u64,
    },
    /// Suspend, and wake by activity.
    SuspendAndWakeup {
        /// Idle seconds.
        #[schema(maximum = 18_446_744_073_709_551_615u64)]
        suspend_after_secs: u64,
    },
}

/// Kept and shown, and nothing else: nothing is compressed.
#[derive(ToSchema)]
pub struct TokenSavingPolicy {
    json_array_enabled: bool,
    log_enabled: bool,
    search_results_enabled: bool,
    git_diff_enabled: bool,
}

/// As [`TokenSavingPolicy`]; what is left out is false in a new runtime and stays as it is in another.
#[derive(ToSchema)]
pub struct TokenSavingPolicyRequest {
    json_array_enabled: Option<bool>,
    log_enabled: Option<bool>,
    search_results_enabled: Option<bool>,
    git_diff_enabled: Option<bool>,
}

/// A port to publish. Kept and shown, and nothing else: a runtime has no network.
#[derive(ToSchema)]
pub struct IngressSpec {
    protocol: IngressProtocol,
    /// The port inside.
    #[schema(minimum = 1, maximum = 65_535)]
    runtime_port: u16,
}

/// How a published port is spoken to.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum IngressProtocol {
    Http,
    Https,
}
