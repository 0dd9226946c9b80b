//! Images.

use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a runtime's root file system is made of.
#[derive(ToSchema)]
pub struct Image {
    /// What `image` of a new runtime says.
    #[schema(
        min_length = 1,
        max_length = 63,
        pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]*$"
    )]
    name: String,
    kind: ImageKind,
    /// The digest of an imported image's configuration, which names its content; null for the others.
    #[schema(required, pattern = "^sha256:[0-9a-f]{64}$")]
    id: Option<String>,
    /// The machine that it is for, in the words of the OCI: `amd64`, `arm64`. Null where that is not known.
    #[schema(required)]
    architecture: Option<String>,
    /// Bytes of all files in its layers, which are kept once however many images and runtimes share them. Null where they are
    /// not the server's own.
    #[schema(required)]
    size_bytes: Option<u64>,
    /// The digests of its unpacked layers, the lowest first; empty where it is not made of such.
    layers: Vec<String>,
    /// When it was made, where it says so.
    #[schema(required, format = "date-time")]
    created_at: Option<String>,
    #[schema(required)]
    config: Option<ImageConfig>,
}

/// Where an image comes from: `host` is this machine's own `/usr`, a `directory` is used in place, both as they are at the
/// time; what was `imported` never changes.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum ImageKind {
    Host,
    Directory,
    Imported,
}

/// What an imported image gives the commands in its runtimes.
#[derive(ToSchema)]
struct ImageConfig {
    /// Environment variables, beneath those of the runtime and of the exec.
    env: BTreeMap<String, String>,
    #[schema(required)]
    user: Option<ImageUser>,
    /// Where commands begin that name no `cwd`; null is their home.
    #[schema(required)]
    working_dir: Option<String>,
}

/// Who commands are, instead of whom the profile says. Root counts only where the profile's commands are root as well.
#[derive(ToSchema)]
struct ImageUser {
    uid: u32,
    gid: u32,
    /// USER.
    name: String,
    /// HOME, where relative paths begin.
    home: String,
}
