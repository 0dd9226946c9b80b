//! What an imported image is: its layers, and what it says of the commands that are run in it.

use super::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The user that an image's commands run as, looked up in the image's own `/etc/passwd` and `/etc/group` when it was
/// imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageUser {
    /// Uid inside.
    pub uid: u32,
    /// Gid inside.
    pub gid: u32,
    /// USER: the name in `/etc/passwd`, else the uid's digits.
    pub name: String,
    /// HOME: an absolute path; `/` where `/etc/passwd` knows no such uid.
    pub home: String,
}

/// What an image gives the runtimes that are made of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// Environment variables, beneath the runtime's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Who commands are; none where the image does not say, and then the profile does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<ImageUser>,
    /// Absolute path where commands begin; none where the image does not say: then their home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
}

/// An imported image's content: never changed, named by its id, the digest of its OCI configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Digest of the image configuration's bytes.
    pub id: Digest,
    /// The machine it is for, as the OCI calls it: `amd64`, `arm64`.
    pub architecture: String,
    /// When it was made (RFC 3339), where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Diff ids of its layers, the lowest first. A layer may stand there twice.
    pub layers: Vec<Digest>,
    /// Bytes of all regular files in its layers.
    pub bytes: u64,
    /// See [`ImageConfig`].
    pub config: ImageConfig,
}
