//! What a runtime or a cell may use, and what it did use: the words that the API, the warden and the cgroups share.

use serde::{Deserialize, Serialize};

/// One mebibyte in bytes.
pub const MIB: u64 = 1024 * 1024;

/// Ids in one runtime's range: 0 to 65535 inside.
pub const RANGE: u32 = 65_536;

/// The uid and gid that a cell's init runs as, inside: none that a command can become, so a command can neither signal nor
/// trace it. The last of the range, since the one before is `nobody`, whom images name as their user.
pub const INIT_ID: u32 = RANGE - 1;

/// Cells of one runtime that wait for commands at the same time. Each holds a process beside its init that is no command's
/// yet.
pub const MAX_PARKED: usize = 4;

/// Limits of everything that runs in one runtime at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeResources {
    /// Memory and swap together, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// CPU time per wall time, in thousandths of one CPU.
    pub cpu_millis: u64,
}

/// Limits of one cell, inside those of its runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellResources {
    /// Memory and swap together, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads of the payload; the cell's own init is not counted.
    pub pids: u64,
    /// CPU seconds that all processes of the cell may use together; none is unlimited.
    pub cpu_secs: Option<u64>,
}

/// What a cell used, read from its cgroup after its last process is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in user mode, in microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, in microseconds.
    pub system_us: u64,
    /// User and system together, in microseconds. Kept apart because a kernel may round the two parts differently.
    pub cpu_us: u64,
    /// The most memory charged at any moment, in bytes.
    pub peak_memory_bytes: u64,
    /// The most processes and threads at any moment; none where the kernel does not tell.
    pub peak_pids: Option<u64>,
}
