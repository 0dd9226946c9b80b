//! The store of imported images, each layer once for all images and runtimes, named by what is in it. Below
//! `<data>/images/`:
//!
//!     lock                    see `lock`
//!     contents/<id>.json      a content: never changed
//!     layers/<diff id>/       root's, 0700: `fs`, the unpacked tree, and `layer.json`
//!     staging/<uuid>/         an import under way; its directory is locked by the process that works in it
//!     trash/<uuid>/           on its way out: moved there under the lock, removed without
//!
//! What is in `contents` and `layers` is whole: it gets there by rename(2), when it is on the disk. So whatever ends an
//! import leaves something in `staging` at the most, which whoever comes next removes.

pub mod lock;

/// A layer's unpacked tree in its directory.
pub(crate) const TREE: &str = "fs";
