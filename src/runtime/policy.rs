//! Settings that clients of the hosted product send and expect to see again. Nothing here is acted upon: a runtime has no
//! network, is never suspended by itself, nothing of it is captured, and no agent is installed.

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

impl TokenSaving {
    /// With the given ones replaced.
    pub(super) fn with(self, patch: TokenSavingPatch) -> Self {
        let TokenSavingPatch {
            json_array_enabled,
            log_enabled,
            search_results_enabled,
            git_diff_enabled,
        } = patch;
        Self {
            json_array_enabled: json_array_enabled.unwrap_or(self.json_array_enabled),
            log_enabled: log_enabled.unwrap_or(self.log_enabled),
            search_results_enabled: search_results_enabled.unwrap_or(self.search_results_enabled),
            git_diff_enabled: git_diff_enabled.unwrap_or(self.git_diff_enabled),
        }
    }
}

/// What of [`TokenSaving`] a request names.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // as there
pub struct TokenSavingPatch {
    pub json_array_enabled: Option<bool>,
    pub log_enabled: Option<bool>,
    pub search_results_enabled: Option<bool>,
    pub git_diff_enabled: Option<bool>,
}

/// A port that was asked to be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// `http` or `https`.
    pub protocol: IngressProtocol,
    /// The port inside.
    pub runtime_port: u16,
}

/// How a published port is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the API's words
pub enum IngressProtocol {
    Http,
    Https,
}

/// The agent that was asked to be installed, and how.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Agent {
    /// Key of its manifest.
    #[serde(rename = "runtime_agent", skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A script to run after its installation.
    #[serde(
        rename = "runtime_agent_post_install_script",
        skip_serializing_if = "Option::is_none"
    )]
    pub post_install_script: Option<String>,
    /// A script to run after its configuration.
    #[serde(
        rename = "runtime_agent_post_config_script",
        skip_serializing_if = "Option::is_none"
    )]
    pub post_config_script: Option<String>,
    /// Name of its set of secrets.
    #[serde(
        rename = "runtime_agent_secret_preset",
        skip_serializing_if = "Option::is_none"
    )]
    pub secret_preset: Option<String>,
}
