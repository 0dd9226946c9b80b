//! Import of images: whatever they come from, layers and a configuration end up in the store.
//!
//! ```text
//! source        what a path is: a directory, an archive of images, a layout, an archive of one root file system
//! directory     a directory → one layer, as a tar stream (`tar`)
//! archive       the outer tar of `docker save` and of OCI layouts: where its files lie
//! blobs         reading of a layout's files, in a directory or an archive
//! docker, oci   what the files of either form say → configuration and layers (`manifest`)
//! platform      which machine an image is for
//! config        the image's configuration → what the store keeps of it
//! parents       directories that layers only imply → one more layer, which says what lower ones do of them
//! finish        layers → unpacked, checked, committed; the pull of images ends in it too
//! ```
//!
//! Nothing of a layer is parsed here: [`crate::image::unpack`] does that, confined. JSON documents and the headers of an
//! outer tar are, and their sizes are bounded.

mod archive;
mod blobs;
pub mod config;
mod directory;
mod docker;
pub mod error;
pub mod finish;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod manifest;
mod oci;
mod parents;
pub mod platform;
mod source;
mod tar;

pub use crate::image::store::staging::Staging;
pub use error::ImportError;
pub use finish::{LayerBlob, finish};
pub use platform::Platform;
pub use source::import;

use crate::image::ImageStore;
use crate::image::content::Content;
use crate::image::progress::Progress;
use crate::image::unpack::{Bounds, Unpacker};

/// What every import is told.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Where to.
    pub store: &'a ImageStore,
    /// The name that the image gets.
    pub name: &'a str,
    /// The machine that it must be for; none means this one. A single image for another machine is refused too, unless that
    /// is named here.
    pub platform: Option<&'a Platform>,
    /// What all layers together may come to.
    pub bounds: Bounds,
    /// Who unpacks.
    pub unpacker: &'a Unpacker,
    /// Who is told how it goes.
    pub progress: &'a dyn Progress,
}

/// An image that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// What it is.
    pub content: Content,
    /// Whether the name is new; else it was this content's before.
    pub new: bool,
}
