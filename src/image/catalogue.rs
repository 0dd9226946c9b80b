//! Names of images and what they stand for: a file per name, `<data>/images/NAME.json`. The warden reads it for every new
//! runtime, the command line writes it, also while the service runs.

use crate::cell::rootfs::Layers;
use crate::image::content::Content;
use crate::image::digest::Digest;
use crate::image::error::{ImageError, io_error};
use crate::image::names::{check_name, check_rootfs};
use crate::image::unpack::is_opaque;
use crate::image::{HOST, ImageStore, host};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What a name stands for; the file of the name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Record {
    /// A directory that is used in place.
    Rootfs(PathBuf),
    /// An imported image's id.
    Image(Digest),
}

impl ImageStore {
    /// Names of all images, in order.
    pub fn list(&self) -> Result<Vec<String>, ImageError> {
        let mut names = vec![HOST.to_owned()];
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
            Err(error) => return Err(io_error("list", &self.directory)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(io_error("list", &self.directory))?;
            if let Some(name) = entry
                .file_name()
                .to_str()
                .and_then(|n| n.strip_suffix(".json"))
                .filter(|name| check_name(name).is_ok())
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Records `rootfs` under `name`. It is used in place, read-only; later changes to it reach running runtimes in
    /// undefined ways, so leave it as it is.
    pub fn add(&self, name: &str, rootfs: &Path) -> Result<(), ImageError> {
        check_name(name)?;
        let rootfs = rootfs.canonicalize().map_err(io_error("find", rootfs))?;
        check_rootfs(&rootfs)?;
        let _lock = self.lock_exclusive()?;
        self.link(name, &Record::Rootfs(rootfs))
    }

    /// Gives something a name that nothing has. Under the exclusive lock.
    pub(super) fn link(&self, name: &str, record: &Record) -> Result<(), ImageError> {
        let json = serde_json::to_vec(record).expect("paths were checked as UTF-8");
        let path = self.record_path(name);
        let new = self.directory.join(format!(".{name}.new"));
        // On the disk before it has its name: a record that a power cut emptied would keep all others from being told.
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(&json)?;
            file.sync_all()
        });
        let written = written.map_err(io_error("write", &new));
        // A link fails where the name is taken; a rename would replace it.
        let linked = written.and_then(|()| match std::fs::hard_link(&new, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(ImageError::Exists(name.to_owned()))
            }
            other => other.map_err(io_error("write", &path)),
        });
        let _ = std::fs::remove_file(&new);
        linked
    }

    /// What a name stands for. Not for [`HOST`], which has no file.
    pub(crate) fn record(&self, name: &str) -> Result<Record, ImageError> {
        // Checked before it becomes part of a path: this name may come from the api process.
        check_name(name)?;
        let path = self.record_path(name);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ImageError::Unknown(name.to_owned()));
            }
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        serde_json::from_slice(&bytes).map_err(|source| ImageError::Record { path, source })
    }

    /// What a runtime of this image is mounted from.
    pub fn layers(&self, name: &str) -> Result<Layers, ImageError> {
        let base = self.built("base");
        if name == HOST {
            return Ok(Layers {
                lower: vec![self.built("host"), base],
                binds: host::binds(),
            });
        }
        match self.record(name)? {
            Record::Rootfs(rootfs) => {
                check_rootfs(&rootfs)?;
                Ok(Layers {
                    lower: vec![rootfs, base],
                    binds: Vec::new(),
                })
            }
            Record::Image(id) => self.layers_of(&self.content(&id)?),
        }
    }

    /// The content that a name stands for; none for `host` and for what is used in place. Hold the lock
    /// ([`ImageStore::lock_shared`]) from before this until what refers to the content is on disk.
    pub fn content_of(&self, name: &str) -> Result<Option<Content>, ImageError> {
        if name == HOST {
            return Ok(None);
        }
        match self.record(name)? {
            Record::Rootfs(_) => Ok(None),
            Record::Image(id) => self.content(&id).map(Some),
        }
    }

    /// The content of this id, whatever names it has or had.
    pub fn content(&self, id: &Digest) -> Result<Content, ImageError> {
        let path = self.content_path(id);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ImageError::Missing(*id));
            }
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        serde_json::from_slice(&bytes).map_err(|source| ImageError::Record { path, source })
    }

    /// What a runtime of this content is mounted from, with the lowest layer of all images beneath.
    ///
    /// Of a layer that an image has twice only the upper one counts: it repeats all that the lower one shows and hides. An
    /// overlay of one directory twice is refused by the kernel.
    pub fn layers_of(&self, content: &Content) -> Result<Layers, ImageError> {
        let mut seen = HashSet::new();
        let mut lower = Vec::new();
        for diff_id in content.layers.iter().rev().filter(|id| seen.insert(**id)) {
            let tree = self.layer_path(diff_id).join(super::store::TREE);
            if !tree.is_dir() {
                return Err(ImageError::Missing(content.id));
            }
            let look = io_error("look at", &tree);
            let hides = File::open(&tree).and_then(|root| Ok(is_opaque(&root.into())?));
            let hides = hides.map_err(look)?;
            lower.push(tree);
            // The kernel heeds that of every directory but a layer's root.
            if hides {
                break;
            }
        }
        lower.push(self.built("base"));
        Ok(Layers {
            lower,
            binds: Vec::new(),
        })
    }

    pub(super) fn record_path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::is_name;

    #[test]
    fn adds_lists_and_resolves_a_directory() {
        let data = tempfile::tempdir().unwrap();
        let store = ImageStore::new(data.path());
        assert_eq!(store.list().unwrap(), ["host"]);
        let rootfs = data.path().join("rootfs");
        std::fs::create_dir(&rootfs).unwrap();
        store.add("mine", &rootfs).unwrap();
        // What `add` would not have written is no image.
        for stray in ["notes.txt", ".hidden.json", "host.json", "a b.json"] {
            std::fs::write(data.path().join("images").join(stray), "{}").unwrap();
        }
        assert_eq!(store.list().unwrap(), ["host", "mine"]);
        assert_eq!(
            store.layers("mine").unwrap().lower[0],
            rootfs.canonicalize().unwrap()
        );
        assert!(matches!(
            store.add("mine", &rootfs),
            Err(ImageError::Exists(_))
        ));
    }

    #[test]
    fn refuses_names_that_would_be_paths_and_links_where_we_mount() {
        let data = tempfile::tempdir().unwrap();
        let store = ImageStore::new(data.path());
        for name in ["../x", "a/b", "", ".hidden", "host", &"n".repeat(64)] {
            assert!(store.add(name, data.path()).is_err(), "{name}");
        }
        for name in ["../x", "a/b", "", ".hidden", "nothing"] {
            assert!(store.layers(name).is_err(), "{name}");
            assert!(!is_name(name) || name == "nothing", "{name}");
        }
        assert!(is_name(HOST));
        assert!(store.add("root", Path::new("/")).is_err());
        std::os::unix::fs::symlink("/etc", data.path().join("proc")).unwrap();
        assert!(matches!(
            store.add("link", data.path()),
            Err(ImageError::NotARootfs { .. })
        ));
    }
}
