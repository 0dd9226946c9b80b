//! Groups that may still be busy for a moment after their last process is gone.

use crate::cgroup::{CellGroup, RuntimeGroup};
use std::error::Error;

/// One of them.
#[derive(Debug)]
pub enum Grave {
    /// Of a cell that is gone.
    Cell(CellGroup),
    /// Of a runtime that is not in use.
    Runtime(RuntimeGroup),
}

/// All of them.
#[derive(Debug, Default)]
pub struct Graves(Vec<Grave>);

impl Graves {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a group that is to be removed by [`Graves::dig`] once it is empty.
    pub fn bury(&mut self, grave: Grave) {
        self.0.push(grave);
    }

    /// Keeps the group of a runtime that is in use again.
    pub fn unbury(&mut self, group: &RuntimeGroup) {
        let same = |grave: &Grave| matches!(grave, Grave::Runtime(old) if old.id() == group.id());
        self.0.retain(|grave| !same(grave));
    }

    /// Removes the groups that are empty by now; the others stay for the next time.
    pub fn dig(&mut self) {
        self.0.retain(|grave| {
            let removed = match grave {
                Grave::Cell(group) => group.remove(),
                Grave::Runtime(group) => group.remove(),
            };
            match removed {
                Ok(removed) => !removed,
                Err(error) => {
                    tracing::error!(error = &error as &dyn Error, "a cgroup is left behind");
                    false
                }
            }
        });
    }
}
