//! The checkpoints on disk, in root's own records: `<data>/checkpoints/<uuid>/checkpoint.json` beside the copy of the
//! disk. What the api process says about a checkpoint is its id.

use crate::image::digest::Digest;
use crate::warden::server::records::{self, Directory};
use crate::warden::server::settings::Settings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use uuid::Uuid;

/// A checkpoint's record on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its id; also its directory's name.
    pub id: Uuid,
    /// Name of the image below the files on its disk.
    pub image: String,
    /// That image's content, where it is an imported one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<Digest>,
    /// The profile that they were written under.
    pub profile: String,
    /// Size of the disk in MiB.
    pub disk_mib: u64,
    /// First uid of the range that the files belong to.
    pub disk_base: u32,
}

impl records::Record for Record {
    const ALL: &'static str = "checkpoints";
    const FILE: &'static str = "checkpoint.json";

    fn id(&self) -> Uuid {
        self.id
    }
}

/// All checkpoints.
#[derive(Debug)]
pub struct Checkpoints {
    /// Where they are on disk.
    pub directory: Directory,
    all: BTreeMap<Uuid, Record>,
}

impl Checkpoints {
    /// Reads all records and removes what an interrupted copy or deletion left.
    pub fn load(settings: &Settings) -> io::Result<Checkpoints> {
        let (directory, all) = Directory::load::<Record>(&settings.data_dir)?;
        let all = all.into_iter().map(|record| (record.id, record)).collect();
        Ok(Checkpoints { directory, all })
    }

    /// Adds a checkpoint that is on disk.
    pub fn insert(&mut self, record: Record) {
        self.all.insert(record.id, record);
    }

    /// Forgets a checkpoint.
    pub fn remove(&mut self, id: Uuid) {
        self.all.remove(&id);
    }

    /// The checkpoint of this id.
    pub fn get(&self, id: Uuid) -> Option<&Record> {
        self.all.get(&id)
    }

    /// Up to `count` ids after `after`, in order.
    pub fn page(&self, after: Option<Uuid>, count: usize) -> Vec<Uuid> {
        records::page(&self.all, after, count)
    }
}
