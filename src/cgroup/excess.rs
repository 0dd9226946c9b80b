//! More memory than a version 2 group's limit allows.
//!
//! What comes to a socket over loopback is charged in interrupt context, where the kernel can neither reclaim nor kill and
//! charges all the same (`try_charge_memcg`, GFP_ATOMIC; seen from 6.1 to 6.12). It would be made good at the next charge of
//! a usual kind, which processes that only send, or sleep, may never cause. Version 1 counts such buffers apart, with a limit
//! that holds.

use std::path::{Path, PathBuf};

use super::error::CgroupError;
use super::{files, limits};

/// So much beyond the limit is the usual to and fro: the kernel charges ahead for each processor, and packets come in bursts.
const USUAL: u64 = 8 << 20;

/// A group that is well beyond its limit.
#[derive(Debug, Clone)]
pub struct Excess {
    dir: PathBuf,
    limit: u64,
}

impl Excess {
    /// None while the group (its directory, and whether that is of version 2) is within its limit, or as good as.
    pub(super) fn of(place: Option<(&Path, bool)>) -> Option<Self> {
        let (dir, true) = place? else { return None };
        // "max" is no number, and a group that is gone has no excess.
        let limit = files::read_number(dir, "memory.max").ok()?;
        let used = files::read_number(dir, "memory.current").ok()?;
        (used > limit.saturating_add(USUAL)).then(|| Self {
            dir: dir.to_path_buf(),
            limit,
        })
    }

    /// Lets the kernel reclaim what it can, and kill where that is not enough: it does both when a limit is written, even the
    /// one that holds. May take long; a fatal signal ends it.
    ///
    /// # Errors
    /// The kernel's refusal: the group is gone.
    pub fn end(&self) -> Result<(), CgroupError> {
        limits::memory_v2(&self.dir, self.limit)
    }
}
