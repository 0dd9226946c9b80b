//! From layers that lie somewhere to an image in the store: unpack what the store lacks, check it, look the user up, commit.

use crate::image::content::{Content, ImageConfig};
use crate::image::digest::Digest;
use crate::image::import::config::{self, Parsed};
use crate::image::import::error::{ImportError, io_error};
use crate::image::import::{Imported, Platform, Request, Staging, parents};
use crate::image::store::{LayerRecord, TREE, commit};
use crate::image::unpack::{Bounds, Unpacked};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Where a layer comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerBlob {
    /// The store has it: [`Staging::claim`] said so for the diff id that the configuration has in its place.
    Claimed,
    /// A tar archive, perhaps compressed. Its own digest, where it has one, has been verified.
    File {
        /// The file.
        path: PathBuf,
        /// Where in the file it begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
}

/// Makes an image of layers, the lowest first, and the bytes of its configuration, whose digest, where it has one, has been
/// verified.
pub fn finish(
    staging: Staging,
    config: &[u8],
    layers: &[LayerBlob],
    request: &Request<'_>,
) -> Result<Imported, ImportError> {
    let mut parsed = config::parse(config, request.progress)?;
    let wanted = request.platform.cloned().unwrap_or_else(Platform::here);
    wanted.check(&parsed.platform)?;
    if parsed.diff_ids.len() != layers.len() {
        return Err(ImportError::Malformed {
            what: "the image".to_owned(),
            reason: format!(
                "its manifest names {} layers, its configuration {}",
                layers.len(),
                parsed.diff_ids.len()
            ),
        });
    }
    if let Some(content) = known(&parsed, request)? {
        return Ok(Imported {
            content,
            new: false,
        });
    }
    let mut used = Used::default();
    for (index, (blob, diff_id)) in layers.iter().zip(&parsed.diff_ids).enumerate() {
        let have = staging.layer_path(diff_id).is_dir() || staging.claim(diff_id)?;
        match blob {
            _ if have => {}
            LayerBlob::Claimed => return Err(crate::image::ImageError::Missing(*diff_id).into()),
            LayerBlob::File {
                path,
                offset,
                length,
            } => {
                let mut file = File::open(path).map_err(io_error("open", path))?;
                file.seek(SeekFrom::Start(*offset))
                    .map_err(io_error("read", path))?;
                let what = format!("layer {} of {}", index + 1, layers.len());
                let found = unpack(
                    &staging,
                    index,
                    &what,
                    file.into(),
                    Some(*length),
                    &mut used,
                    request,
                )?;
                if found.diff_id != *diff_id {
                    return Err(ImportError::WrongLayer {
                        number: index + 1,
                        wanted: *diff_id,
                        found: found.diff_id,
                    });
                }
                staging.keep_layer(index, &found)?;
            }
        }
    }
    give_back(&staging, &mut parsed, &mut used, request)?;
    conclude(staging, parsed, request)
}

/// The content that this would become, if the name stands for that already.
///
/// # Errors
/// Where it stands for something else: better said before a gigabyte is unpacked.
fn known(parsed: &Parsed, request: &Request<'_>) -> Result<Option<Content>, ImportError> {
    match request.store.named_as(request.name, &parsed.id)? {
        true => Ok(request.store.content_of(request.name)?),
        false => Ok(None),
    }
}

/// Unpacks an archive of a whole root file system that comes without a configuration.
pub(super) fn unpack_rootfs(
    staging: &Staging,
    source: OwnedFd,
    length: Option<u64>,
    what: &str,
    request: &Request<'_>,
) -> Result<Digest, ImportError> {
    let mut used = Used::default();
    let found = unpack(staging, 0, what, source, length, &mut used, request)?;
    staging.keep_layer(0, &found)?;
    Ok(found.diff_id)
}

/// As [`finish`], of such a root file system.
pub(super) fn conclude_rootfs(
    staging: Staging,
    diff_id: Digest,
    request: &Request<'_>,
) -> Result<Imported, ImportError> {
    let platform = request.platform.cloned().unwrap_or_else(Platform::here);
    let config = config::made_up(diff_id, &platform);
    conclude(staging, config::parse(&config, request.progress)?, request)
}

/// What the layers came to so far.
#[derive(Default)]
struct Used {
    bytes: u64,
    entries: u64,
}

fn unpack(
    staging: &Staging,
    index: usize,
    what: &str,
    source: OwnedFd,
    length: Option<u64>,
    used: &mut Used,
    request: &Request<'_>,
) -> Result<LayerRecord, ImportError> {
    let tree = staging.new_layer(index)?;
    let bounds = Bounds {
        bytes: request.bounds.bytes.saturating_sub(used.bytes),
        entries: request.bounds.entries.saturating_sub(used.entries),
        ..request.bounds
    };
    let mut step = request.progress.begin(&format!("unpack {what}"), length);
    let done = request
        .unpacker
        .layer(source, length, &tree, &bounds, &mut |bytes| step.at(bytes));
    let Unpacked {
        diff_id,
        bytes,
        entries,
        implied,
    } = done.map_err(|source| ImportError::Unpack {
        what: what.to_owned(),
        source,
    })?;
    // It was read to its end; what was told last was a while before.
    if let Some(length) = length {
        step.at(length);
    }
    used.bytes += bytes;
    used.entries += entries;
    Ok(LayerRecord {
        diff_id,
        bytes,
        entries,
        implied,
    })
}

/// A layer on top of all others that gives directories back what a layer took that only implied them: the owner and mode
/// that a lower one says. An overlay shows those of the uppermost.
fn give_back(
    staging: &Staging,
    parsed: &mut Parsed,
    used: &mut Used,
    request: &Request<'_>,
) -> Result<(), ImportError> {
    let mut layers = Vec::new();
    for diff_id in parsed.diff_ids.iter().rev() {
        let (path, record) = found(staging, diff_id)?;
        layers.push(parents::Layer::open(&path.join(TREE), record.implied)?);
    }
    let archive = parents::archive(&layers)
        .map_err(io_error("look at the layers of", &staging.file_path("")))?;
    let Some(archive) = archive else {
        return Ok(());
    };
    let path = staging.file_path("parents.tar");
    std::fs::write(&path, archive).map_err(io_error("write", &path))?;
    let file = File::open(&path).map_err(io_error("open", &path))?;
    let index = parsed.diff_ids.len();
    let what = "what layers say of directories";
    let record = unpack(staging, index, what, file.into(), None, used, request)?;
    staging.keep_layer(index, &record)?;
    parsed.diff_ids.push(record.diff_id);
    Ok(())
}

/// Where a layer of the image is, and what is known of it.
fn found(staging: &Staging, diff_id: &Digest) -> Result<(PathBuf, LayerRecord), ImportError> {
    let staged = staging.layer_path(diff_id);
    Ok(match staged.is_dir() {
        true => (staged, staging.layer(diff_id)?),
        false => {
            let store = staging.store();
            (store.layer_path(diff_id), store.layer(diff_id)?)
        }
    })
}

fn conclude(
    staging: Staging,
    parsed: Parsed,
    request: &Request<'_>,
) -> Result<Imported, ImportError> {
    let mut trees: Vec<PathBuf> = Vec::new();
    let mut bytes = 0;
    for diff_id in parsed.diff_ids.iter().rev() {
        let (path, known) = found(&staging, diff_id)?;
        let tree = path.join(TREE);
        if !trees.contains(&tree) {
            bytes += known.bytes;
            trees.push(tree);
        }
    }
    let user = parsed
        .user
        .as_ref()
        .map(|user| request.unpacker.user(&trees, user));
    let user = user.transpose().map_err(|source| ImportError::Unpack {
        what: "the image's user".to_owned(),
        source,
    })?;
    let content = Content {
        id: parsed.id,
        architecture: parsed.platform.architecture,
        created: parsed.created,
        layers: parsed.diff_ids,
        bytes,
        config: ImageConfig {
            env: parsed.env,
            user,
            working_dir: parsed.working_dir,
        },
    };
    let new = commit(&staging, &content, request.name)?;
    Ok(Imported { content, new })
}
