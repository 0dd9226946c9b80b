//! What the warden is started with.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The part of the configuration that the warden needs; the supervisor passes it over a descriptor. No secret is in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// The data directory, absolute.
    pub data_dir: PathBuf,
    /// Names this data directory's cgroups.
    pub instance: String,
    /// The operator's own profiles.
    pub profiles_dir: Option<PathBuf>,
    /// First host uid of the service's block; the runtimes' ranges of 65,536 ids follow it.
    pub uid_base: u32,
    /// How many ranges there are for runtimes.
    pub uid_ranges: u32,
    /// CPUs that one runtime may have at most.
    pub max_vcpus: u32,
    /// How many cells may be parked.
    pub max_parked_cells: u32,
    /// How log lines look.
    pub log_format: crate::config::LogFormat,
}
