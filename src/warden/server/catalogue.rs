//! The runtimes on disk, in root's own records: `<data>/runtimes/<uuid>/runtime.json` beside the runtime's disk. What
//! the api process says about a runtime counts once, at its creation.

use crate::cell::identity::Ids;
use crate::cell::rootfs::Layers;
use crate::cgroup::RuntimeGroup;
use crate::image::digest::Digest;
use crate::resources::{RANGE, RuntimeResources};
use crate::warden::protocol::RuntimeSpec;
use crate::warden::server::records::{self, Directory};
use crate::warden::server::settings::Settings;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;
use uuid::Uuid;

/// A runtime's record on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// As it was created.
    pub spec: RuntimeSpec,
    /// First host uid of its range.
    pub uid_base: u32,
    /// First uid of the range that the files on its disk belong to, where that is another one: the disk was copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_base: Option<u32>,
    /// The content that its image's name stood for when it was created, and which it keeps whatever becomes of the name;
    /// none where that was no imported image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<Digest>,
    /// Who commands are, where its image says it; else its profile does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Ids>,
}

impl records::Record for Record {
    const ALL: &'static str = "runtimes";
    const FILE: &'static str = "runtime.json";

    fn id(&self) -> Uuid {
        self.spec.id
    }
}

/// Its mounts and group while it is in use.
#[derive(Debug)]
pub struct Mounted {
    /// The template mount namespace; the mounts in it live as long as this descriptor and the cells made from it.
    pub template: OwnedFd,
    /// The root directory of its disk, where it has one. Holds the disk's mount like the template does.
    pub disk: Option<OwnedFd>,
    /// Needed again in each cell of an ephemeral runtime.
    pub layers: Layers,
    /// The group that all its cells are in.
    pub group: RuntimeGroup,
    /// What the group was last set to.
    pub resources: Option<RuntimeResources>,
    /// When its last cell ended or began.
    pub last_used: Instant,
}

/// Where a runtime stands.
#[derive(Debug)]
pub enum State {
    /// On disk only.
    Unmounted,
    /// A job mounts it.
    Mounting,
    /// Cells can be opened.
    Mounted(Mounted),
}

/// What is done with a runtime as a whole: one thing at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// It is mounted, for this request.
    Start(u64),
    /// No cell is opened any more, and when the last one is gone, its mounts are let go.
    Close {
        /// The request to answer. None once the job that lets go does that: there is one such job.
        seq: Option<u64>,
        /// Whether the disk goes too.
        delete: bool,
    },
    /// Its processes come to stand still.
    Freeze {
        /// When to give up.
        deadline: Instant,
        /// What for.
        then: Then,
    },
    /// Its disk is copied.
    Copy,
    /// It is brought under a lower memory limit.
    Lower,
}

/// What the processes of a runtime stand still for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// To stay so, for this request.
    Pause(u64),
    /// For a copy of the disk.
    Copy {
        /// The request to answer.
        seq: u64,
        /// The checkpoint's id.
        checkpoint: Uuid,
    },
}

/// One runtime.
#[derive(Debug)]
pub struct Runtime {
    /// What is on disk.
    pub record: Record,
    /// See [`State`].
    pub state: State,
    /// Slots of its cells.
    pub cells: HashSet<u32>,
    /// Those of them that can't be opened yet.
    pub waiting: Vec<u32>,
    /// Its processes stand still, or are about to, until it is resumed.
    pub paused: bool,
    /// See [`Operation`].
    pub operation: Option<Operation>,
}

impl Runtime {
    /// Whether cells may be opened now.
    pub fn may_open(&self) -> bool {
        !self.paused && matches!(self.operation, None | Some(Operation::Start(_)))
    }
}

/// All runtimes.
#[derive(Debug)]
pub struct Catalogue {
    /// Where they are on disk.
    pub directory: Directory,
    first_base: u32,
    ranges: u32,
    runtimes: BTreeMap<Uuid, Runtime>,
    /// Those that began to come to stand still, until it is seen that they no longer do.
    pub freezing: BTreeSet<Uuid>,
    /// First ids of the ranges in use, those of runtimes under construction included.
    taken: BTreeSet<u32>,
}

impl Catalogue {
    /// Reads all records and removes what an interrupted creation or deletion left.
    pub fn load(settings: &Settings) -> io::Result<Catalogue> {
        let (directory, records) = Directory::load(&settings.data_dir)?;
        let mut catalogue = Catalogue {
            directory,
            first_base: settings.uid_base,
            ranges: settings.uid_ranges,
            runtimes: BTreeMap::new(),
            freezing: BTreeSet::new(),
            taken: BTreeSet::new(),
        };
        records
            .into_iter()
            .for_each(|record| catalogue.insert(record));
        Ok(catalogue)
    }

    /// Reserves a uid range that no runtime has; none when all are taken. The first of the block is the service's own.
    pub fn reserve(&mut self) -> Option<u32> {
        let mut bases = (1..=self.ranges).map(|index| self.first_base + index * RANGE);
        let base = bases.find(|base| !self.taken.contains(base))?;
        self.taken.insert(base);
        Some(base)
    }

    /// Gives a range back.
    pub fn release(&mut self, uid_base: u32) {
        self.taken.remove(&uid_base);
    }

    /// Adds a runtime that is on disk.
    pub fn insert(&mut self, record: Record) {
        self.taken.insert(record.uid_base);
        let runtime = Runtime {
            record,
            state: State::Unmounted,
            cells: HashSet::new(),
            waiting: Vec::new(),
            paused: false,
            operation: None,
        };
        self.runtimes.insert(runtime.record.spec.id, runtime);
    }

    /// Forgets a runtime; its range is free again.
    pub fn remove(&mut self, id: Uuid) {
        if let Some(runtime) = self.runtimes.remove(&id) {
            self.release(runtime.record.uid_base);
        }
    }

    /// The runtime of this id.
    pub fn get(&mut self, id: Uuid) -> Option<&mut Runtime> {
        self.runtimes.get_mut(&id)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (&Uuid, &Runtime)> {
        self.runtimes.iter()
    }

    /// Up to `count` ids after `after`, in order.
    pub fn page(&self, after: Option<Uuid>, count: usize) -> Vec<Uuid> {
        records::page(&self.runtimes, after, count)
    }

    /// Ids of mounted runtimes without cells that were last used before `before`.
    pub fn idle_since(&self, before: Instant) -> Vec<Uuid> {
        let unused = |runtime: &Runtime| runtime.cells.is_empty() && runtime.operation.is_none();
        self.ids(|runtime| match &runtime.state {
            State::Mounted(mounted) => unused(runtime) && mounted.last_used < before,
            _ => false,
        })
    }

    /// Whether there may be runtimes whose processes come to stand still.
    pub fn may_freeze(&self) -> bool {
        !self.freezing.is_empty()
    }

    /// Ids of runtimes whose processes come to stand still.
    pub fn freezing(&mut self) -> Vec<Uuid> {
        let runtimes = &self.runtimes;
        let freezes =
            |runtime: &Runtime| matches!(runtime.operation, Some(Operation::Freeze { .. }));
        self.freezing
            .retain(|id| runtimes.get(id).is_some_and(freezes));
        self.freezing.iter().copied().collect()
    }

    /// Whether processes come to stand still for the making of this checkpoint.
    pub fn freezes_for(&self, id: Uuid) -> bool {
        self.runtimes.values().any(|runtime| {
            matches!(runtime.operation, Some(Operation::Freeze { then: Then::Copy { checkpoint, .. }, .. })
                if checkpoint == id)
        })
    }

    /// Ids of runtimes whose disk is copied.
    pub fn copying(&self) -> Vec<Uuid> {
        self.ids(|runtime| runtime.operation == Some(Operation::Copy))
    }

    fn ids(&self, of: impl Fn(&Runtime) -> bool) -> Vec<Uuid> {
        let found = self.runtimes.iter().filter(|(_, runtime)| of(runtime));
        found.map(|(id, _)| *id).collect()
    }
}
