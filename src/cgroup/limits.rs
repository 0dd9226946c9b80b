//! Writes memory, pids and CPU limits, through the single controllers of the crate cgroups-rs.
//!
//! Its `Cgroup` is not used: loading one parses mountinfo anew and makes a group in every
//! controller of the host. Its controllers (`MemController` and the like) take a directory and
//! write one file, which is what is wanted. What they don't know is done here: the order in which
//! memory and memory+swap may change, and swap on version 2.

use std::path::Path;

use cgroups_rs::fs::MaxValue;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::error::Error;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;

use super::error::CgroupError;
use super::files;

/// Length of the window in which a CPU quota holds, in microseconds: the kernel's default.
pub(super) const CPU_PERIOD_US: u64 = 100_000;

/// The smallest quota that the kernel takes, in microseconds (`min_cfs_quota_period`, 1 ms).
const MIN_CPU_QUOTA_US: u64 = 1_000;

fn refused(
    limit: &'static str,
    value: impl ToString,
    path: &Path,
) -> impl FnOnce(Error) -> CgroupError {
    move |source| CgroupError::Limit {
        limit,
        value: value.to_string(),
        path: path.to_path_buf(),
        source: Box::new(source),
    }
}

// The crate counts in i64 and the kernel in pages: anything above is unlimited in fact.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Memory and swap together on version 1. `fresh`: the group was made just now and has no limits
/// yet.
///
/// The kernel insists on memory ≤ memory+swap at every moment: a raise starts with the sum and a
/// cut ends with it. Lowering below what is in use fails with EBUSY if the kernel can't reclaim
/// enough.
pub(super) fn memory_v1(dir: &Path, bytes: u64, fresh: bool) -> Result<(), CgroupError> {
    const SUM: &str = "memory.memsw.limit_in_bytes";
    let memory = MemController::new(dir.to_path_buf(), dir.to_path_buf(), false);
    let set = |memory: &MemController| {
        memory
            .set_limit(signed(bytes))
            .map_err(refused("memory", bytes, dir))
    };
    // A kernel without swap accounting has no file for the sum; whether that matters is told by the
    // facility "swap".
    let set_sum = |memory: &MemController| match memory.set_memswap_limit(signed(bytes)) {
        Err(_) if !dir.join(SUM).exists() => Ok(()),
        other => other.map_err(refused("swap", bytes, dir)),
    };
    let raised = !fresh && files::read_number_if_there(dir, SUM)?.is_some_and(|now| bytes > now);
    if raised {
        set_sum(&memory)?;
        set(&memory)?;
    } else {
        set(&memory)?;
        set_sum(&memory)?;
    }
    match files::write_if_there(dir, BUFFERS, &(bytes / BUFFERS_PART).to_string()) {
        // As much is in use: what comes is held against the old limit until it has gone.
        Err(CgroupError::Io { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        other => other.map(drop),
    }
}

/// Of a version 1 group: what sockets of TCP and UDP hold, which its memory limit leaves out. The kernel counts it where this
/// has been written, whatever the value. (Version 2 counts it as memory.)
const BUFFERS: &str = "memory.kmem.tcp.limit_in_bytes";

/// Buffers of sockets may take as much as this part of the memory, beside it.
const BUFFERS_PART: u64 = 4;

/// Lets the kernel count buffers of sockets in version 1 groups, before the first group has a limit. To begin and to end that
/// it rewrites its own code: so it begins and ends with the service, not with each cell.
pub(super) fn count_buffers_v1(base: &Path) -> Result<(), CgroupError> {
    files::write_if_there(base, BUFFERS, "-1").map(drop)
}

/// Memory on version 2.
pub(super) fn memory_v2(dir: &Path, bytes: u64) -> Result<(), CgroupError> {
    let memory = MemController::new(dir.to_path_buf(), dir.to_path_buf(), true);
    memory
        .set_limit(signed(bytes))
        .map_err(refused("memory", bytes, dir))
}

/// No swap on version 2, so that the memory limit covers both. Holds for all groups below as well.
pub(super) fn no_swap_v2(dir: &Path) -> Result<(), CgroupError> {
    let memory = MemController::new(dir.to_path_buf(), dir.to_path_buf(), true);
    match memory.set_memswap_limit(0) {
        Err(_) if !dir.join("memory.swap.max").exists() => Ok(()),
        other => other.map_err(refused("swap", 0, dir)),
    }
}

/// Processes and threads, on either version.
pub(super) fn pids(dir: &Path, count: u64) -> Result<(), CgroupError> {
    // The kernel refuses numbers from PIDS_MAX (4,194,305 on 64 bit) on.
    let value = if count > 4_194_304 {
        MaxValue::Max
    } else {
        MaxValue::Value(signed(count))
    };
    let pids = PidController::new(dir.to_path_buf(), dir.to_path_buf(), false);
    pids.set_pid_max(value).map_err(refused("pids", count, dir))
}

/// CPU time per wall time.
pub(super) fn cpu(dir: &Path, millis: u64, v2: bool) -> Result<(), CgroupError> {
    let quota = millis
        .saturating_mul(CPU_PERIOD_US / 1000)
        .max(MIN_CPU_QUOTA_US);
    let cpu = CpuController::new(dir.to_path_buf(), dir.to_path_buf(), v2);
    // On version 1 the crate writes quota, then period; both are checked by the kernel against the
    // parent's ratio only.
    cpu.set_cfs_quota_and_period(Some(signed(quota)), Some(CPU_PERIOD_US))
        .map_err(refused(
            "cpu",
            format!("{quota} of {CPU_PERIOD_US} µs"),
            dir,
        ))
}
