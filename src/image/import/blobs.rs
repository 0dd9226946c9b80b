//! Files of a layout or an archive of images, by the names that its documents say. The names are a stranger's, and so are
//! links on their way: none leads out of the source.

use crate::image::digest::Digest;
use crate::image::import::LayerBlob;
use crate::image::import::archive::{Index, Place};
use crate::image::import::config::MAX_JSON;
use crate::image::import::error::{ImportError, io_error, shown};
use crate::image::progress::Progress;
use nix::fcntl::OFlag;
use sha2::{Digest as _, Sha256};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Whether a file is as long as its descriptor says.
pub(super) fn check_size(name: &str, promised: u64, found: u64) -> Result<(), ImportError> {
    if promised == found {
        return Ok(());
    }
    Err(ImportError::Malformed {
        what: shown(name),
        reason: format!("has {found} bytes; {promised} were promised"),
    })
}

/// A source that has files.
#[derive(Debug)]
pub struct Blobs {
    path: PathBuf,
    /// The directory, or the archive.
    file: File,
    index: Option<Index>,
    /// Files of the directory that layers were found in: kept open, so that what was looked at is what is unpacked.
    opened: Vec<File>,
}

impl Blobs {
    /// Files in a directory.
    pub fn of_directory(path: &Path, directory: File) -> Blobs {
        Blobs {
            path: path.to_owned(),
            file: directory,
            index: None,
            opened: Vec::new(),
        }
    }

    /// Files in an archive.
    pub fn of_archive(path: &Path, archive: File, index: Index) -> Blobs {
        Blobs {
            path: path.to_owned(),
            file: archive,
            index: Some(index),
            opened: Vec::new(),
        }
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is such a file.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// A JSON document.
    pub fn json(&self, name: &str) -> Result<Vec<u8>, ImportError> {
        let (file, place) = self.find(name)?;
        if place.length > MAX_JSON {
            return Err(ImportError::Malformed {
                what: shown(name),
                reason: format!("has {} bytes; {MAX_JSON} are the most", place.length),
            });
        }
        let mut bytes = vec![0; place.length as usize];
        let read = file
            .as_ref()
            .unwrap_or(&self.file)
            .read_exact_at(&mut bytes, place.offset);
        read.map_err(io_error("read", &self.path))?;
        Ok(bytes)
    }

    /// A document of this digest, in the place that layouts have for it.
    pub fn document(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, ImportError> {
        let name = place_of(digest);
        let bytes = self.json(&name)?;
        let found = Digest::of(&bytes);
        check_size(&name, size, bytes.len() as u64)?;
        if found != *digest {
            return Err(ImportError::WrongDigest {
                what: name,
                wanted: *digest,
                found,
            });
        }
        Ok(bytes)
    }

    /// A layer, held against its own digest where it has one. That takes a pass over all of it, which `progress` hears of.
    pub fn layer(
        &mut self,
        name: &str,
        digest: Option<&Digest>,
        progress: &dyn Progress,
    ) -> Result<LayerBlob, ImportError> {
        let (file, Place { offset, length }) = self.find(name)?;
        let read = file.as_ref().unwrap_or(&self.file);
        if let Some(wanted) = digest {
            let found = self.digest(read, Place { offset, length }, name, progress)?;
            if found != *wanted {
                return Err(ImportError::WrongDigest {
                    what: shown(name),
                    wanted: *wanted,
                    found,
                });
            }
        }
        let path = format!("/proc/self/fd/{}", read.as_raw_fd()).into();
        self.opened.extend(file);
        Ok(LayerBlob::File {
            path,
            offset,
            length,
        })
    }

    fn digest(
        &self,
        file: &File,
        place: Place,
        name: &str,
        progress: &dyn Progress,
    ) -> Result<Digest, ImportError> {
        let end: String = name
            .chars()
            .skip(name.chars().count().saturating_sub(64))
            .take(12)
            .collect();
        let mut step = progress.begin(&format!("check {}", shown(&end)), Some(place.length));
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        let mut done = 0;
        while done < place.length {
            let want = buffer.len().min((place.length - done) as usize);
            let read = file.read_exact_at(&mut buffer[..want], place.offset + done);
            read.map_err(io_error("read", &self.path))?;
            hash.update(&buffer[..want]);
            done += want as u64;
            step.at(done);
        }
        Ok(Digest::finish(hash))
    }

    /// The file to read from, where it is not the archive, and where in it.
    fn find(&self, name: &str) -> Result<(Option<File>, Place), ImportError> {
        let absent = || ImportError::Absent { what: shown(name) };
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if name.len() > 4095 || !name.split('/').all(plain) {
            return Err(ImportError::Refused {
                what: shown(name),
                reason: "is named as a part of the image, but is no path inside of the source"
                    .to_owned(),
            });
        }
        if let Some(index) = &self.index {
            return Ok((None, index.place(name).ok_or_else(absent)?));
        }
        let path = self.path.join(name);
        let name = CString::new(name).expect("checked above");
        // O_NONBLOCK: a FIFO must not keep us waiting.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
        let opened = crate::sys::openat2(self.file.as_fd(), &name, flags, resolve);
        let file = match opened {
            Ok(fd) => File::from(fd),
            Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => return Err(absent()),
            Err(errno) => return Err(io_error("open", &path)(errno)),
        };
        let status = file.metadata().map_err(io_error("find", &path))?;
        if !status.is_file() {
            return Err(ImportError::Refused {
                what: path.display().to_string(),
                reason: "is no regular file".to_owned(),
            });
        }
        let length = status.len();
        Ok((Some(file), Place { offset: 0, length }))
    }
}

/// Where layouts have the content of a digest.
pub fn place_of(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The digest that a path in such a place says.
pub fn digest_in(path: &str) -> Option<Digest> {
    Digest::from_hex(path.strip_prefix("blobs/sha256/")?).ok()
}
