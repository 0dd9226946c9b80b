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
use std::collections::BTreeSet;
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
    /// Directories that none of its entries named, so that lower layers tell of their owner and mode.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty", with = "paths")]
    pub implied: BTreeSet<Vec<u8>>,
}

/// Paths need not be text: what is not plain in them is percent-encoded.
mod paths {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
    use serde::{Deserialize, Deserializer, Serializer};
    use std::collections::BTreeSet;

    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'/')
        .remove(b'.')
        .remove(b'-')
        .remove(b'_');

    pub fn serialize<S: Serializer>(
        paths: &BTreeSet<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let texts = paths.iter().map(|path| percent_encode(path, ENCODED));
        serializer.collect_seq(texts.map(|text| text.to_string()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<Vec<u8>>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        Ok(texts
            .iter()
            .map(|text| percent_decode_str(text).collect())
            .collect())
    }
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
