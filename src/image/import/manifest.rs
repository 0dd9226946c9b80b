//! The documents between a name and the layers: an index of manifests, and a manifest. Both are untrusted: bounded, and of
//! the type that they come as. Layouts ([`super::oci`]) and registries ([`crate::image::pull`]) have the same.

use crate::image::digest::Digest;
use crate::image::import::Platform;
use crate::image::import::config::{MAX_JSON, MAX_LAYERS};
use crate::image::import::error::shown;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Types of an index.
const INDEX: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Types of a manifest.
const MANIFEST: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Types of an image's configuration.
const CONFIG: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

/// Types of a layer.
const LAYER: [&str; 5] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];

/// Words in the types of layers that may not be distributed with their image.
const FOREIGN: [&str; 2] = [".foreign.", ".nondistributable."];

/// Content, and what it is said to be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

/// What a name leads to.
#[derive(Debug)]
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

/// One image.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    /// The lowest first.
    pub(crate) layers: Vec<Descriptor>,
}

/// The types to ask a registry for, as an `Accept` header.
pub(crate) fn accept() -> String {
    [MANIFEST, INDEX].concat().join(", ")
}

/// All fields of either kind, so that a text which could pass for both is seen.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Entry>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

/// An entry of an index; one that is not understood is not offered.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Entry {
    Known(Descriptor),
    Other(serde::de::IgnoredAny),
}

impl Entry {
    /// What of an index is understood.
    pub(crate) fn known(entries: Vec<Entry>) -> Vec<Descriptor> {
        let known = entries.into_iter().filter_map(|entry| match entry {
            Entry::Known(descriptor) => Some(descriptor),
            Entry::Other(_) => None,
        });
        known.collect()
    }
}

/// Reads what came as `content_type`.
pub(crate) fn parse(content_type: &str, bytes: &[u8]) -> Result<Document, String> {
    let content_type = content_type.split(';').next().unwrap_or_default().trim();
    let content_type = content_type.to_ascii_lowercase();
    let is = |types: &[&str]| types.contains(&content_type.as_str());
    if !is(&INDEX) && !is(&MANIFEST) {
        return Err(format!(
            "what comes is of type \"{}\", which is no manifest of an image (version 1 of the format is not supported)",
            shown(&content_type)
        ));
    }
    let raw: Raw = serde_json::from_slice(bytes)
        .map_err(|error| format!("what comes is no manifest: {}", shown(&error.to_string())))?;
    // One text must not be an index for one reader and a manifest for another, with one digest.
    let types_differ = raw
        .media_type
        .as_ref()
        .is_some_and(|own| *own != content_type);
    if raw.schema_version != 2 || types_differ {
        return Err(format!(
            "what comes is not of the type {content_type} that it comes as"
        ));
    }
    match (raw.manifests, raw.config, raw.layers) {
        (Some(manifests), None, None) if is(&INDEX) => Ok(Document::Index(Entry::known(manifests))),
        (None, Some(config), Some(layers)) if is(&MANIFEST) => {
            let manifest = Manifest { config, layers };
            manifest.check()?;
            Ok(Document::Manifest(manifest))
        }
        _ => Err(format!(
            "what comes as {content_type} has other parts than that"
        )),
    }
}

impl Manifest {
    fn check(&self) -> Result<(), String> {
        if !CONFIG.contains(&self.config.media_type.as_str()) {
            return Err(format!(
                "this is no image of a root file system: its configuration is of type \"{}\"",
                shown(&self.config.media_type)
            ));
        }
        if self.config.size > MAX_JSON {
            return Err(format!("its configuration has more than {MAX_JSON} bytes"));
        }
        if self.layers.len() > MAX_LAYERS {
            let count = self.layers.len();
            return Err(format!(
                "it has {count} layers; at most {MAX_LAYERS} can be used"
            ));
        }
        for layer in &self.layers {
            if FOREIGN
                .iter()
                .any(|foreign| layer.media_type.contains(foreign))
            {
                return Err(format!(
                    "its layer {} is a foreign one (type \"{}\"): such layers are not part of the image and are fetched from \
                     elsewhere, which is not done here",
                    layer.digest,
                    shown(&layer.media_type)
                ));
            }
            if !LAYER.contains(&layer.media_type.as_str()) {
                return Err(format!(
                    "its layer {} is of type \"{}\", which can't be unpacked",
                    layer.digest,
                    shown(&layer.media_type)
                ));
            }
        }
        Ok(())
    }
}

/// The manifest of an index for this platform.
pub(crate) fn choose<'a>(
    index: &'a [Descriptor],
    wanted: &Platform,
) -> Result<&'a Descriptor, String> {
    let mut best: Option<(u8, &Descriptor)> = None;
    for entry in index {
        let fit = entry
            .platform
            .as_ref()
            .and_then(|offered| fit(wanted, offered));
        if let Some(fit) = fit.filter(|fit| best.is_none_or(|(other, _)| *fit > other)) {
            best = Some((fit, entry));
        }
    }
    let Some((_, chosen)) = best else {
        let offered = index.iter().filter_map(|entry| entry.platform.as_ref());
        // Attestations stand in an index as a platform of that name.
        let offered = offered.filter(|platform| platform.os != "unknown");
        let mut offered: Vec<String> = offered
            .map(|one| shown(&one.to_string()))
            .take(64)
            .collect();
        offered.dedup();
        return Err(format!(
            "there is none for {wanted}; there are: {}",
            if offered.is_empty() {
                "none".to_owned()
            } else {
                offered.join(", ")
            }
        ));
    };
    if !MANIFEST.contains(&chosen.media_type.as_str()) {
        return Err(format!(
            "its entry for {wanted} is of type \"{}\"",
            shown(&chosen.media_type)
        ));
    }
    Ok(chosen)
}

/// How well an image that says to be for `offered` fits; none: not at all. More is better.
///
/// Without a wish for a variant, one that says none is taken, or the one that every machine of the kind has.
fn fit(wanted: &Platform, offered: &Platform) -> Option<u8> {
    if (&wanted.os, &wanted.architecture) != (&offered.os, &offered.architecture) {
        return None;
    }
    let common = match offered.architecture.as_str() {
        "amd64" => "v1",
        "arm64" => "v8",
        "arm" => "v7",
        _ => "",
    };
    let offered = offered.variant.as_deref().unwrap_or_default();
    match wanted.variant.as_deref() {
        Some(wanted) if wanted == offered => Some(2),
        Some(wanted) => (wanted == common && offered.is_empty()).then_some(1),
        None if offered.is_empty() => Some(2),
        None => (offered == common).then_some(1),
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
