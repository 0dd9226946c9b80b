//! Directories that a layer has only because something lies in them. A layer is unpacked alone, so it gives such a directory
//! an owner and a mode of its own, and an overlay shows those of the uppermost layer; but the image means what a lower layer
//! says, if one does. What is to be said again goes into one more layer on top, an archive of nothing but directories.

use crate::image::import::error::{ImportError, io_error};
use crate::image::import::tar::{self, Kind, Meta};
use crate::image::unpack::{is_opaque, open_dir};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// An unpacked layer.
pub(super) struct Layer {
    root: OwnedFd,
    /// Directories that none of its entries named.
    implied: BTreeSet<Vec<u8>>,
}

impl Layer {
    /// The layer whose tree is here.
    pub(super) fn open(tree: &Path, implied: BTreeSet<Vec<u8>>) -> Result<Layer, ImportError> {
        let root = File::open(tree).map_err(io_error("open", tree))?;
        Ok(Layer {
            root: root.into(),
            implied,
        })
    }

    /// What the layer says of a path, and whether lower layers have no say in it any more.
    fn look(&self, path: &[u8]) -> io::Result<(Option<OwnedFd>, bool)> {
        let mut closed = false;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for end in ends.map(|(at, _)| at) {
            match self.directory(&path[..end]) {
                Ok(above) => closed |= is_opaque(&above)?,
                Err(Errno::ENOENT) => return Ok((None, closed)),
                // A file, a link or a whiteout took its place.
                Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok((None, true)),
                Err(errno) => return Err(errno.into()),
            }
        }
        match self.directory(path) {
            Ok(found) => Ok((Some(found), closed)),
            Err(Errno::ENOENT) => Ok((None, closed)),
            Err(Errno::ENOTDIR | Errno::ELOOP) => Ok((None, true)),
            Err(errno) => Err(errno.into()),
        }
    }

    fn directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        open_dir(self.root.as_fd(), path, OFlag::O_RDONLY)
    }
}

/// A directory of the whole image.
struct Shown {
    meta: Meta,
    /// Whether it is to be said again: the uppermost layer that has it only implies it, as something else. Of a time alone
    /// no layer is made.
    lost: bool,
}

/// What the image of these layers, the uppermost first, means a directory to be; none where it has no such directory.
fn shown(layers: &[Layer], path: &[u8]) -> io::Result<Option<Shown>> {
    let mut uppermost: Option<Meta> = None;
    for layer in layers {
        let (found, closed) = layer.look(path)?;
        if let Some(directory) = found {
            let status = fstat(&directory)?;
            let meta = Meta {
                name: [path, b"/"].concat(),
                mode: status.st_mode & 0o7777,
                uid: status.st_uid,
                gid: status.st_gid,
                mtime: status.st_mtime.try_into().unwrap_or(0),
                attributes: Vec::new(),
            };
            if !layer.implied.contains(path) {
                let is_another = |above: &Meta| {
                    (above.mode, above.uid, above.gid) != (meta.mode, meta.uid, meta.gid)
                };
                let lost = uppermost.as_ref().is_some_and(is_another);
                return Ok(Some(Shown { meta, lost }));
            }
            uppermost.get_or_insert(meta);
        }
        if closed {
            break;
        }
    }
    Ok(uppermost.map(|meta| Shown { meta, lost: false }))
}

/// The archive of what is to be said again of directories in an image of these layers, the uppermost first; none where
/// nothing is.
pub(super) fn archive(layers: &[Layer]) -> io::Result<Option<Vec<u8>>> {
    let mut said = BTreeMap::new();
    let above = layers
        .split_last()
        .map_or(&[][..], |(_lowest, above)| above);
    for path in above.iter().flat_map(|layer| &layer.implied) {
        if said.contains_key(path) || !shown(layers, path)?.is_some_and(|shown| shown.lost) {
            continue;
        }
        // The directories above it come along, or the new layer would only imply them in its turn.
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for end in ends.map(|(at, _)| at).chain([path.len()]) {
            if let Some(shown) = shown(layers, &path[..end])? {
                said.insert(path[..end].to_vec(), shown.meta);
            }
        }
    }
    if said.is_empty() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    for meta in said.values() {
        tar::entry(&mut bytes, meta, Kind::Directory)?;
    }
    tar::end(&mut bytes)?;
    Ok(Some(bytes))
}
