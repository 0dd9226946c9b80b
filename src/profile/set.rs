//! The profiles there are: those built into the program, and those of a directory, which come on
//! top.

use super::error::InFile;
use super::file::RawProfile;
use super::seccomp::SeccompPolicy;
use super::{Profile, ProfileError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files built into the program, by their path under the profile directory.
const EMBEDDED_PROFILES: [(&str, &str); 2] = [
    (
        "default",
        include_str!("../../sandbox-profiles/default.toml"),
    ),
    ("strict", include_str!("../../sandbox-profiles/strict.toml")),
];
const EMBEDDED_POLICIES: [(&str, &str); 1] = [(
    "default.json",
    include_str!("../../sandbox-profiles/seccomp/default.json"),
)];

/// All profiles, by name.
#[derive(Debug, Clone)]
pub struct ProfileSet {
    profiles: BTreeMap<String, Profile>,
}

/// A file's text and what to call it in messages.
struct Source {
    shown: String,
    text: String,
}

impl ProfileSet {
    /// The embedded profiles, and over them those of `dir`: each `NAME.toml` in it, and the
    /// policies in its directory `seccomp`. A file there replaces the embedded one of the same
    /// name, a policy also for embedded profiles. Other files are left alone. One bad file fails
    /// the whole set, since a profile that is silently missing, or silently the embedded one, is
    /// worse.
    pub fn load(dir: Option<&Path>) -> Result<Self, ProfileError> {
        let mut sources: BTreeMap<String, Source> = EMBEDDED_PROFILES
            .iter()
            .map(|(name, text)| (name.to_string(), embedded(&format!("{name}.toml"), text)))
            .collect();
        if let Some(dir) = dir {
            for path in toml_files(dir)? {
                sources.insert(profile_name(&path)?, read(&path)?);
            }
        }
        let mut policies: BTreeMap<String, Arc<SeccompPolicy>> = BTreeMap::new();
        let mut profiles = BTreeMap::new();
        for (name, source) in sources {
            let raw = RawProfile::parse(&source.shown, &source.text)?;
            let wanted = raw.seccomp_file(&source.shown)?;
            let policy = match policies.get(wanted) {
                Some(policy) => policy.clone(),
                None => {
                    let found = find_policy(dir, &source.shown, wanted)?;
                    let policy = Arc::new(SeccompPolicy::parse(&found.shown, &found.text)?);
                    policies.insert(wanted.to_owned(), policy.clone());
                    policy
                }
            };
            profiles.insert(name.clone(), raw.check(&source.shown, &name, policy)?);
        }
        Ok(Self { profiles })
    }

    /// The profile of that name.
    pub fn get(&self, name: &str) -> Option<&Profile> {
        self.profiles.get(name)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.profiles.keys().map(String::as_str)
    }

    /// All profiles, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.profiles.values()
    }
}

fn embedded(path: &str, text: &str) -> Source {
    Source {
        shown: format!("embedded {path}"),
        text: text.to_owned(),
    }
}

fn read(path: &Path) -> Result<Source, ProfileError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Source {
            shown: path.display().to_string(),
            text,
        }),
        Err(source) => Err(ProfileError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The profile files of a directory. Hidden files are not: editors leave them behind.
fn toml_files(dir: &Path) -> Result<Vec<PathBuf>, ProfileError> {
    let unreadable = |source| ProfileError::Read {
        path: dir.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|ext| ext == "toml") && !hidden {
            files.push(path);
        }
    }
    Ok(files)
}

/// A profile's name from its file's name: what a request's field and a log line can carry.
fn profile_name(path: &Path) -> Result<String, ProfileError> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if stem.len() <= 63
        && stem.starts_with(plain)
        && stem.chars().all(|c| plain(c) || c == '-' || c == '_')
    {
        return Ok(stem.into_owned());
    }
    Err(InFile(&path.display().to_string()).field(
        "file name",
        format!("{stem:?} can't be a profile's name"),
        "rename it to 1 to 63 of a-z, 0-9, '-' and '_', the first a letter or digit",
    ))
}

fn find_policy(dir: Option<&Path>, profile: &str, wanted: &str) -> Result<Source, ProfileError> {
    if let Some(path) = dir.map(|dir| dir.join("seccomp").join(wanted)) {
        match read(&path) {
            Err(ProfileError::Read { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    match EMBEDDED_POLICIES.iter().find(|(name, _)| *name == wanted) {
        Some((name, text)) => Ok(embedded(&format!("seccomp/{name}"), text)),
        None => Err(InFile(profile).field(
            "seccomp",
            format!("there is no policy {wanted:?}"),
            "put it into the directory seccomp beside the profile, or use \"default.json\"",
        )),
    }
}
