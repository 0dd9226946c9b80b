//! Settings that clients of the hosted product send and expect to see again. Nothing here is acted upon: a runtime has no
//! network, is never suspended by itself, and nothing of it is captured.

use serde::{Deserialize, Serialize};

/// Whether the hosts listed are the allowed or the denied ones.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressMode {
    /// Only `allowed_hosts`; with an empty list, nothing.
    #[default]
    Allowlist,
    /// All but `denied_hosts`.
    Denylist,
}

/// The egress policy as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// See [`EgressMode`].
    pub mode: EgressMode,
    /// Host names or patterns.
    pub allowed_hosts: Vec<String>,
    /// Host names or patterns.
    pub denied_hosts: Vec<String>,
    /// What old clients call `enabled` or `intercept_enabled`.
    pub enabled: bool,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            mode: EgressMode::Allowlist,
            allowed_hosts: vec![],
            denied_hosts: vec![],
            enabled: true,
        }
    }
}

/// The idle policy as asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum IdlePolicy {
    /// Never suspend.
    #[default]
    Disabled,
    /// Suspend, and wake by `start` only.
    SuspendOnly {
        /// Idle seconds.
        suspend_after_secs: u64,
    },
    /// Suspend, and wake by activity.
    SuspendAndWakeup {
        /// Idle seconds.
        suspend_after_secs: u64,
    },
}

/// The compression of tool output as asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSaving {
    /// For JSON arrays.
    pub json_array_enabled: bool,
    /// For logs.
    pub log_enabled: bool,
    /// For search results.
    pub search_results_enabled: bool,
    /// For diffs.
    pub git_diff_enabled: bool,
}
