//! Directories of root's own records: `<data>/<kind>/<uuid>/<kind's>.json`, beside a disk. What is under construction or
//! demolition has a name of its own, and is removed at the next start.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound::{Excluded, Unbounded};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// What is on disk in a directory of its own.
pub trait Record: Serialize + DeserializeOwned {
    /// The directory of all, in the data directory.
    const ALL: &'static str;
    /// The record's file, in the directory of one.
    const FILE: &'static str;

    /// Its id, which is also the name of its directory.
    fn id(&self) -> Uuid;
}

/// The directory of all records of a kind.
#[derive(Debug, Clone)]
pub struct Directory(PathBuf);

/// A directory under construction or demolition begins with this.
const UNFINISHED: &str = ".";

impl Directory {
    /// Makes the directory where there is none, reads all records, and removes what an interrupted creation or deletion
    /// left.
    pub fn load<R: Record>(data_dir: &Path) -> io::Result<(Directory, Vec<R>)> {
        let directory = data_dir.join(R::ALL);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)?;
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(UNFINISHED) {
                // It holds files of root's only: a tenant's tree is inside a disk image.
                std::fs::remove_dir_all(entry.path())?;
                continue;
            }
            match read::<R>(&entry.path(), &name) {
                Ok(record) => all.push(record),
                Err(error) => {
                    tracing::error!(path = %entry.path().display(), %error, "not one of the {}", R::ALL);
                }
            }
        }
        Ok((Directory(directory), all))
    }

    /// Whether something is there that would have to give way to a new one: also what is no record of ours, and has to stay.
    pub fn occupied(&self, id: Uuid) -> bool {
        std::fs::symlink_metadata(self.path(id)).is_ok()
    }

    /// Where one lives.
    pub fn path(&self, id: Uuid) -> PathBuf {
        self.0.join(id.to_string())
    }

    /// Where one is built up or torn down.
    pub fn unfinished_path(&self, id: Uuid) -> PathBuf {
        self.0.join(format!("{UNFINISHED}{id}"))
    }
}

/// Writes a record into its directory.
pub fn write<R: Record>(directory: &Path, record: &R) -> io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create_new(directory.join(R::FILE))?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()
}

fn read<R: Record>(directory: &Path, name: &str) -> io::Result<R> {
    let record: R = serde_json::from_slice(&std::fs::read(directory.join(R::FILE))?)?;
    if record.id().to_string() == name {
        Ok(record)
    } else {
        Err(io::Error::other(
            "the record names another one than the directory",
        ))
    }
}

/// Up to `count` ids after `after`, in order.
pub fn page<V>(all: &BTreeMap<Uuid, V>, after: Option<Uuid>, count: usize) -> Vec<Uuid> {
    let from = after.map_or(Unbounded, Excluded);
    let following = all.range((from, Unbounded));
    following.take(count).map(|(id, _)| *id).collect()
}
