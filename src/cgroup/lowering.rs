//! Memory limits of groups that have processes in them.
//!
//! More is there at once. Less is not: the kernel reclaims until what is in use fits, while the processes go on to use
//! more, and gives up only when nothing can be reclaimed. Processes that read files keep it busy for as long as they like
//! (10 s and more were seen). So a limit that is to be lowered is a value of its own, [`Lowering`], which a process can
//! carry out that may be killed at any moment: a pending fatal signal ends the kernel's loops (`mem_cgroup_resize_max` of
//! version 1, the write of `memory.high` of version 2).

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use super::error::CgroupError;
use super::{files, limits};

/// What reclaims on version 2 before the write returns; `memory.max` would go on to kill.
const SOFT: &str = "memory.high";

/// A memory limit below the one that holds.
#[derive(Debug, Clone)]
pub struct Lowering {
    dir: PathBuf,
    v2: bool,
    from: u64,
    to: u64,
}

impl Lowering {
    /// What it takes to limit a group (its directory, and whether that is of version 2) to so many bytes; none where it
    /// needs no lowering.
    pub(super) fn needed(
        place: Option<(&Path, bool)>,
        bytes: u64,
    ) -> Result<Option<Self>, CgroupError> {
        let Some((dir, v2)) = place else {
            return Ok(None);
        };
        let from = limit(dir, v2)?;
        Ok((bytes < from).then(|| Self {
            dir: dir.to_path_buf(),
            v2,
            from,
            to: bytes,
        }))
    }

    /// Brings the group under the limit: what can be reclaimed is, and nobody is killed. May take very long, and leaves
    /// the limits half changed where it fails or is killed: then [`Lowering::undo`] comes next. A group that has gone
    /// meanwhile, since its last process has, needs nothing.
    ///
    /// # Errors
    /// [`CgroupError::InUse`] if more than that is in use all the same; else the kernel's refusal.
    pub fn run(&self) -> Result<(), CgroupError> {
        match self.lower() {
            Err(_) if !self.dir.exists() => Ok(()),
            lowered => lowered,
        }
    }

    fn lower(&self) -> Result<(), CgroupError> {
        if self.v2 {
            return self.run_v2();
        }
        // The kernel reclaims by itself and refuses with EBUSY.
        limits::memory_v1(&self.dir, self.to, false).map_err(|error| {
            match files::read_number(&self.dir, "memory.usage_in_bytes") {
                Ok(used) if used > self.to => self.in_use(used),
                _ => error,
            }
        })
    }

    fn run_v2(&self) -> Result<(), CgroupError> {
        const USED: &str = "memory.current";
        if files::read_number(&self.dir, USED)? > self.to {
            files::write(&self.dir, SOFT, &self.to.to_string())?;
            let used = files::read_number(&self.dir, USED)?;
            if used > self.to {
                return Err(self.in_use(used));
            }
        }
        limits::memory_v2(&self.dir, self.to)?;
        files::write(&self.dir, SOFT, "max")
    }

    /// Sets the limit that held before. Takes no time, since it reclaims nothing.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn undo(&self) -> Result<(), CgroupError> {
        raise(&self.dir, self.v2, self.from)?;
        match self.v2 {
            true => files::write(&self.dir, SOFT, "max"),
            false => Ok(()),
        }
    }

    fn in_use(&self, used: u64) -> CgroupError {
        CgroupError::InUse {
            path: self.dir.clone(),
            limit: self.to,
            used,
        }
    }
}

/// Sets the limit of a group, be it higher or lower than the one that holds.
pub(super) fn set(place: Option<(&Path, bool)>, bytes: u64) -> Result<(), CgroupError> {
    let Some((dir, v2)) = place else {
        return Ok(());
    };
    if let Some(lowering) = Lowering::needed(place, bytes)? {
        let lowered = lowering.run();
        if lowered.is_err() {
            lowering.undo()?;
        }
        return lowered;
    }
    match bytes.cmp(&limit(dir, v2)?) {
        // Even to write what is there may reclaim, while processes press against it.
        Ordering::Equal => Ok(()),
        _ => raise(dir, v2, bytes),
    }
}

fn raise(dir: &Path, v2: bool, bytes: u64) -> Result<(), CgroupError> {
    match v2 {
        true => limits::memory_v2(dir, bytes),
        false => limits::memory_v1(dir, bytes, false),
    }
}

/// The limit that holds.
fn limit(dir: &Path, v2: bool) -> Result<u64, CgroupError> {
    match v2 {
        false => files::read_number(dir, "memory.limit_in_bytes"),
        true if files::read(dir, "memory.max")?.trim() == "max" => Ok(u64::MAX),
        true => files::read_number(dir, "memory.max"),
    }
}
