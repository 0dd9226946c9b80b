//! How much reading and writing files may take.

use super::{ConfigError, RawConfig, within};
use crate::resources::MIB;
use serde::{Deserialize, Serialize};

/// Bounds of the file operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBounds {
    /// Most bytes of a file that is written.
    pub max_file_bytes: u64,
    /// Most bytes of a file that is read.
    pub max_file_read_bytes: u64,
    /// Files on their way at the same time, in all.
    pub max_file_transfers: u32,
    /// Files on their way at the same time, to and from one runtime.
    pub max_file_transfers_per_runtime: u32,
    /// Seconds that a client, or a runtime, may let the other side of a transfer wait.
    pub file_idle_secs: u64,
}

impl FileBounds {
    pub(super) fn resolve(raw: &RawConfig) -> Result<Self, ConfigError> {
        const DEFAULT: u64 = 4096 * MIB;
        // 16 TiB: the largest file of the runtimes' file system.
        let bytes = |key, value: Option<u64>| within(key, value.unwrap_or(DEFAULT), 1, 1 << 44);
        let count = |key, value| within(key, value, 1, 100_000);
        Ok(Self {
            max_file_bytes: bytes("max_file_bytes", raw.max_file_bytes)?,
            max_file_read_bytes: bytes("max_file_read_bytes", raw.max_file_read_bytes)?,
            max_file_transfers: count("max_file_transfers", raw.max_file_transfers.unwrap_or(64))?,
            max_file_transfers_per_runtime: count(
                "max_file_transfers_per_runtime",
                raw.max_file_transfers_per_runtime.unwrap_or(16),
            )?,
            file_idle_secs: within(
                "file_idle_secs",
                raw.file_idle_secs.unwrap_or(60),
                1,
                86_400,
            )?,
        })
    }
}
