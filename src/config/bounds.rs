//! How much the buffered exec may take: commands, waits, time and memory.

use super::{ConfigError, Host, RawConfig, within};
use crate::resources::MIB;
use serde::{Deserialize, Serialize};

/// Bounds of the buffered exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecBounds {
    /// Commands at the same time, in all.
    pub max_execs: u32,
    /// Commands at the same time, in one runtime.
    pub max_execs_per_runtime: u32,
    /// Requests that may wait for the server's bounds.
    pub max_queue: u32,
    /// Requests that may wait for one runtime's bounds.
    pub max_queue_per_runtime: u32,
    /// Seconds that a request may wait.
    pub queue_secs: u64,
    /// Wall clock seconds of a command whose request names none.
    pub default_timeout_secs: u64,
    /// Most wall clock seconds.
    pub max_timeout_secs: u64,
    /// Bytes kept per output stream when the request names no number.
    pub default_output_bytes: u64,
    /// Most bytes kept per output stream.
    pub max_output_bytes: u64,
    /// Most bytes kept per output stream of a detached command, and what is kept when the request names no number.
    pub max_detached_output_bytes: u64,
    /// Bytes of input and output held in memory, in all.
    pub max_buffered_bytes: u64,
    /// Bytes of input and output held in memory, for one runtime.
    pub max_buffered_bytes_per_runtime: u64,
}

impl ExecBounds {
    /// Round and small ones, for whoever tries requests against them.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn small() -> Self {
        Self {
            max_execs: 1,
            max_execs_per_runtime: 1,
            max_queue: 1,
            max_queue_per_runtime: 1,
            queue_secs: 1,
            default_timeout_secs: 60,
            max_timeout_secs: 3600,
            default_output_bytes: 1000,
            max_output_bytes: 2000,
            max_detached_output_bytes: 64 << 20,
            max_buffered_bytes: 1,
            max_buffered_bytes_per_runtime: 1,
        }
    }

    /// Commands of paused runtimes that may be there beside [`ExecBounds::max_execs`].
    pub fn max_parked(&self) -> u32 {
        self.max_execs.div_ceil(2)
    }

    pub(super) fn resolve(raw: &RawConfig, host: &Host) -> Result<Self, ConfigError> {
        const MANY: u32 = 100_000;
        let max_execs = within("max_execs", raw.max_execs.unwrap_or(512), 1, MANY)?;
        let max_execs_per_runtime = within(
            "max_execs_per_runtime",
            raw.max_execs_per_runtime.unwrap_or(128),
            1,
            MANY,
        )?;
        let max_timeout_secs = within(
            "max_timeout_secs",
            raw.max_timeout_secs.unwrap_or(3600),
            1,
            365 * 86_400,
        )?;
        let max_output_bytes = within(
            "max_output_bytes",
            raw.max_output_bytes.unwrap_or(32 * MIB),
            1,
            1024 * MIB,
        )?;
        // Where only the maximum was lowered, the default follows it.
        let default_timeout_secs = raw.default_timeout_secs.unwrap_or(max_timeout_secs.min(60));
        let default_output_bytes = raw
            .default_output_bytes
            .unwrap_or(max_output_bytes.min(4 * MIB));
        let most = 1 << 24;
        let max_buffered_mib = within(
            "max_buffered_mib",
            raw.max_buffered_mib
                .unwrap_or((host.memory_bytes / MIB / 2).max(64)),
            1,
            most,
        )?;
        let per_runtime = raw
            .max_buffered_mib_per_runtime
            .unwrap_or(max_buffered_mib.div_ceil(2));
        Ok(Self {
            max_execs,
            max_execs_per_runtime,
            max_queue: within("max_queue", raw.max_queue.unwrap_or(1024), 0, MANY)?,
            max_queue_per_runtime: within(
                "max_queue_per_runtime",
                raw.max_queue_per_runtime.unwrap_or(256),
                0,
                MANY,
            )?,
            queue_secs: within("queue_secs", raw.queue_secs.unwrap_or(5), 0, 3600)?,
            default_timeout_secs: within(
                "default_timeout_secs",
                default_timeout_secs,
                1,
                max_timeout_secs,
            )?,
            max_timeout_secs,
            default_output_bytes: within(
                "default_output_bytes",
                default_output_bytes,
                0,
                max_output_bytes,
            )?,
            max_output_bytes,
            max_detached_output_bytes: MIB
                * within(
                    "max_detached_output_mib",
                    raw.max_detached_output_mib.unwrap_or(256),
                    1,
                    1 << 20,
                )?,
            max_buffered_bytes: max_buffered_mib * MIB,
            max_buffered_bytes_per_runtime: MIB
                * within(
                    "max_buffered_mib_per_runtime",
                    per_runtime,
                    1,
                    max_buffered_mib,
                )?,
        })
    }
}
