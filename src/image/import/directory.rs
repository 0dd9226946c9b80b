//! A directory as a tar stream, the same bytes for the same files. It is read by descriptors, so that what changes meanwhile
//! leads nowhere else: no link is followed and no mount is entered.

use crate::image::import::error::{ImportError, io_error};
use crate::image::import::tar::{self, Attributes, Kind, Meta};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use rustix::fs::{AtFlags, Dir, FileType, Stat, fgetxattr, flistxattr, fstat, readlinkat, statat};
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Extended attributes that are copied begin with this, see the unpacker; and most bytes of one.
const ATTRIBUTES: &[u8] = b"user.";
const MAX_ATTRIBUTE: usize = 64 << 10;

/// What a directory came to.
#[derive(Debug, Default)]
pub struct Walked {
    /// What was left out, in words for the operator.
    pub notes: Vec<String>,
}

struct Walk<'a, W> {
    root: &'a File,
    path: &'a Path,
    out: W,
    /// The first names of files that have several.
    names: HashMap<(u64, u64), Vec<u8>>,
    walked: Walked,
}

/// Writes all that is in `root` to `out`. `path` is for messages.
pub fn write(root: &File, path: &Path, out: impl Write) -> Result<Walked, ImportError> {
    let mut walk = Walk {
        root,
        path,
        out: io::BufWriter::with_capacity(256 << 10, out),
        names: HashMap::new(),
        walked: Walked::default(),
    };
    let status = fstat(root).map_err(io_error("find", path))?;
    let meta = walk.meta(b"./".to_vec(), &status, Some(root.as_fd()))?;
    walk.put(&meta, Kind::Directory)?;
    let mut open = vec![Vec::new()];
    while let Some(directory) = open.pop() {
        let mut below = walk.directory(&directory)?;
        below.reverse();
        open.extend(below);
    }
    let written = tar::end(&mut walk.out).and_then(|()| walk.out.flush());
    written.map_err(io_error("pack", path))?;
    Ok(walk.walked)
}

impl<W: Write> Walk<'_, W> {
    /// Writes what is in a directory, and gives the directories in it, in order.
    fn directory(&mut self, name: &[u8]) -> Result<Vec<Vec<u8>>, ImportError> {
        let opened = match name {
            b"" => None,
            name => Some(self.open(self.root.as_fd(), name, name, OFlag::O_DIRECTORY)?),
        };
        // Kept in `opened`, or the root.
        let directory = opened.as_ref().and_then(Option::as_ref);
        let Some(directory) = directory
            .map(AsFd::as_fd)
            .or((opened.is_none()).then(|| self.root.as_fd()))
        else {
            return Ok(Vec::new());
        };
        let mut children = Vec::new();
        for entry in Dir::read_from(directory).map_err(self.failed("list", name))? {
            let entry = entry.map_err(self.failed("list", name))?;
            let child = entry.file_name().to_bytes().to_vec();
            if !matches!(child.as_slice(), b"." | b"..") {
                children.push(child);
            }
        }
        children.sort();
        let mut below = Vec::new();
        for child in children {
            let whole = match name {
                b"" => child.clone(),
                name => [name, b"/", &child].concat(),
            };
            if self.child(directory, &child, &whole)? {
                below.push(whole);
            }
        }
        Ok(below)
    }

    /// Writes an entry; whether it is a directory to look into.
    fn child(
        &mut self,
        directory: BorrowedFd<'_>,
        child: &[u8],
        whole: &[u8],
    ) -> Result<bool, ImportError> {
        if child.starts_with(b".wh.") {
            return Err(self.refused(
                whole,
                "has a name that hides other files in a layer; rename or remove it",
            ));
        }
        let name = CString::new(child).expect("names have no NUL");
        let status = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(self.failed("find", whole))?;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => {
                let named = [whole, b"/"].concat();
                let Some(opened) = self.open(directory, child, whole, OFlag::O_DIRECTORY)? else {
                    let meta = Meta {
                        name: named,
                        mode: 0o755,
                        ..Meta::default()
                    };
                    self.put(&meta, Kind::Directory)?;
                    return Ok(false);
                };
                let status = fstat(&opened).map_err(self.failed("find", whole))?;
                let meta = self.meta(named, &status, Some(opened.as_fd()))?;
                self.put(&meta, Kind::Directory)?;
                Ok(true)
            }
            FileType::RegularFile => self.file(directory, child, whole).map(|()| false),
            FileType::Symlink => {
                let target =
                    readlinkat(directory, &name, Vec::new()).map_err(self.failed("read", whole))?;
                let meta = self.meta(whole.to_vec(), &status, None)?;
                self.put(&meta, Kind::Symlink(target.as_bytes()))?;
                Ok(false)
            }
            FileType::Socket => {
                Err(self.refused(whole, "is a socket, which no image can have; remove it"))
            }
            FileType::Fifo => {
                Err(self.refused(whole, "is a FIFO, which no image can have; remove it"))
            }
            _ => Err(self.refused(
                whole,
                "is a device, which no image can have; remove it (a command finds its own /dev)",
            )),
        }
    }

    fn file(
        &mut self,
        directory: BorrowedFd<'_>,
        child: &[u8],
        whole: &[u8],
    ) -> Result<(), ImportError> {
        let Some(opened) = self.open(directory, child, whole, OFlag::O_NONBLOCK)? else {
            return Ok(());
        };
        let status = fstat(&opened).map_err(self.failed("find", whole))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(self.refused(whole, "changed while it was read; try again"));
        }
        let meta = self.meta(whole.to_vec(), &status, Some(opened.as_fd()))?;
        if status.st_nlink > 1 {
            let inode = (status.st_dev, status.st_ino);
            if let Some(first) = self.names.get(&inode).cloned() {
                return self.put(&meta, Kind::Hardlink(&first));
            }
            self.names.insert(inode, whole.to_vec());
        }
        let mut file = File::from(opened);
        self.put(
            &meta,
            Kind::File(status.st_size as u64, &mut file as &mut dyn Read),
        )
    }

    fn meta(
        &self,
        name: Vec<u8>,
        status: &Stat,
        opened: Option<BorrowedFd<'_>>,
    ) -> Result<Meta, ImportError> {
        let attributes = match opened {
            Some(fd) => attributes(fd).map_err(self.failed("read the attributes of", &name))?,
            None => Vec::new(),
        };
        Ok(Meta {
            mode: status.st_mode & 0o7777,
            uid: status.st_uid,
            gid: status.st_gid,
            mtime: u64::try_from(status.st_mtime).unwrap_or(0),
            attributes,
            name,
        })
    }

    fn put(&mut self, meta: &Meta, kind: Kind<'_>) -> Result<(), ImportError> {
        match tar::entry(&mut self.out, meta, kind) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.refused(&meta.name, "changed while it was read; try again"))
            }
            other => other.map_err(self.failed("pack", &meta.name)),
        }
    }

    /// None where something is mounted, which is noted.
    fn open(
        &mut self,
        directory: BorrowedFd<'_>,
        child: &[u8],
        whole: &[u8],
        flags: OFlag,
    ) -> Result<Option<OwnedFd>, ImportError> {
        let name = CString::new(child).expect("names have no NUL");
        let flags = flags | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY;
        let resolve = libc::RESOLVE_BENEATH
            | libc::RESOLVE_NO_SYMLINKS
            | libc::RESOLVE_NO_MAGICLINKS
            | libc::RESOLVE_NO_XDEV;
        match crate::sys::openat2(directory, &name, flags, resolve) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::EXDEV) => {
                let shown = self.shown(whole);
                let shown = shown.display();
                self.walked.notes.push(format!(
                    "{shown}: something is mounted there; it is left out"
                ));
                Ok(None)
            }
            Err(Errno::ELOOP | Errno::ENOENT | Errno::ENOTDIR) => {
                Err(self.refused(whole, "changed while it was read; try again"))
            }
            Err(errno) => Err(self.failed("open", whole)(errno)),
        }
    }

    fn shown(&self, name: &[u8]) -> PathBuf {
        self.path.join(std::ffi::OsStr::from_bytes(name))
    }

    fn failed<E: Into<io::Error>>(
        &self,
        operation: &'static str,
        name: &[u8],
    ) -> impl FnOnce(E) -> ImportError + use<E, W> {
        let path = self.shown(name);
        move |error| io_error(operation, &path)(error)
    }

    fn refused(&self, name: &[u8], reason: &str) -> ImportError {
        ImportError::Refused {
            what: self.shown(name).display().to_string(),
            reason: reason.to_owned(),
        }
    }
}

fn attributes(fd: BorrowedFd<'_>) -> Result<Attributes, rustix::io::Errno> {
    let mut names = vec![0; MAX_ATTRIBUTE];
    let length = match flistxattr(fd, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0) {
        if name.starts_with(ATTRIBUTES) {
            let mut value = vec![0; MAX_ATTRIBUTE];
            let length = fgetxattr(fd, name, &mut value[..])?;
            value.truncate(length);
            found.push((name.to_vec(), value));
        }
    }
    found.sort();
    Ok(found)
}
