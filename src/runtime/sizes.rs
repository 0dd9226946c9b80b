//! How large a runtime may be on this machine.

use super::error::Invalid;
use crate::profile::Limit;
use crate::resources::MIB;
use std::path::PathBuf;

/// The least memory of a runtime or a cell, in MiB.
pub const MIN_MEMORY_MIB: u64 = 16;

const MIN_DISK_MIB: u64 = 16;
const MAX_PIDS: u64 = 1_000_000;

/// The machine's size, as far as it bounds runtimes.
#[derive(Debug, Clone)]
pub struct HostSizes {
    /// Physical memory in MiB.
    pub memory_mib: u64,
    /// CPUs that one runtime may have.
    pub max_vcpus: u32,
    /// A directory on the file system that holds the runtimes' disks.
    pub disk: PathBuf,
}

impl HostSizes {
    pub(super) fn memory(&self, field: &str, mib: u64, profile: Limit) -> Result<u64, Invalid> {
        let most = bounded(self.memory_mib, profile);
        Invalid::within(field, mib, MIN_MEMORY_MIB, most, " MiB here")
    }

    pub(super) fn vcpus(&self, field: &str, vcpus: u64) -> Result<u32, Invalid> {
        let vcpus = Invalid::within(field, vcpus, 1, self.max_vcpus.into(), " CPUs here")?;
        Ok(u32::try_from(vcpus).unwrap_or(self.max_vcpus))
    }

    pub(super) fn pids(&self, field: &str, pids: u64, profile: Limit) -> Result<u64, Invalid> {
        Invalid::within(
            field,
            pids,
            1,
            bounded(MAX_PIDS, profile),
            " processes here",
        )
    }

    /// A disk must fit onto the file system that holds the runtimes; whether it does now is [`HostSizes::has_room`].
    pub(super) fn disk(&self, field: &str, mib: u64, profile: Limit) -> Result<u64, Invalid> {
        let (total, _) = self.disk_mib();
        Invalid::within(
            field,
            mib,
            MIN_DISK_MIB,
            bounded(total, profile),
            " MiB here",
        )
    }

    /// Whether the smallest disk would find room now.
    pub(super) fn has_any_room(&self) -> bool {
        self.has_room(MIN_DISK_MIB)
    }

    /// The file system's size and what is free of it, in bytes; none where it can't be told.
    pub(super) fn disk_bytes(&self) -> Option<(u64, u64)> {
        let (total, free) = self.disk_mib();
        (total != u64::MAX).then(|| (total.saturating_mul(MIB), free.saturating_mul(MIB)))
    }

    /// Whether disks of so many MiB together may take more than there is.
    pub(super) fn is_less_than(&self, mib: u64) -> bool {
        self.disk_mib().0 < mib
    }

    /// Whether this much is free now. What other runtimes were promised and have not written yet is not set aside.
    pub(super) fn has_room(&self, mib: u64) -> bool {
        self.disk_mib().1 >= mib
    }

    /// The file system's size and what an unprivileged process could still write, in MiB; where statvfs(3) fails, the
    /// warden finds out.
    fn disk_mib(&self) -> (u64, u64) {
        match nix::sys::statvfs::statvfs(&self.disk) {
            Ok(stat) => {
                let mib = |blocks: u64| blocks.saturating_mul(stat.fragment_size()) / MIB;
                (mib(stat.blocks()), mib(stat.blocks_available()))
            }
            Err(_) => (u64::MAX, u64::MAX),
        }
    }
}

fn bounded(host: u64, profile: Limit) -> u64 {
    profile.max.map_or(host, |max| max.min(host))
}
