//! An image's configuration (image-spec, config.md; Docker's has the same fields): what the store keeps of it.

use crate::image::digest::Digest;
use crate::image::import::Platform;
use crate::image::import::error::{ImportError, shown};
use crate::image::progress::Progress;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Most bytes of a configuration, a manifest or an index: what registries take.
pub const MAX_JSON: u64 = 4 << 20;
/// Most layers of an image. The paths of an overlay's lower layers share one page of mount options.
pub const MAX_LAYERS: usize = 127;
/// What runtimes' own variables are held to: see [`crate::runtime`].
const MAX_VARIABLE_NAME: usize = 128;
const MAX_VARIABLE: usize = 8192;
const MAX_ENVIRONMENT: usize = 64 << 10;
/// How many variables that are left out are named; a configuration has room for a million.
const MAX_NAMED: usize = 16;

#[derive(Deserialize)]
struct Document {
    architecture: String,
    os: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    config: Option<Settings>,
    rootfs: RootFs,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    working_dir: Option<String>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

/// What a configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// Its digest: the image's id.
    pub id: Digest,
    /// The machine.
    pub platform: Platform,
    /// When it was made.
    pub created: Option<String>,
    /// Layers, the lowest first.
    pub diff_ids: Vec<Digest>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// As in [`crate::image::unpack::Unpacker::user`]; none where it says nothing.
    pub user: Option<String>,
    /// Absolute; none where it says nothing.
    pub working_dir: Option<String>,
}

/// Reads a configuration. What runtimes could not have of it is left out, and said.
pub fn parse(bytes: &[u8], progress: &dyn Progress) -> Result<Parsed, ImportError> {
    let malformed = |reason: String| ImportError::Malformed {
        what: "the image's configuration".to_owned(),
        reason,
    };
    if bytes.len() as u64 > MAX_JSON {
        return Err(malformed(format!("is larger than {MAX_JSON} bytes")));
    }
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| malformed(shown(&error.to_string())))?;
    let diff_ids = document.rootfs.diff_ids.unwrap_or_default();
    if diff_ids.is_empty() || diff_ids.len() > MAX_LAYERS {
        return Err(malformed(format!(
            "names {} layers; 1 to {MAX_LAYERS} can be used",
            diff_ids.len()
        )));
    }
    let settings = document.config.unwrap_or_default();
    Ok(Parsed {
        id: Digest::of(bytes),
        platform: Platform {
            os: document.os,
            architecture: document.architecture,
            variant: document.variant.filter(|variant| !variant.is_empty()),
        },
        created: document.created.filter(|time| is_time(time)),
        diff_ids,
        env: environment(settings.env.unwrap_or_default(), progress).map_err(malformed)?,
        user: settings.user.filter(|user| !user.is_empty()),
        working_dir: working_dir(settings.working_dir.unwrap_or_default()).map_err(malformed)?,
    })
}

fn is_time(text: &str) -> bool {
    text.parse::<jiff::Timestamp>().is_ok()
}

fn environment(
    variables: Vec<String>,
    progress: &dyn Progress,
) -> Result<BTreeMap<String, String>, String> {
    let mut kept = BTreeMap::new();
    let mut left_out: usize = 0;
    for variable in variables {
        let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
        if is_variable(name) && value.len() <= MAX_VARIABLE && !value.contains(['\0', '\r', '\n']) {
            kept.insert(name.to_owned(), value.to_owned());
        } else {
            left_out += 1;
            if left_out <= MAX_NAMED {
                progress.note(&format!(
                    "environment variable {} of the image is left out: runtimes can't have it",
                    shown(name)
                ));
            }
        }
    }
    if left_out > MAX_NAMED {
        let more = left_out - MAX_NAMED;
        progress.note(&format!(
            "{more} more of its environment variables are left out"
        ));
    }
    let all: usize = kept
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    match all > MAX_ENVIRONMENT {
        true => Err(format!(
            "its environment holds {all} bytes, but {MAX_ENVIRONMENT} is the most"
        )),
        false => Ok(kept),
    }
}

fn is_variable(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.len() <= MAX_VARIABLE_NAME
        && name.bytes().next().is_some_and(letter)
        && name
            .bytes()
            .all(|byte| letter(byte) || byte.is_ascii_digit())
}

/// A relative one counts from the root, as Docker has it.
fn working_dir(text: String) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > 4095 || text.contains('\0') {
        return Err("its working directory is no path".to_owned());
    }
    Ok(Some(match text.starts_with('/') {
        true => text,
        false => format!("/{text}"),
    }))
}

/// The configuration of an image that came without one: this layer, for this machine, and nothing else. The same layer gives
/// the same bytes, and so the same id.
pub fn made_up(diff_id: Digest, platform: &Platform) -> Vec<u8> {
    let mut document = serde_json::json!({
        "architecture": platform.architecture,
        "config": {},
        "os": platform.os,
        "rootfs": { "diff_ids": [diff_id], "type": "layers" },
    });
    if let Some(variant) = &platform.variant {
        document["variant"] = variant.as_str().into();
    }
    serde_json::to_vec(&document).expect("plain values")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::progress::{Silent, Step};
    use std::cell::RefCell;

    #[derive(Default)]
    struct Notes(RefCell<Vec<String>>);

    impl Progress for Notes {
        fn begin(&self, _: &str, _: Option<u64>) -> Box<dyn Step + '_> {
            Box::new(Silent)
        }

        fn note(&self, text: &str) {
            self.0.borrow_mut().push(text.to_owned());
        }
    }

    #[test]
    fn a_flood_of_wrong_variables_is_no_flood_of_notes() {
        let notes = Notes::default();
        let mut all: Vec<String> = (0..10_000).map(|n| format!("\u{1b}[2J{n}=x")).collect();
        all.push("GOOD=1".to_owned());
        assert_eq!(environment(all, &notes).unwrap()["GOOD"], "1");
        let notes = notes.0.into_inner();
        assert_eq!(notes.len(), MAX_NAMED + 1);
        assert_eq!(
            notes[MAX_NAMED],
            "9984 more of its environment variables are left out"
        );
        assert!(
            notes.iter().all(|note| !note.contains('\u{1b}')),
            "{notes:?}"
        );
    }
}
