//! The moment in which a staged image becomes part of the store.

use crate::image::catalogue::Record;
use crate::image::content::Content;
use crate::image::digest::Digest;
use crate::image::error::{ImageError, io_error};
use crate::image::store::staging::{self, Staging};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Puts a content and its layers into the store and gives it a name; false where the name was the content's already.
///
/// Everything is on the disk before it gets its place, and gets it from the bottom up: layers, content, name. What stands in
/// the store is therefore whole, whenever this ends.
pub(crate) fn commit(staging: &Staging, content: &Content, name: &str) -> Result<bool, ImageError> {
    let store = staging.store();
    let staged = staging.file_path("content.json");
    let json = serde_json::to_vec(content).expect("plain values");
    std::fs::write(&staged, json).map_err(io_error("write", &staged))?;
    rustix::fs::syncfs(staging.directory())
        .map_err(|errno| io_error("sync", &staged)(errno.into()))?;
    for place in ["layers", "contents"] {
        staging::make(&store.directory.join(place))?;
    }

    // An operator's ctrl-C waits for these few renames, so that it leaves all of the image or nothing.
    let _calm = Calm::begin()?;
    let _lock = store.lock_exclusive()?;
    let known = store.named_as(name, &content.id)?;
    let mut moved = Vec::new();
    let committed = put(staging, content, &staged, &mut moved).and_then(|()| match known {
        true => Ok(()),
        false => store.link(name, &Record::Image(content.id)),
    });
    if let Err(error) = committed {
        // Back to where the staging directory's end takes them along.
        for (from, to) in moved.iter().rev() {
            let _ = std::fs::rename(to, from);
        }
        return Err(error);
    }
    for place in ["layers", "contents", ""] {
        let directory = store.directory.join(place);
        File::open(&directory)
            .and_then(|opened| opened.sync_all())
            .map_err(io_error("sync", &directory))?;
    }
    Ok(!known)
}

/// No signal that asks to end is delivered to this thread until it is dropped.
struct Calm(SigSet);

impl Calm {
    fn begin() -> Result<Calm, ImageError> {
        let mut asking = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            asking.add(signal);
        }
        let before = asking.thread_swap_mask(SigmaskHow::SIG_BLOCK);
        let failed = |errno: Errno| io_error("block", Path::new("signals"))(errno.into());
        before.map(Calm).map_err(failed)
    }
}

impl Drop for Calm {
    fn drop(&mut self) {
        // The mask was in force before, so it is a valid one.
        let _ = self.0.thread_set_mask();
    }
}

fn put(
    staging: &Staging,
    content: &Content,
    staged: &Path,
    moved: &mut Vec<(PathBuf, PathBuf)>,
) -> Result<(), ImageError> {
    let store = staging.store();
    let mut rename = |from: PathBuf, to: PathBuf| {
        std::fs::rename(&from, &to).map_err(io_error("rename", &from))?;
        moved.push((from, to));
        Ok(())
    };
    for diff_id in content.layers.iter().collect::<BTreeSet<_>>() {
        let place = store.layer_path(diff_id);
        // Another import may have brought it meanwhile; what it relied on can't have gone.
        if !place.is_dir() {
            rename(staging.layer_path(diff_id), place)?;
        }
    }
    let place = store.content_path(&content.id);
    if !place.exists() {
        rename(staged.to_owned(), place)?;
    }
    Ok(())
}

impl crate::image::ImageStore {
    /// Whether a name is this content's already.
    ///
    /// # Errors
    /// [`ImageError::Exists`] when it is something else's.
    pub(crate) fn named_as(&self, name: &str, content: &Digest) -> Result<bool, ImageError> {
        match self.record(name) {
            Ok(Record::Image(id)) if id == *content => Ok(true),
            Ok(_) => Err(ImageError::Exists(name.to_owned())),
            Err(ImageError::Unknown(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
