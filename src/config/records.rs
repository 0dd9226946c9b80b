//! How much is remembered of commands that ran.

use super::{ConfigError, RawConfig, within};
use crate::resources::MIB;
use serde::{Deserialize, Serialize};

/// Bounds of exec records and of the output that is kept with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordBounds {
    /// Seconds that a record is kept after its exec ended.
    pub retention_secs: u64,
    /// Records kept at most, newest first.
    pub max_records: u64,
    /// Bytes of output kept at most, newest first.
    pub max_kept_output_bytes: u64,
}

impl RecordBounds {
    pub(super) fn resolve(raw: &RawConfig) -> Result<Self, ConfigError> {
        const DAY: u64 = 86_400;
        Ok(Self {
            retention_secs: within(
                "record_retention_secs",
                raw.record_retention_secs.unwrap_or(7 * DAY),
                1,
                3650 * DAY,
            )?,
            max_records: within(
                "max_records",
                raw.max_records.unwrap_or(250_000),
                1,
                100_000_000,
            )?,
            max_kept_output_bytes: MIB
                * within(
                    "max_kept_output_mib",
                    raw.max_kept_output_mib.unwrap_or(10 * 1024),
                    1,
                    1 << 30,
                )?,
        })
    }
}
