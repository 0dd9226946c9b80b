//! Making directories of root's that become overlay layers: built beside the old one, then put in its place.

use crate::image::{ImageError, io_error};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

/// A layer under construction.
pub(super) struct Builder {
    root: PathBuf,
    target: PathBuf,
}

impl Builder {
    /// Begins a layer that [`Builder::finish`] puts at `target`; what an interrupted attempt left is removed.
    pub(super) fn new(target: &Path) -> Result<Builder, ImageError> {
        let root = target.with_extension("new");
        remove(&root)?;
        let old = target.with_extension("old");
        if !target.exists() && old.exists() {
            // It ended between its two renames.
            fs::rename(&old, target).map_err(io_error("rename", &old))?;
        }
        fs::create_dir_all(&root).map_err(io_error("create", &root))?;
        let builder = Builder {
            root,
            target: target.to_owned(),
        };
        builder.set(Path::new(""), 0o755, 0)?;
        Ok(builder)
    }

    /// Makes a directory (its parents must exist) with this mode and owner.
    pub(super) fn dir(&self, name: &str, mode: u32, owner: u32) -> Result<(), ImageError> {
        let path = self.root.join(name);
        fs::create_dir(&path).map_err(io_error("create", &path))?;
        self.set(Path::new(name), mode, owner)
    }

    /// Makes a file that all may read.
    pub(super) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> Result<(), ImageError> {
        let path = self.root.join(name);
        fs::write(&path, text).map_err(io_error("write", &path))?;
        self.set(Path::new(name), 0o644, 0)
    }

    /// Makes a symbolic link.
    pub(super) fn link(&self, name: &str, to: &Path) -> Result<(), ImageError> {
        let path = self.root.join(name);
        symlink(to, &path).map_err(io_error("link", &path))
    }

    /// Copies what is at `source` to `name`: a directory with all below it, a file, a link as a link. Only what
    /// everybody may read is taken; anything else, and what does not exist, is passed over. A file keeps its time: what was
    /// compiled from it (Python's `sitecustomize`) is taken for stale else, and compiled anew by each command.
    pub(super) fn copy(&self, source: &Path, name: &str) -> Result<(), ImageError> {
        let Ok(status) = fs::symlink_metadata(source) else {
            return Ok(());
        };
        if status.is_symlink() {
            let to = fs::read_link(source).map_err(io_error("read", source))?;
            self.link(name, &to)
        } else if status.is_dir() && status.permissions().mode() & 0o005 == 0o005 {
            self.dir(name, 0o755, 0)?;
            for entry in fs::read_dir(source).map_err(io_error("list", source))? {
                let entry = entry.map_err(io_error("list", source))?;
                if let Some(child) = entry.file_name().to_str() {
                    self.copy(&entry.path(), &format!("{name}/{child}"))?;
                }
            }
            Ok(())
        } else if status.is_file() && status.permissions().mode() & 0o004 != 0 {
            self.file(name, fs::read(source).map_err(io_error("read", source))?)?;
            let path = self.root.join(name);
            let dated = File::options().write(true).open(&path);
            dated
                .and_then(|file| file.set_modified(status.modified()?))
                .map_err(io_error("date", &path))
        } else {
            Ok(())
        }
    }

    /// Puts the layer in the place of an older one.
    pub(super) fn finish(self) -> Result<(), ImageError> {
        let old = self.target.with_extension("old");
        remove(&old)?;
        match fs::rename(&self.target, &old) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("rename", &self.target)(error));
            }
            _ => {}
        }
        fs::rename(&self.root, &self.target).map_err(io_error("rename", &self.root))?;
        remove(&old)
    }

    /// Mode and owner, whatever umask the process has.
    fn set(&self, name: &Path, mode: u32, owner: u32) -> Result<(), ImageError> {
        let path = self.root.join(name);
        chown(&path, Some(owner), Some(owner)).map_err(io_error("chown", &path))?;
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(&path, mode).map_err(io_error("chmod", &path))
    }
}

/// What came of building a layer. On a full disk the one that an earlier start built stays, so that the service starts and room
/// can be made.
pub(super) fn or_older(target: &Path, built: Result<(), ImageError>) -> Result<(), ImageError> {
    match built {
        Err(ImageError::Io { source, path, .. })
            if source.kind() == std::io::ErrorKind::StorageFull && target.exists() =>
        {
            let path = path.display();
            tracing::warn!(%path, "the disk is full: a part of the images stays as it was");
            remove(&target.with_extension("new"))
        }
        other => other,
    }
}

/// The lowest layer of every image: the directories that cells mount on and that profiles name as home, for root file
/// systems that lack them.
pub(super) fn build_base(target: &Path) -> Result<(), ImageError> {
    let builder = Builder::new(target)?;
    for name in ["proc", "dev", "home", "var", "run", "etc"] {
        builder.dir(name, 0o755, 0)?;
    }
    builder.dir("tmp", 0o1777, 0)?;
    builder.dir("var/tmp", 0o1777, 0)?;
    builder.dir("root", 0o700, 0)?;
    builder.dir("home/user", 0o755, 1000)?;
    builder.finish()
}

/// Removes a directory that only root ever wrote to. It is never a mount point: mounts are made in namespaces of their
/// own, and only with descriptors.
fn remove(path: &Path) -> Result<(), ImageError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_copied_file_keeps_its_time() {
        let directory = tempfile::TempDir::new().unwrap();
        let source = directory.path().join("source");
        let then = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        fs::write(&source, "text").unwrap();
        let file = File::options().write(true).open(&source).unwrap();
        file.set_modified(then).unwrap();
        let target = directory.path().join("layer");
        let builder = Builder::new(&target).unwrap();
        builder.copy(&source, "copy").unwrap();
        builder.finish().unwrap();
        let copy = target.join("copy");
        assert_eq!(fs::read_to_string(&copy).unwrap(), "text");
        assert_eq!(copy.metadata().unwrap().modified().unwrap(), then);
    }
}
