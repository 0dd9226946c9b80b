//! Why an image is not imported.

use crate::image::ImageError;
use crate::image::digest::Digest;
use crate::image::unpack::UnpackError;
use std::io;
use std::path::{Path, PathBuf};

/// What went wrong, for the operator who imports an image. Texts that come from the source are escaped and cut.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The store.
    #[error(transparent)]
    Store(#[from] ImageError),
    /// A layer, or what is looked up in the layers.
    #[error("{what}")]
    Unpack {
        /// Which one.
        what: String,
        /// Why not.
        #[source]
        source: UnpackError,
    },
    /// A layer's bytes are not those that the configuration names.
    #[error(
        "layer {number}: its content has the digest {found}, the image's configuration says {wanted}"
    )]
    WrongLayer {
        /// Counted from 1, the lowest first.
        number: usize,
        /// What the configuration says.
        wanted: Digest,
        /// What was unpacked.
        found: Digest,
    },
    /// A part of the source is not what its reference says.
    #[error("{what}: its digest is {found}, not {wanted}")]
    WrongDigest {
        /// Which part.
        what: String,
        /// What the reference says.
        wanted: Digest,
        /// What is there.
        found: Digest,
    },
    /// A part of the source can't be understood.
    #[error("{what}: {reason}")]
    Malformed {
        /// Which part.
        what: String,
        /// Why not.
        reason: String,
    },
    /// The source lacks a part.
    #[error("{what} is not in the source")]
    Absent {
        /// Which part.
        what: String,
    },
    /// It is understood, and not taken.
    #[error("{what}: {reason}")]
    Refused {
        /// What.
        what: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The source holds several images.
    #[error("{}: {reason}; choose one with --ref:{}", .path.display(), lines(.choices))]
    Choice {
        /// The source.
        path: PathBuf,
        /// Why none was taken.
        reason: String,
        /// Their names.
        choices: Vec<String>,
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
}

fn lines(choices: &[String]) -> String {
    choices
        .iter()
        .map(|choice| format!("\n  {choice}"))
        .collect()
}

/// Adds operation and path to an I/O error.
pub(super) fn io_error<'a, E: Into<io::Error>>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(E) -> ImportError + 'a {
    move |source| ImportError::Io {
        operation,
        path: path.to_owned(),
        source: source.into(),
    }
}

/// A text of a stranger's as it may be shown on a terminal.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 200;
    let escape = |c: char| match c {
        // They do nothing on a terminal, and parsers' messages are full of them.
        '"' | '\'' => vec![c],
        _ => c.escape_debug().collect(),
    };
    let mut shown: String = text.chars().take(MOST).flat_map(escape).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}
