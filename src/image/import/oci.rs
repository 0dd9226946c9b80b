//! An OCI image layout (image-spec, image-layout.md): `index.json` leads by digests to manifests, those to configurations and
//! layers, all of it in `blobs/`.

use crate::image::import::blobs::{Blobs, check_size, place_of};
use crate::image::import::docker::{is_named, no_choice};
use crate::image::import::error::{ImportError, shown};
use crate::image::import::manifest::{self, Descriptor, Document, Entry, Manifest};
use crate::image::import::{LayerBlob, Platform, Request};
use serde::Deserialize;

/// Says that a directory or an archive is a layout.
pub const MARK: &str = "oci-layout";
/// Where reading begins.
pub const INDEX: &str = "index.json";

/// Where a descriptor in the index has its image's name: the second has only a tag in many layouts.
const NAMES: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];
/// An attestation about an image, which stands beside it.
const ATTESTATION: &str = "vnd.docker.reference.type";

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Entry>,
}

/// Configuration and layers of the image that `reference` names, or of the only one, for the machine that is asked for.
pub fn read(
    blobs: &mut Blobs,
    reference: Option<&str>,
    request: &Request<'_>,
) -> Result<(Vec<u8>, Vec<LayerBlob>), ImportError> {
    let index: Index =
        serde_json::from_slice(&blobs.json(INDEX)?).map_err(|error| ImportError::Malformed {
            what: INDEX.to_owned(),
            reason: format!("is no index of images: {}", shown(&error.to_string())),
        })?;
    let wanted = request.platform.cloned().unwrap_or_else(Platform::here);
    let entries = index.manifests.len();
    let known = Entry::known(index.manifests);
    if known.is_empty() && entries > 0 {
        let reason = "names nothing that is understood; digests must be sha256 ones".to_owned();
        return Err(malformed(INDEX, reason));
    }
    let start = choose(&known, reference, &wanted, blobs)?;
    let manifest = follow(blobs, start, &wanted)?;
    let config = blobs.document(&manifest.config.digest, manifest.config.size)?;
    let layers = manifest.layers.iter();
    let layers = layers.map(|layer| {
        let name = place_of(&layer.digest);
        let blob = blobs.layer(&name, Some(&layer.digest), request.progress)?;
        if let LayerBlob::File { length, .. } = blob {
            check_size(&name, layer.size, length)?;
        }
        Ok(blob)
    });
    Ok((config, layers.collect::<Result<_, ImportError>>()?))
}

fn choose<'a>(
    all: &'a [Descriptor],
    reference: Option<&str>,
    wanted: &Platform,
    blobs: &Blobs,
) -> Result<&'a Descriptor, ImportError> {
    let annotations = |one: &Descriptor| one.annotations.clone().unwrap_or_default();
    let images = all
        .iter()
        .filter(|one| !annotations(one).contains_key(ATTESTATION));
    let mut found: Vec<&Descriptor> = images
        .clone()
        .filter(|one| {
            reference.is_none_or(|wanted| names(one).iter().any(|name| is_named(name, wanted)))
        })
        .collect();
    let mut seen = std::collections::HashSet::new();
    found.retain(|one| seen.insert(one.digest));
    let one_name = |found: &[&Descriptor]| {
        let first = found.first().map(|one| annotations(one));
        found
            .iter()
            .all(|one| one.platform.is_some() && Some(annotations(one)) == first)
    };
    match found.as_slice() {
        [one] => Ok(one),
        // One image for several machines, without an index of its own.
        [_, _, ..] if one_name(&found) => {
            let machines: Vec<Descriptor> = found.iter().map(|one| (*one).clone()).collect();
            let chosen = manifest::choose(&machines, wanted)
                .map_err(|reason| malformed(INDEX, reason))?
                .digest;
            Ok(found
                .into_iter()
                .find(|one| one.digest == chosen)
                .expect("it is one of them"))
        }
        _ => Err(no_choice(
            blobs,
            reference,
            images.map(|one| names(one).remove(0)).collect(),
        )),
    }
}

fn names(one: &Descriptor) -> Vec<String> {
    let annotations = one.annotations.clone().unwrap_or_default();
    let mut names: Vec<String> = NAMES
        .iter()
        .filter_map(|key| annotations.get(*key).cloned())
        .collect();
    names.push(one.digest.to_string());
    names
}

/// To the manifest, through one index of machines at the most.
fn follow(blobs: &Blobs, start: &Descriptor, wanted: &Platform) -> Result<Manifest, ImportError> {
    let index = match document(blobs, start)? {
        Document::Manifest(manifest) => return Ok(manifest),
        Document::Index(index) => index,
    };
    let name = start.digest.to_string();
    let chosen = manifest::choose(&index, wanted).map_err(|reason| malformed(&name, reason))?;
    match document(blobs, chosen)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => Err(malformed(&name, "holds another index".to_owned())),
    }
}

fn document(blobs: &Blobs, descriptor: &Descriptor) -> Result<Document, ImportError> {
    let bytes = blobs.document(&descriptor.digest, descriptor.size)?;
    let parsed = manifest::parse(&descriptor.media_type, &bytes);
    parsed.map_err(|reason| malformed(&descriptor.digest.to_string(), reason))
}

fn malformed(what: &str, reason: String) -> ImportError {
    ImportError::Malformed {
        what: what.to_owned(),
        reason,
    }
}
