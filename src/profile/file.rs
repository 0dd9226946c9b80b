//! One profile file: from TOML as written to a [`Profile`] that can be used. Called by the set.

use super::error::InFile;
use super::limits::{RawRlimit, check_rlimits};
use super::seccomp::SeccompPolicy;
use super::{Identity, LandlockOptions, Limits, ProcOptions, Profile, ProfileError};
use crate::resources::{INIT_ID, RANGE};
use serde::Deserialize;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The file as written. What decides about security has no default, so that leaving it out is an
/// error; but for what came later, where the default is how it was before, so that older files
/// still load.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProfile {
    seccomp: String,
    umask: u32,
    masked_paths: Vec<PathBuf>,
    readonly_paths: Vec<PathBuf>,
    #[serde(default)]
    proc: ProcOptions,
    #[serde(default)]
    landlock: LandlockOptions,
    identity: RawIdentity,
    limits: Limits,
    rlimits: Vec<RawRlimit>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIdentity {
    uid: u32,
    gid: u32,
    user: String,
    home: String,
}

impl RawProfile {
    /// Reads the TOML; `file` is for messages.
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, ProfileError> {
        toml::from_str(text).map_err(|source| ProfileError::Toml {
            file: file.to_owned(),
            source: Box::new(source),
        })
    }

    /// The policy file that it names, a plain file name.
    pub(super) fn seccomp_file(&self, file: &str) -> Result<&str, ProfileError> {
        let mut parts = Path::new(&self.seccomp).components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(only)), None) if only == self.seccomp.as_str() => {
                Ok(&self.seccomp)
            }
            _ => Err(InFile(file).field(
                "seccomp",
                format!("{:?} is no plain file name", self.seccomp),
                "name a file in the directory seccomp, like \"default.json\"",
            )),
        }
    }

    /// Checks every field.
    pub(super) fn check(
        self,
        file: &str,
        name: &str,
        policy: Arc<SeccompPolicy>,
    ) -> Result<Profile, ProfileError> {
        let file = InFile(file);
        if self.umask > 0o777 {
            return Err(file.field(
                "umask",
                format!("{:#o} has bits that are no permissions", self.umask),
                "write a value from 0 to 0o777",
            ));
        }
        for (field, paths) in [
            ("masked_paths", &self.masked_paths),
            ("readonly_paths", &self.readonly_paths),
        ] {
            for (index, path) in paths.iter().enumerate() {
                check_proc_path(file, &format!("{field}[{index}]"), path)?;
            }
        }
        self.limits.check(file)?;
        Ok(Profile {
            name: name.to_owned(),
            identity: self.identity.check(file)?,
            limits: self.limits,
            rlimits: check_rlimits(file, self.rlimits)?,
            masked_paths: self.masked_paths,
            readonly_paths: self.readonly_paths,
            proc: self.proc,
            landlock: self.landlock,
            umask: self.umask,
            seccomp: self.seccomp,
            policy,
        })
    }
}

impl RawIdentity {
    fn check(self, file: InFile<'_>) -> Result<Identity, ProfileError> {
        for (field, id) in [("identity.uid", self.uid), ("identity.gid", self.gid)] {
            if id >= RANGE {
                return Err(file.field(
                    field,
                    format!("{id} is outside a runtime's range"),
                    format!("write a value below {RANGE}"),
                ));
            }
            if id == INIT_ID {
                return Err(file.field(
                    field,
                    format!("{id} is that of a cell's init, which a command must not reach"),
                    "write another value",
                ));
            }
        }
        if !is_user_name(&self.user) {
            return Err(file.field(
                "identity.user",
                format!("{:?} is no login name", self.user),
                "write up to 32 of a-z, 0-9, '_' and '-', the first no digit or '-'",
            ));
        }
        if !is_plain_absolute(Path::new(&self.home)) {
            return Err(file.field(
                "identity.home",
                format!("{:?} is no plain absolute path", self.home),
                "write a path like \"/home/user\", without ':', '.', '..' and control characters",
            ));
        }
        Ok(Identity {
            uid: self.uid,
            gid: self.gid,
            user: self.user,
            home: self.home,
        })
    }
}

/// What useradd(8) takes; anything else could break the lines of `/etc/passwd`.
fn is_user_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c == '_';
    name.len() <= 32
        && name.starts_with(letter)
        && name
            .chars()
            .all(|c| letter(c) || c.is_ascii_digit() || c == '-')
}

/// Absolute, with no component or character that means something else to a resolver or a passwd
/// file.
fn is_plain_absolute(path: &Path) -> bool {
    let Some(text) = path.to_str() else {
        return false;
    };
    let mut rest = text.split('/');
    rest.next() == Some("")
        && (text == "/" || rest.all(|part| !matches!(part, "" | "." | "..")))
        && !text.chars().any(|c| c.is_control() || c == ':')
}

/// Mounts are made over these paths. Under `/proc` no tenant can put a symlink in the way;
/// elsewhere one could, and nothing of the host is mounted there.
fn check_proc_path(file: InFile<'_>, field: &str, path: &Path) -> Result<(), ProfileError> {
    if is_plain_absolute(path) && path.starts_with("/proc") && path != Path::new("/proc") {
        return Ok(());
    }
    Err(file.field(
        field,
        format!("{:?} is no path under /proc", path),
        "write a path like \"/proc/keys\"; a cell has no /sys, so nothing there needs covering",
    ))
}
