//! The groups of one runtime: its limits hold over all of its cells together.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cell::CellGroup;
use super::error::CgroupError;
use super::layout::{Layout, Place};
use super::lowering::{self, Lowering};
use super::{files, limits, sockets};
use crate::resources::{CellResources, MAX_PARKED, RuntimeResources};

/// Cells' inits are not the tenant's processes, but the kernel counts them in the runtime's group.
/// Room for them is added in steps of this many, as cells come, rather than with one more write for
/// each cell or once and for all (which would hand a fork bomb the room of cells that don't exist).
const INIT_STEP: u64 = 32;

/// Processes of cells that wait for their commands, beside their inits: no command of the tenant's either.
const WAITING: u64 = MAX_PARKED as u64;

/// One runtime's groups. Dropping it removes nothing: see [`RuntimeGroup::remove`].
#[derive(Debug)]
pub struct RuntimeGroup {
    pub(super) layout: Arc<Layout>,
    pub(super) id: String,
    /// The tenant's share of the pids limit, and how many inits are allowed beside it.
    pids: AtomicU64,
    inits: AtomicU64,
    /// Cells that exist; each holds a clone and takes itself off when it is removed.
    cells: Arc<AtomicU64>,
}

impl RuntimeGroup {
    pub(super) fn create(
        layout: Arc<Layout>,
        id: &str,
        resources: &RuntimeResources,
    ) -> Result<Self, CgroupError> {
        let group = Self {
            layout,
            id: id.to_owned(),
            pids: AtomicU64::new(resources.pids),
            inits: AtomicU64::new(INIT_STEP),
            cells: Arc::default(),
        };
        let made = group.make().and_then(|()| group.set(resources));
        if let Err(error) = made {
            // Leave nothing half made. Should that fail too, the first error is the one worth
            // reading, and the next sweep removes the rest.
            let _ = group.remove();
            return Err(error);
        }
        Ok(group)
    }

    fn make(&self) -> Result<(), CgroupError> {
        let mut taken_over = false;
        for dir in self.directories() {
            taken_over |= !files::make_if_missing(&dir)?;
        }
        if taken_over {
            // It may have been on its way out while its runtime was paused.
            self.thaw_if_possible()?;
        }
        if let Some(tree) = &self.layout.v2 {
            let dir = tree.base.join(&self.id);
            // Cells have no CPU limit of their own, so the cpu controller stops here: one level
            // less for the scheduler.
            let enable: Vec<_> = tree
                .controllers
                .iter()
                .filter(|name| **name != "cpu")
                .copied()
                .collect();
            super::enable(&dir, &enable)?;
            if tree.controllers.contains(&"memory") {
                limits::no_swap_v2(&dir)?;
            }
        }
        Ok(())
    }

    /// The id it was made with.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its directories, one in each hierarchy used.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.layout
            .bases()
            .map(|base| base.join(&self.id))
            .collect()
    }

    pub(super) fn directory(&self, controller: &str) -> Option<(PathBuf, bool)> {
        match self.layout.place(controller)? {
            Place::V1(index) => Some((self.layout.v1[index].base.join(&self.id), false)),
            Place::V2 => self
                .layout
                .v2
                .as_ref()
                .map(|tree| (tree.base.join(&self.id), true)),
        }
    }

    /// Sets or changes the limits. A limit that this host can't enforce is passed over:
    /// `facilities` names it, and the operator has been asked. Takes no time but where memory is
    /// [lowered](Self::lowering).
    ///
    /// # Errors
    /// The kernel's refusal; [`CgroupError::InUse`] if more memory is in use than is to be allowed:
    /// nothing is changed then.
    pub fn set(&self, resources: &RuntimeResources) -> Result<(), CgroupError> {
        let memory = self.directory("memory");
        let place = memory.as_ref().map(|(dir, v2)| (dir.as_path(), *v2));
        lowering::set(place, resources.memory_bytes)?;
        self.pids.store(resources.pids, Ordering::Relaxed);
        self.write_pids()?;
        if let Some((dir, v2)) = self.directory("cpu") {
            limits::cpu(&dir, resources.cpu_millis, v2)?;
        }
        Ok(())
    }

    /// What [`Self::set`] would have to do that may take long; none where so much memory is no less
    /// than before.
    ///
    /// # Errors
    /// The limit that holds can't be read.
    pub fn lowering(&self, memory_bytes: u64) -> Result<Option<Lowering>, CgroupError> {
        let memory = self.directory("memory");
        let place = memory.as_ref().map(|(dir, v2)| (dir.as_path(), *v2));
        Lowering::needed(place, memory_bytes)
    }

    /// Whether sockets of its cells hold more than all of its memory may be, which only version 2 lets them. False where that
    /// can't be told.
    pub fn sockets_beyond_limit(&self) -> bool {
        match self.directory("memory") {
            Some((dir, true)) => sockets::beyond_limit(&dir).unwrap_or(false),
            _ => false,
        }
    }

    fn write_pids(&self) -> Result<(), CgroupError> {
        let cells = self.cells.load(Ordering::Relaxed);
        let inits = (cells + 1 + WAITING).div_ceil(INIT_STEP) * INIT_STEP;
        self.inits.store(inits, Ordering::Relaxed);
        let count = self.pids.load(Ordering::Relaxed).saturating_add(inits);
        match self.directory("pids") {
            Some((dir, _)) => limits::pids(&dir, count),
            None => Ok(()),
        }
    }

    /// Makes the groups of a new cell. `id` is used once in the life of a server.
    ///
    /// # Errors
    /// EEXIST if the id was used before; whatever the kernel refuses. Nothing is left behind.
    pub fn cell(&self, id: &str, resources: &CellResources) -> Result<CellGroup, CgroupError> {
        super::check_name(id)?;
        if self.cells.load(Ordering::Relaxed) + 1 + WAITING > self.inits.load(Ordering::Relaxed) {
            self.write_pids()?;
        }
        let cell = CellGroup::create(&self.layout, &self.id, id, resources, self.cells.clone())?;
        self.cells.fetch_add(1, Ordering::Relaxed);
        Ok(cell)
    }

    /// Removes the groups; false while a cell is left. What is gone already is fine.
    ///
    /// # Errors
    /// What the kernel answers, other than that the group is busy.
    pub fn remove(&self) -> Result<bool, CgroupError> {
        // Where cells have groups of their own, one that is left makes this busy. Groups that cells
        // only join go last, or one would vanish under a cell that is still to start in it.
        let joined = self.layout.v1.iter().filter(|tree| !tree.per_cell);
        let joined: Vec<_> = joined.map(|tree| tree.base.join(&self.id)).collect();
        let (last, first): (Vec<_>, Vec<_>) = self
            .directories()
            .into_iter()
            .partition(|dir| joined.contains(dir));
        for dir in first.iter().chain(&last) {
            if !files::remove(dir)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
