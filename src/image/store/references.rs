//! What is still needed: contents that names, runtimes and checkpoints refer to, layers of those, and layers that imports
//! under way rely on. Counted anew each time, out of what is on disk: a count that is kept can be wrong.

use crate::image::ImageStore;
use crate::image::catalogue::Record;
use crate::image::digest::Digest;
use crate::image::error::{ImageError, io_error};
use crate::image::store::staging;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// What refers to contents.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct References {
    /// Ids of the contents that have names.
    pub named: BTreeMap<Digest, Vec<String>>,
    /// By content.
    pub users: BTreeMap<Digest, Users>,
    /// Of images that are used in place, by name.
    pub in_place: BTreeMap<String, Users>,
}

/// How many are made of an image.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Users {
    /// Runtimes.
    pub runtimes: usize,
    /// Checkpoints.
    pub checkpoints: usize,
}

/// What is read of the warden's own records, which have more in them.
#[derive(Deserialize)]
struct RuntimeRecord {
    #[serde(default)]
    image_id: Option<Digest>,
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    image: String,
}

#[derive(Deserialize)]
struct CheckpointRecord {
    #[serde(default)]
    image_id: Option<Digest>,
    image: String,
}

impl ImageStore {
    /// What refers to contents. Under the lock, or it is out of date at once.
    pub fn references(&self) -> Result<References, ImageError> {
        let mut found = References::default();
        for name in self
            .list()?
            .iter()
            .filter(|name| *name != super::super::HOST)
        {
            if let Record::Image(id) = self.record(name)? {
                found.named.entry(id).or_default().push(name.clone());
            }
        }
        for record in records::<RuntimeRecord>(&self.data_dir.join("runtimes"), "runtime.json")? {
            found.users_of(record.image_id, record.spec.image).runtimes += 1;
        }
        let checkpoints = self.data_dir.join("checkpoints");
        for record in records::<CheckpointRecord>(&checkpoints, "checkpoint.json")? {
            found.users_of(record.image_id, record.image).checkpoints += 1;
        }
        Ok(found)
    }

    /// Layers that are needed, given what refers to contents.
    pub(super) fn needed_layers(&self, found: &References) -> Result<BTreeSet<Digest>, ImageError> {
        let mut needed = BTreeSet::new();
        for id in found.contents() {
            match self.content(&id) {
                Ok(content) => needed.extend(content.layers),
                // Its users can't be helped by keeping anything.
                Err(ImageError::Missing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        for import in entries(&self.directory.join("staging"))? {
            if staging::lock(&import)?.is_none() {
                needed.extend(
                    entries(&import.join("uses"))?
                        .iter()
                        .filter_map(|path| digest_of(path)),
                );
            }
        }
        Ok(needed)
    }
}

impl References {
    /// Ids of all contents that something refers to.
    pub fn contents(&self) -> BTreeSet<Digest> {
        self.named
            .keys()
            .chain(self.users.keys())
            .copied()
            .collect()
    }

    fn users_of(&mut self, id: Option<Digest>, name: String) -> &mut Users {
        match id {
            Some(id) => self.users.entry(id).or_default(),
            None => self.in_place.entry(name).or_default(),
        }
    }
}

/// A digest whose digits a file is named by, before the first dot.
pub(super) fn digest_of(path: &Path) -> Option<Digest> {
    Digest::from_hex(path.file_name()?.to_str()?.split('.').next()?).ok()
}

/// All paths in a directory, which need not be there.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("list", directory)(error)),
    };
    let paths = entries.map(|entry| Ok(entry?.path()));
    paths
        .collect::<io::Result<_>>()
        .map_err(io_error("list", directory))
}

/// The records of a kind. Of what is under construction too: whoever writes one holds the lock, so that a half-written one
/// is what a crash left, and refers to nothing.
fn records<R: DeserializeOwned>(all: &Path, file: &str) -> Result<Vec<R>, ImageError> {
    let mut found = Vec::new();
    for directory in entries(all)? {
        let path = directory.join(file);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                continue;
            }
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        let unfinished = directory
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        match serde_json::from_slice(&bytes) {
            Ok(record) => found.push(record),
            Err(_) if unfinished => {}
            Err(source) => return Err(ImageError::Reference { path, source }),
        }
    }
    Ok(found)
}
