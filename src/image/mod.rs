//! Images: the read-only base of a runtime's root file system. The catalogue is root's: a file per image in
//! `<data>/images/`, read by the warden, which takes names but never paths from the api process.
//!
//! Two kinds exist: `host`, made from the machine's own `/usr` ([`host`]), and directories that the operator already
//! has, used read-only in place.

pub mod content;
pub mod digest;
pub mod host;
mod skeleton;
pub mod unpack;

use crate::cell::rootfs::Layers;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// The embedded image's name.
pub const HOST: &str = "host";

/// Why an image can't be added or used.
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
    /// Another directory has this name already.
    #[error("image {0:?} exists already; choose another name")]
    Exists(String),
    /// No image of that name.
    #[error("no image is named {0:?}; `cellblock image ls` lists them")]
    Unknown(String),
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
    /// A catalogue file is not what `image add` wrote.
    #[error("{}: not an image record; remove it and add the image again", .path.display())]
    Record {
        /// The file.
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

/// A catalogue file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// The directory that is used in place.
    rootfs: PathBuf,
}

/// The catalogue below one data directory.
#[derive(Debug, Clone)]
pub struct ImageStore {
    directory: PathBuf,
}

impl ImageStore {
    /// The catalogue of this data directory; nothing is read yet.
    pub fn new(data_dir: &Path) -> ImageStore {
        ImageStore {
            directory: data_dir.join("images"),
        }
    }

    /// Makes the catalogue directory and the embedded image's skeleton anew, so that it follows the machine's packages.
    /// Only while no runtime is mounted: an overlay's lower layer must not change under it.
    pub fn prepare(&self) -> Result<(), ImageError> {
        self.make_directory()?;
        skeleton::build_base(&self.built("base"))?;
        host::build(&self.built("host"))
    }

    fn make_directory(&self) -> Result<(), ImageError> {
        use std::os::unix::fs::DirBuilderExt;
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.directory);
        made.map_err(io_error("create", &self.directory))
    }

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
        self.make_directory()?;
        let record = serde_json::to_vec(&Record { rootfs }).expect("paths were checked as UTF-8");
        let (path, new) = (
            self.record(name),
            self.directory.join(format!(".{name}.new")),
        );
        let written = std::fs::write(&new, record).map_err(io_error("write", &new));
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

    /// What a runtime of this image is mounted from.
    pub fn layers(&self, name: &str) -> Result<Layers, ImageError> {
        let base = self.built("base");
        if name == HOST {
            return Ok(Layers {
                lower: vec![self.built("host"), base],
                binds: host::binds(),
            });
        }
        // Checked before it becomes part of a path: this name comes from the api process.
        check_name(name)?;
        let path = self.record(name);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ImageError::Unknown(name.to_owned()));
            }
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        let record: Record =
            serde_json::from_slice(&bytes).map_err(|source| ImageError::Record { path, source })?;
        check_rootfs(&record.rootfs)?;
        Ok(Layers {
            lower: vec![record.rootfs, base],
            binds: Vec::new(),
        })
    }

    fn record(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }

    fn built(&self, name: &str) -> PathBuf {
        self.directory.join("built").join(name)
    }
}

/// Records a root file system directory under a name: `cellblock image add`.
pub fn add(data_dir: &Path, name: &str, rootfs: &Path) -> Result<(), ImageError> {
    ImageStore::new(data_dir).add(name, rootfs)
}

/// Whether an image can have this name.
pub fn is_name(name: &str) -> bool {
    name == HOST || check_name(name).is_ok()
}

fn check_name(name: &str) -> Result<(), ImageError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if name == HOST {
        Err(ImageError::Reserved)
    } else if !starts || name.len() > 63 || !name.chars().all(valid) {
        Err(ImageError::Name(name.to_owned()))
    } else {
        Ok(())
    }
}

fn check_rootfs(path: &Path) -> Result<(), ImageError> {
    let refuse = |reason: &str| {
        Err(ImageError::NotARootfs {
            path: path.to_owned(),
            reason: reason.to_owned(),
        })
    };
    let status = std::fs::symlink_metadata(path).map_err(io_error("find", path))?;
    if !status.is_dir() {
        return refuse("is not a directory");
    }
    if path.to_str().is_none() {
        return refuse("the path is not UTF-8");
    }
    if path == Path::new("/") {
        return refuse("is the machine's own root, secrets included; use the image \"host\"");
    }
    for name in ["proc", "dev", "tmp"] {
        match std::fs::symlink_metadata(path.join(name)) {
            Ok(status) if !status.is_dir() => {
                return refuse(&format!(
                    "/{name} in it is not a directory; replace it by one"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
