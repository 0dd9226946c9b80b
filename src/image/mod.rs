//! Images: the read-only base of a runtime's root file system. All of it is root's, below `<data>/images/`: the warden
//! reads it and takes names but never paths from the api process, the command line writes it, also while the service runs.
//!
//! Three kinds exist: `host`, made from the machine's own `/usr` ([`host`]); directories that the operator already has,
//! used read-only in place; and imported images ([`import`]), kept once, by content ([`store`]).

pub mod applied;
pub mod catalogue;
pub mod content;
pub mod digest;
pub mod error;
pub mod host;
pub mod import;
pub mod listed;
mod names;
pub mod progress;
pub mod pull;
mod skeleton;
pub mod store;
pub mod unpack;

pub use error::ImageError;
pub(crate) use error::io_error;
pub use names::is_name;
pub use store::lock::Lock;

use digest::Digest;
use std::path::{Path, PathBuf};

/// The embedded image's name.
pub const HOST: &str = "host";

/// The images below one data directory.
#[derive(Debug, Clone)]
pub struct ImageStore {
    directory: PathBuf,
    data_dir: PathBuf,
}

impl ImageStore {
    /// The images of this data directory; nothing is read yet.
    pub fn new(data_dir: &Path) -> ImageStore {
        ImageStore {
            directory: data_dir.join("images"),
            data_dir: data_dir.to_owned(),
        }
    }

    /// Makes the directory and the embedded image's skeleton anew, so that it follows the machine's packages, and removes
    /// what interrupted imports left. On a full disk they stay as an earlier start made them. Only while no runtime is mounted:
    /// an overlay's lower layer must not change under it.
    pub fn prepare(&self) -> Result<(), ImageError> {
        self.sweep()?;
        let (base, host) = (self.built("base"), self.built("host"));
        skeleton::or_older(&base, skeleton::build_base(&base))?;
        skeleton::or_older(&host, host::build(&host))
    }

    fn make_directory(&self) -> Result<(), ImageError> {
        use std::os::unix::fs::DirBuilderExt;
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.directory);
        made.map_err(io_error("create", &self.directory))
    }

    /// Where they are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn built(&self, name: &str) -> PathBuf {
        self.directory.join("built").join(name)
    }

    fn content_path(&self, id: &Digest) -> PathBuf {
        self.directory
            .join("contents")
            .join(format!("{}.json", id.hex()))
    }

    fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.directory.join("layers").join(diff_id.hex())
    }
}

/// Records a root file system directory under a name: `cellblock image add`.
pub fn add(data_dir: &Path, name: &str, rootfs: &Path) -> Result<(), ImageError> {
    ImageStore::new(data_dir).add(name, rootfs)
}
