//! Names of images, and which directories may be one.

use crate::image::HOST;
use crate::image::error::{ImageError, io_error};
use std::path::Path;

/// Whether an image can have this name.
pub fn is_name(name: &str) -> bool {
    name == HOST || check_name(name).is_ok()
}

/// Whether an image can be given this name; it becomes part of a path.
pub(crate) fn check_name(name: &str) -> Result<(), ImageError> {
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

/// Whether a directory can be used as a root file system.
pub(crate) fn check_rootfs(path: &Path) -> Result<(), ImageError> {
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
