//! Staging directories: all that an import makes until it is complete. `staging/<uuid>/` holds
//!
//! ```text
//! blobs/       what was fetched or copied, by digest
//! layers/      unpacked layers, as they will be in the store
//! uses/        empty files named by layers of the store that this import relies on: they are not removed meanwhile
//! ```
//!
//! The directory itself is locked (flock) by the process that works in it, so that one without a lock is a leftover,
//! whatever ended that process.

use crate::image::ImageStore;
use crate::image::digest::Digest;
use crate::image::error::{ImageError, io_error};
use crate::image::store::{LayerRecord, remove};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// A staging directory; it goes when this is dropped.
#[derive(Debug)]
pub struct Staging {
    store: ImageStore,
    path: PathBuf,
    lock: Flock<File>,
}

impl Staging {
    /// Makes one, and removes those that interrupted imports left.
    pub fn new(store: &ImageStore) -> Result<Staging, ImageError> {
        store.sweep()?;
        // Between its making and its locking a directory looks like a leftover; those are only removed exclusively.
        let _shared = store.lock_shared()?;
        let all = store.directory.join("staging");
        make(&all)?;
        let path = all.join(Uuid::now_v7().to_string());
        make(&path)?;
        let lock = lock(&path)?.ok_or_else(|| {
            let taken = io::Error::from(io::ErrorKind::WouldBlock);
            io_error("lock", &path)(taken)
        })?;
        let staging = Staging {
            store: store.clone(),
            path,
            lock,
        };
        for name in ["blobs", "layers", "uses"] {
            make(&staging.path.join(name))?;
        }
        Ok(staging)
    }

    /// The store that this is part of.
    pub fn store(&self) -> &ImageStore {
        &self.store
    }

    /// Where a blob of this digest is to be put; it need not be there.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs").join(digest.hex())
    }

    /// A place for a file whose digest is not known; the name must be a plain one.
    pub fn file_path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether the store has this layer; if so it stays there for as long as this lives.
    pub fn claim(&self, diff_id: &Digest) -> Result<bool, ImageError> {
        let _shared = self.store.lock_shared()?;
        if !self.store.layer_path(diff_id).is_dir() {
            return Ok(false);
        }
        let mark = self.path.join("uses").join(diff_id.hex());
        File::create(&mark).map_err(io_error("create", &mark))?;
        Ok(true)
    }

    /// Makes the place for the tree of the layer that comes as number `index`; [`Staging::keep_layer`] gives it its name.
    pub(crate) fn new_layer(&self, index: usize) -> Result<PathBuf, ImageError> {
        let layer = self.path.join("layers").join(format!(".{index}"));
        make(&layer)?;
        let tree = layer.join(super::TREE);
        make(&tree)?;
        Ok(tree)
    }

    /// Says what the layer that came as number `index` turned out to be.
    pub(crate) fn keep_layer(&self, index: usize, record: &LayerRecord) -> Result<(), ImageError> {
        let layer = self.path.join("layers").join(format!(".{index}"));
        let file = layer.join(super::LAYER_FILE);
        let json = serde_json::to_vec(record).expect("plain values");
        std::fs::write(&file, json).map_err(io_error("write", &file))?;
        let named = self.layer_path(&record.diff_id);
        std::fs::rename(&layer, &named).map_err(io_error("rename", &layer))
    }

    /// Removes a layer that was unpacked here.
    pub(crate) fn forget_layer(&self, diff_id: &Digest) -> Result<(), ImageError> {
        let path = self.layer_path(diff_id);
        remove::tree(&path).map_err(io_error("remove", &path))
    }

    /// Where a layer is that was unpacked here.
    pub(crate) fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.path.join("layers").join(diff_id.hex())
    }

    /// What is known of a layer that was unpacked here.
    pub(crate) fn layer(&self, diff_id: &Digest) -> Result<LayerRecord, ImageError> {
        super::read_layer(&self.layer_path(diff_id))
    }

    /// The directory, opened: for syncfs(2).
    pub(crate) fn directory(&self) -> &File {
        &self.lock
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What this can't remove, the next one to come will.
        let _ = remove::tree(&self.path);
    }
}

/// Locks a directory unless another process has, or has just removed it: an import that ends does so without the store's
/// lock.
pub(super) fn lock(path: &Path) -> Result<Option<Flock<File>>, ImageError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io_error("open", path))?,
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        // Its name is gone before its lock is, and no other directory gets that name.
        Ok(lock) => Ok(path.exists().then_some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(io_error("lock", path)(errno.into())),
    }
}

/// Makes a directory of root's own, unless it is there.
pub(super) fn make(path: &Path) -> Result<(), ImageError> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(path);
    made.map_err(io_error("create", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_that_has_just_ended_is_no_leftover() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("import");
        assert!(lock(&path).unwrap().is_none());
        make(&path).unwrap();
        assert!(lock(&path).unwrap().is_some());
    }
}
