//! The embedded image `host`: the machine's own `/usr`, read-only, above a skeleton with a made-up `/etc`. Every
//! interpreter of the machine works in it, with no download; nothing of `/home`, `/root`, `/opt` or `/var` is in it.

use crate::cell::rootfs::Bind;
use crate::image::skeleton::Builder;
use crate::image::{ImageError, io_error};
use std::path::Path;

/// Directories of the root that a merged-/usr system has as links into it.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What is copied from the machine's `/etc`: settings of programs in `/usr` that do not run without them, nothing that
/// tells who or what the machine is.
const COPIED: [&str; 12] = [
    "alternatives",
    "ca-certificates.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "perl",
    "protocols",
    "services",
    "ssl/certs",
];

/// Beginnings of further names, for interpreters that keep a version in theirs.
const COPIED_PREFIXES: [&str; 5] = ["java-", "python", "php", "R", "ruby"];

/// What is bound on top of the skeleton.
pub fn binds() -> Vec<Bind> {
    vec![Bind {
        source: "/usr".into(),
        target: "usr",
    }]
}

/// Whether this machine's layout can be shown; else why not.
pub fn check() -> Result<(), String> {
    for name in MERGED {
        let path = Path::new("/").join(name);
        match std::fs::symlink_metadata(&path) {
            Ok(status) if !status.is_symlink() => {
                return Err(format!(
                    "{} is not a link into /usr; merge it (package usrmerge) or use another image",
                    path.display()
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Builds the skeleton at `target`.
pub(super) fn build(target: &Path) -> Result<(), ImageError> {
    check().map_err(|reason| ImageError::NotARootfs {
        path: "/".into(),
        reason,
    })?;
    let builder = Builder::new(target)?;
    for name in [
        "usr",
        "etc",
        "etc/ssl",
        "opt",
        "mnt",
        "srv",
        "var",
        "var/lib",
        "var/cache",
    ] {
        builder.dir(name, 0o755, 0)?;
    }
    for name in MERGED {
        let path = Path::new("/").join(name);
        if let Ok(to) = std::fs::read_link(&path) {
            builder.link(name, &to)?;
        }
    }
    builder.file("etc/passwd", PASSWD)?;
    builder.file("etc/group", GROUP)?;
    builder.file(
        "etc/hosts",
        "127.0.0.1 localhost\n::1 localhost ip6-localhost\n",
    )?;
    builder.file(
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\n",
    )?;
    builder.file(
        "etc/profile",
        "# PATH and the rest of the environment come from the exec.\n",
    )?;
    for name in COPIED {
        builder.copy(&Path::new("/etc").join(name), &format!("etc/{name}"))?;
    }
    let etc = Path::new("/etc");
    for entry in std::fs::read_dir(etc).map_err(io_error("list", etc))? {
        let entry = entry.map_err(io_error("list", etc))?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|n| !COPIED.contains(n)) else {
            continue;
        };
        if COPIED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            builder.copy(&entry.path(), &format!("etc/{name}"))?;
        }
    }
    builder.finish()
}

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
user:x:1000:1000:user:/home/user:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";

const GROUP: &str = "\
root:x:0:
tty:x:5:
user:x:1000:
nogroup:x:65534:
";
