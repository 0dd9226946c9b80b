//! Stops and continues every process of a runtime: `cgroup.freeze` (5.2) where there is a version 2 tree, the freezer
//! of version 1 elsewhere.
//!
//! What the two have in common is all that callers get: after [`RuntimeGroup::freeze`] processes stop one by one, until
//! [`RuntimeGroup::is_frozen`]; each cell can still be killed; a process that joins a cell later stops there too. New
//! cells are the caller's to keep away: version 1 freezes the cells that exist, one by one.

use std::path::{Path, PathBuf};

use super::error::CgroupError;
use super::files;
use super::runtime::RuntimeGroup;

/// The file that stops and continues a group, with the words for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freezer {
    V1,
    V2,
}

impl Freezer {
    /// Stops (or continues) everything in the group; returns before the last process has stopped.
    pub(super) fn set(self, dir: &Path, frozen: bool) -> Result<bool, CgroupError> {
        match self {
            Self::V1 => {
                let state = if frozen { "FROZEN" } else { "THAWED" };
                files::write_if_there(dir, "freezer.state", state)
            }
            Self::V2 => files::write_if_there(dir, "cgroup.freeze", if frozen { "1" } else { "0" }),
        }
    }

    /// How far a group is.
    fn state(self, dir: &Path) -> Result<State, CgroupError> {
        let text = match self {
            Self::V1 => files::read_if_there(dir, "freezer.state"),
            Self::V2 => files::read_if_there(dir, "cgroup.events"),
        };
        let text = match text {
            Ok(text) => text,
            // It went away between open and read.
            Err(CgroupError::Io { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
                None
            }
            Err(error) => return Err(error),
        };
        Ok(match (self, text.as_deref().map(str::trim)) {
            (_, None) | (Self::V1, Some("FROZEN")) => State::Still,
            (Self::V1, Some("FREEZING")) => State::Stopping,
            (Self::V2, Some(text)) if files::value_of(text, "frozen") == Some(1) => State::Still,
            _ => State::Moving,
        })
    }
}

/// How far a group is on its way to stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The last process has stopped. A group that is gone holds none.
    Still,
    /// On version 1: it was asked to, and some have not stopped yet.
    Stopping,
    /// Not all have stopped. On version 1 it was not asked to either.
    Moving,
}

impl RuntimeGroup {
    /// Begins to stop every process in the runtime; see [`RuntimeGroup::is_frozen`].
    ///
    /// On version 1 each existing cell is frozen by itself, since a cell below a frozen group could
    /// not be killed.
    ///
    /// # Errors
    /// What the kernel answers; `NotFound` if the host can't freeze.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.set_frozen(true)
    }

    /// Undoes [`RuntimeGroup::freeze`].
    ///
    /// # Errors
    /// As for `freeze`.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.set_frozen(false)
    }

    /// Whether every process has stopped since [`RuntimeGroup::freeze`]. One that waits for a slow device stops when
    /// its call returns, so this may take a while to become true.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        let (freezer, groups) = self.frozen_groups()?;
        for group in groups {
            match freezer.state(&group)? {
                State::Still => {}
                State::Stopping => {
                    // A process that joined meanwhile can leave it so; asked again, the kernel goes on.
                    freezer.set(&group, true)?;
                    return Ok(false);
                }
                // On version 1 a cell that was thawed to die, which it would not if it were frozen again.
                State::Moving => return Ok(false),
            }
        }
        Ok(true)
    }

    /// As [`RuntimeGroup::thaw`], and no error where the host can't freeze: nothing is frozen there.
    pub(super) fn thaw_if_possible(&self) -> Result<(), CgroupError> {
        match self.thaw() {
            Err(CgroupError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(())
            }
            other => other,
        }
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), CgroupError> {
        let (freezer, groups) = self.frozen_groups()?;
        for group in groups {
            let there = freezer.set(&group, frozen)?;
            // A cell may go at any time, but a runtime's group without the file is a kernel without the ability.
            if !there && freezer == Freezer::V2 {
                return Err(self.cannot_freeze());
            }
        }
        Ok(())
    }

    /// The groups whose processes are stopped one group at a time.
    fn frozen_groups(&self) -> Result<(Freezer, Vec<PathBuf>), CgroupError> {
        if let Some(tree) = &self.layout.v2 {
            Ok((Freezer::V2, vec![tree.base.join(&self.id)]))
        } else if let Some((dir, _)) = self.directory("freezer") {
            Ok((Freezer::V1, files::children(&dir)?))
        } else {
            Err(self.cannot_freeze())
        }
    }

    fn cannot_freeze(&self) -> CgroupError {
        CgroupError::io("freeze", &PathBuf::from(&self.id))(std::io::ErrorKind::NotFound.into())
    }
}
