//! Reading and writing cgroup files with the path in every error. Used by everything in this
//! module.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::CgroupError;

/// Text of `dir/name`.
pub(super) fn read(dir: &Path, name: &str) -> Result<String, CgroupError> {
    let path = dir.join(name);
    read_path(&path).map_err(CgroupError::io("read", &path))
}

/// Text of `dir/name`, or none where the kernel has no such file.
pub(super) fn read_if_there(dir: &Path, name: &str) -> Result<Option<String>, CgroupError> {
    let path = dir.join(name);
    match read_path(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CgroupError::io("read", &path)(error)),
    }
}

// A file would be asked for its size first, which says nothing about one that the kernel makes up on
// read; a part of it is not.
fn read_path(path: &Path) -> io::Result<String> {
    let mut text = String::with_capacity(512);
    File::open(path)?.take(u64::MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Writes `value` with one write(2), as cgroup files want it, without creating the file.
pub(super) fn write(dir: &Path, name: &str, value: &str) -> Result<(), CgroupError> {
    let path = dir.join(name);
    write_path(&path, value).map_err(CgroupError::io("write", &path))
}

/// As [`write`], and whether the kernel has such a file.
pub(super) fn write_if_there(dir: &Path, name: &str, value: &str) -> Result<bool, CgroupError> {
    let path = dir.join(name);
    match write_path(&path, value) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(CgroupError::io("write", &path)(error)),
    }
}

fn write_path(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

/// A single number in `dir/name`.
pub(super) fn read_number(dir: &Path, name: &str) -> Result<u64, CgroupError> {
    let text = read(dir, name)?;
    text.trim().parse().map_err(|_| CgroupError::Format {
        path: dir.join(name),
        found: text,
    })
}

/// As [`read_number`], or none where the kernel has no such file.
pub(super) fn read_number_if_there(dir: &Path, name: &str) -> Result<Option<u64>, CgroupError> {
    match read_if_there(dir, name)? {
        None => Ok(None),
        Some(text) => match text.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(CgroupError::Format {
                path: dir.join(name),
                found: text,
            }),
        },
    }
}

/// The value of `key` in a file of `key value` lines.
pub(super) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        if name == key {
            value.trim().parse().ok()
        } else {
            None
        }
    })
}

/// The processes in a group. Those outside the reader's pid namespace read as 0 (cgroups(7)); they
/// are left out.
pub(super) fn processes(dir: &Path) -> Result<Vec<i32>, CgroupError> {
    // A group that is gone holds nothing. ENODEV: it went away between open and read.
    match read_if_there(dir, "cgroup.procs") {
        Ok(None) => Ok(Vec::new()),
        Ok(Some(text)) => Ok(text
            .lines()
            .filter_map(|line| line.parse().ok())
            .filter(|pid| *pid > 0)
            .collect()),
        Err(CgroupError::Io { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Opens the file through which a thread, and so a process that has one only, puts itself into a version 1 group. Only
/// O_WRONLY: the kernel checks the opener's rights, not the writer's (since 5.16), so that a child without rights of its own
/// can use it.
pub(super) fn open_tasks(dir: &Path) -> Result<OwnedFd, CgroupError> {
    let path = dir.join("tasks");
    // The standard library opens with O_CLOEXEC.
    let file = OpenOptions::new().write(true).open(&path);
    file.map(OwnedFd::from)
        .map_err(CgroupError::io("open", &path))
}

/// Opens a group's directory.
pub(super) fn open_directory(dir: &Path) -> Result<OwnedFd, CgroupError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(dir);
    file.map(OwnedFd::from)
        .map_err(CgroupError::io("open", dir))
}

/// Makes one group.
pub(super) fn make(dir: &Path) -> Result<(), CgroupError> {
    fs::create_dir(dir).map_err(CgroupError::io("create", dir))
}

/// Makes one group unless it is there; whether it was made.
pub(super) fn make_if_missing(dir: &Path) -> Result<bool, CgroupError> {
    match fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(CgroupError::io("create", dir)(error)),
    }
}

/// Removes one group; false while it holds a process or a group.
pub(super) fn remove(dir: &Path) -> Result<bool, CgroupError> {
    match fs::remove_dir(dir) {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(true),
            Some(libc::EBUSY | libc::ENOTEMPTY) => Ok(false),
            _ => Err(CgroupError::io("remove", dir)(error)),
        },
    }
}

/// The groups directly below `dir`; none where `dir` is gone.
pub(super) fn children(dir: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CgroupError::io("list", dir)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(CgroupError::io("list", dir))?;
        // The type is in the directory entry itself: no stat(2) for the dozens of files.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}
