//! Removal: of a name, of what nothing refers to, of what interrupted imports left. What is removed is moved to the trash
//! under the lock, and only then deleted, so that nobody waits for that.

use crate::image::HOST;
use crate::image::ImageStore;
use crate::image::catalogue::Record;
use crate::image::error::{ImageError, io_error};
use crate::image::store::references::{digest_of, entries};
use crate::image::store::{remove, staging};
use std::path::Path;
use uuid::Uuid;

/// What a removal came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Freed {
    /// Contents.
    pub images: usize,
    /// Layers.
    pub layers: usize,
    /// Bytes of the layers' files.
    pub bytes: u64,
}

impl ImageStore {
    /// Removes a name, and what nothing refers to then. Runtimes and checkpoints of an imported image go on; a directory
    /// that is used in place is found by its name only, so that one keeps its name while there are any.
    pub fn remove(&self, name: &str) -> Result<Freed, ImageError> {
        if name == HOST {
            return Err(ImageError::Embedded);
        }
        self.with_trash(|store| {
            if let Record::Rootfs(_) = store.record(name)? {
                let users = store
                    .references()?
                    .in_place
                    .remove(name)
                    .unwrap_or_default();
                if users.runtimes + users.checkpoints > 0 {
                    return Err(ImageError::InUse {
                        name: name.to_owned(),
                        runtimes: users.runtimes,
                        checkpoints: users.checkpoints,
                    });
                }
            }
            // Before the name goes: what can't be counted now would leave the image without one.
            store.references()?;
            let path = store.record_path(name);
            std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
            store.collect()
        })
    }

    /// Removes every content and layer that nothing refers to, and what interrupted imports left.
    pub fn prune(&self) -> Result<Freed, ImageError> {
        self.with_trash(ImageStore::collect)
    }

    /// Removes what interrupted imports and removals left.
    pub fn sweep(&self) -> Result<(), ImageError> {
        self.with_trash(|_| Ok(()))
    }

    /// Does something under the exclusive lock, and empties the trash after it.
    fn with_trash<T>(
        &self,
        work: impl FnOnce(&ImageStore) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let lock = self.lock_exclusive()?;
        for import in entries(&self.directory.join("staging"))? {
            // Held while it is moved: nobody else takes it for a leftover too.
            if let Some(_leftover) = staging::lock(&import)? {
                self.discard(&import)?;
            }
        }
        for new in entries(&self.directory)? {
            let name = new.file_name().unwrap_or_default().as_encoded_bytes();
            // Names are given under the lock: nobody is about to write this one.
            if name.starts_with(b".") && name.ends_with(b".new") {
                std::fs::remove_file(&new).map_err(io_error("remove", &new))?;
            }
        }
        let done = work(self);
        drop(lock);
        for waste in entries(&self.directory.join("trash"))? {
            remove::tree(&waste).map_err(io_error("remove", &waste))?;
        }
        done
    }

    fn collect(&self) -> Result<Freed, ImageError> {
        let references = self.references()?;
        let contents = references.contents();
        let layers = self.needed_layers(&references)?;
        let mut freed = Freed::default();
        for path in entries(&self.directory.join("contents"))? {
            if digest_of(&path).is_none_or(|id| !contents.contains(&id)) {
                std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
                freed.images += 1;
            }
        }
        for path in entries(&self.directory.join("layers"))? {
            let diff_id = digest_of(&path);
            if diff_id.is_none_or(|diff_id| !layers.contains(&diff_id)) {
                freed.layers += 1;
                let known = diff_id.and_then(|diff_id| self.layer(&diff_id).ok());
                freed.bytes += known.map_or(0, |layer| layer.bytes);
                self.discard(&path)?;
            }
        }
        Ok(freed)
    }

    fn discard(&self, path: &Path) -> Result<(), ImageError> {
        let trash = self.directory.join("trash");
        staging::make(&trash)?;
        let target = trash.join(Uuid::now_v7().to_string());
        std::fs::rename(path, target).map_err(io_error("rename", path))
    }
}
