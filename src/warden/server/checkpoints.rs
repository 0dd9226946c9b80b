//! The checkpoints on disk, in root's own records: `<data>/checkpoints/<uuid>/checkpoint.json` beside the copy of the
//! disk. What the api process says about a checkpoint is its id.

use crate::warden::server::settings::Settings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// A checkpoint's record on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its id; also its directory's name.
    pub id: Uuid,
    /// The image below the files on its disk.
    pub image: String,
    /// The profile that they were written under.
    pub profile: String,
    /// Size of the disk in MiB.
    pub disk_mib: u64,
    /// First uid of the range that the files belong to.
    pub disk_base: u32,
}

/// All checkpoints.
#[derive(Debug)]
pub struct Checkpoints {
    directory: PathBuf,
    all: BTreeMap<Uuid, Record>,
}

const RECORD: &str = "checkpoint.json";
/// A directory under construction or demolition begins with this; at start it is removed.
const UNFINISHED: &str = ".";

impl Checkpoints {
    /// Reads all records and removes what an interrupted copy or deletion left.
    pub fn load(settings: &Settings) -> io::Result<Checkpoints> {
        let directory = settings.data_dir.join("checkpoints");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)?;
        let mut all = BTreeMap::new();
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(UNFINISHED) {
                // A disk image and a record, both root's.
                std::fs::remove_dir_all(entry.path())?;
                continue;
            }
            match read(&entry.path(), &name) {
                Ok(record) => {
                    all.insert(record.id, record);
                }
                Err(error) => {
                    tracing::error!(path = %entry.path().display(), %error, "not a checkpoint");
                }
            }
        }
        Ok(Checkpoints { directory, all })
    }

    /// Where a checkpoint lives.
    pub fn path(&self, id: Uuid) -> PathBuf {
        self.directory.join(id.to_string())
    }

    /// Where a checkpoint is made or removed.
    pub fn unfinished_path(&self, id: Uuid) -> PathBuf {
        self.directory.join(format!("{UNFINISHED}{id}"))
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
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let following = self.all.range((from, Unbounded));
        following.take(count).map(|(id, _)| *id).collect()
    }
}

/// Writes a record into a checkpoint's directory.
pub fn write(directory: &Path, record: &Record) -> io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create_new(directory.join(RECORD))?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()
}

fn read(directory: &Path, name: &str) -> io::Result<Record> {
    let record: Record = serde_json::from_slice(&std::fs::read(directory.join(RECORD))?)?;
    if record.id.to_string() == name {
        Ok(record)
    } else {
        Err(io::Error::other(
            "the record names another checkpoint than the directory",
        ))
    }
}
