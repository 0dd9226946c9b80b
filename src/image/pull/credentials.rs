//! Who we are for a registry: from the environment, or from a file as Docker, Podman and Skopeo write it.
//!
//! An explicit file wins over the environment, the environment over the files that are read by themselves. Credential
//! helpers are programs that others installed; they are not run with root's rights to find a password.

use super::auth_file::read;
use super::secret::Secret;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::io;
use std::path::{Path, PathBuf};

/// User name, with [`PASSWORD`].
pub const USERNAME: &str = "CELLBLOCK_REGISTRY_USERNAME";

/// Password or token, with [`USERNAME`].
pub const PASSWORD: &str = "CELLBLOCK_REGISTRY_PASSWORD";

/// Names the file in place of `~/.docker/config.json`.
const AUTH_FILE: &str = "REGISTRY_AUTH_FILE";

/// What a registry, or the token service that it names, is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// A user and their password.
    Password { username: String, password: Secret },
    /// A token that the token service gave at login, good for others.
    Identity(Secret),
}

/// Why it can't be told who we are.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// One variable without the other.
    #[error("{0} is set and {1} is not; set both or neither")]
    Half(&'static str, &'static str),
    /// A file can't be read.
    #[error("read credentials from {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A file is something else. The parser's words are not shown: they may quote a secret.
    #[error("{}: {reason}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file refers to a program.
    #[error(
        "{}: the credentials of {registry} are with the credential helper {helper:?}, which is not run; \
         name a file that has them with --auth-file, or set {USERNAME} and {PASSWORD}",
        .path.display()
    )]
    Helper {
        /// The file.
        path: PathBuf,
        /// Whose credentials.
        registry: String,
        /// The program's name in the file.
        helper: String,
    },
}

impl Credentials {
    /// What is known for a registry and repository; none: we are nobody in particular.
    pub(super) fn find(
        file: Option<&Path>,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credentials>, CredentialsError> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let Some(path) = file {
            return read(path)?.find(path, registry, repository);
        }
        match (variable(USERNAME), variable(PASSWORD)) {
            (Some(username), Some(password)) => {
                return Ok(Some(Credentials::Password {
                    username,
                    password: Secret::new(password),
                }));
            }
            (Some(_), None) => return Err(CredentialsError::Half(USERNAME, PASSWORD)),
            (None, Some(_)) => return Err(CredentialsError::Half(PASSWORD, USERNAME)),
            (None, None) => {}
        }
        if let Some(path) = variable(AUTH_FILE).map(PathBuf::from) {
            return read(&path)?.find(&path, registry, repository);
        }
        let Some(home) = variable("HOME") else {
            return Ok(None);
        };
        let path = Path::new(&home).join(".docker/config.json");
        match read(&path) {
            Err(CredentialsError::Read { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            read => read?.find(&path, registry, repository),
        }
    }

    /// The value of an `Authorization` header, for those that have one.
    pub(super) fn basic(&self) -> Option<Secret> {
        match self {
            Credentials::Password { username, password } => {
                let pair = format!("{username}:{}", password.reveal());
                Some(Secret::new(format!(
                    "Basic {}",
                    BASE64_STANDARD.encode(pair)
                )))
            }
            Credentials::Identity(_) => None,
        }
    }
}
