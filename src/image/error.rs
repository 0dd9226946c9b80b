//! What can go wrong with images, in the operator's words.

use crate::image::digest::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// Why an image can't be added, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name has other characters or another length than allowed.
    #[error(
        "image name {0:?}: use 1 to 63 characters A-Z a-z 0-9 _ . - and begin with a letter or digit"
    )]
    Name(String),
    /// `host` is made from the machine and can't be replaced.
    #[error("image name \"host\" is taken by the embedded image; choose another")]
    Reserved,
    /// Another image has this name already.
    #[error(
        "image {0:?} exists already; choose another name, or remove it with `cellblock image rm {0}`"
    )]
    Exists(String),
    /// No image of that name.
    #[error("no image is named {0:?}; `cellblock image ls` lists them")]
    Unknown(String),
    /// `host` can't be removed.
    #[error("image \"host\" is part of Cellblock and can't be removed")]
    Embedded,
    /// A directory that is used in place is found by its name only.
    #[error(
        "image {name:?} is a directory used in place by {runtimes} runtimes and {checkpoints} checkpoints; delete them \
         first"
    )]
    InUse {
        /// Its name.
        name: String,
        /// How many runtimes are made of it.
        runtimes: usize,
        /// How many checkpoints.
        checkpoints: usize,
    },
    /// What a name or a record refers to is not there.
    #[error("image {0} is not in the store any more; import it again")]
    Missing(Digest),
    /// The directory can't be a root file system.
    #[error("{}: {reason}", .path.display())]
    NotARootfs {
        /// What was offered.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file operation failed.
    #[error("{operation} {}", .path.display())]
    Io {
        /// What was done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A file of the catalogue is not what was written there.
    #[error("{}: not an image record; remove it and add the image again", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The parser's answer.
        #[source]
        source: serde_json::Error,
    },
    /// It can't be told what a runtime or a checkpoint is made of, and so nothing may be removed.
    #[error(
        "{}: it can't be told which image this refers to, so nothing is removed; repair or remove it",
        .path.display()
    )]
    Reference {
        /// The record.
        path: PathBuf,
        /// The parser's answer.
        #[source]
        source: serde_json::Error,
    },
}

/// Adds operation and path to an I/O error.
pub(crate) fn io_error<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> ImageError + 'a {
    move |source| ImageError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}
