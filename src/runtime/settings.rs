//! What a runtime is settled to be.

use super::policy::{Agent, Egress, IdlePolicy, Ingress, TokenSaving};
use crate::image::content::ImageConfig;
use crate::image::digest::Digest;
use crate::resources::{MIB, RuntimeResources};
use crate::warden::protocol::Filesystem;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All that the create request settled, defaults filled in. Stored as JSON, so a new field needs a serde default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Memory asked for, in MiB.
    pub request_memory_mib: u64,
    /// Memory that is enforced, in MiB.
    pub limit_memory_mib: u64,
    /// Whether a client named that limit; else it is what was asked for.
    #[serde(default = "yes")]
    pub limit_memory_named: bool,
    /// The least memory that an old client named, in MiB; shown, and nothing else.
    pub min_memory_mib: u64,
    /// CPUs.
    pub vcpus: u32,
    /// Processes and threads.
    pub pids: u64,
    /// Size of the writable layer in MiB.
    pub disk_mib: u64,
    /// Name of the image.
    pub image: String,
    /// The content that the name stood for when the runtime was made, where that was an imported image.
    #[serde(default)]
    pub image_id: Option<Digest>,
    /// What of that image's configuration holds in the runtime.
    #[serde(default)]
    pub image_config: ImageConfig,
    /// Name of the sandbox profile.
    pub profile: String,
    /// Where writes go.
    pub filesystem: Filesystem,
    /// The runtime's own environment variables.
    pub environment_variables: BTreeMap<String, String>,
    /// Shown, and nothing else: runtimes have no network.
    pub egress: Egress,
    /// Shown, and nothing else: runtimes have no network.
    #[serde(default)]
    pub ingress: Vec<Ingress>,
    /// Shown, and nothing else: runtimes are not suspended.
    pub idle_policy: IdlePolicy,
    /// Shown, and nothing else: nothing is captured.
    pub llm_tool_io_capture_enabled: bool,
    /// Shown, and nothing else: nothing is compressed.
    pub llm_token_saving_policy: TokenSaving,
    /// Shown, and nothing else: no agent is installed.
    #[serde(default)]
    pub agent: Agent,
}

fn yes() -> bool {
    true
}

impl Settings {
    /// The limits of everything that runs in the runtime at the same time.
    pub fn resources(&self) -> RuntimeResources {
        RuntimeResources {
            memory_bytes: self.limit_memory_mib * MIB,
            pids: self.pids,
            cpu_millis: u64::from(self.vcpus) * 1000,
        }
    }
}
