//! The store of imported images, each layer once for all images and runtimes, named by what is in it. Below
//! `<data>/images/`:
//!
//! ```text
//! lock                    see `lock`
//! contents/<id>.json      a content: never changed
//! layers/<diff id>/       root's, 0700: `fs`, the unpacked tree, and `layer.json`
//! staging/<uuid>/         an import under way; its directory is locked by the process that works in it
//! trash/<uuid>/           on its way out: moved there under the lock, removed without
//! ```
//!
//! What is in `contents` and `layers` is whole: it gets there by rename(2), when it is on the disk. So whatever ends an
//! import leaves something in `staging` at the most, which whoever comes next removes.

mod collect;
mod commit;
pub mod lock;
mod references;
mod remove;
pub mod show;
pub mod staging;

pub use collect::Freed;
pub(crate) use commit::commit;
pub use references::{References, Users};

use crate::image::ImageStore;
use crate::image::digest::Digest;
use crate::image::error::{ImageError, io_error};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A layer's unpacked tree in its directory.
pub(crate) const TREE: &str = "fs";
/// What is known of a layer, in its directory.
const LAYER_FILE: &str = "layer.json";

/// What is known of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Digest of its uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of its regular files.
    pub bytes: u64,
    /// How many files, directories and links it has.
    pub entries: u64,
}

impl ImageStore {
    /// What is known of a layer that the store has.
    pub fn layer(&self, diff_id: &Digest) -> Result<LayerRecord, ImageError> {
        read_layer(&self.layer_path(diff_id))
    }
}

fn read_layer(directory: &Path) -> Result<LayerRecord, ImageError> {
    let path = directory.join(LAYER_FILE);
    let bytes = std::fs::read(&path).map_err(io_error("read", &path))?;
    serde_json::from_slice(&bytes).map_err(|source| ImageError::Record { path, source })
}
