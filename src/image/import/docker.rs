//! What `docker save` writes, before and since it became an OCI layout as well: `manifest.json` lists images, each with the
//! names of its configuration and its layers (Docker image specification v1.2, "Combined Image JSON").

use crate::image::digest::Digest;
use crate::image::import::blobs::{Blobs, digest_in};
use crate::image::import::error::{ImportError, shown};
use crate::image::import::{LayerBlob, Request, config};
use serde::Deserialize;

/// The list of images.
pub const MANIFEST: &str = "manifest.json";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Configuration and layers of the image that `reference` names, or of the only one.
pub fn read(
    blobs: &mut Blobs,
    reference: Option<&str>,
    request: &Request<'_>,
) -> Result<(Vec<u8>, Vec<LayerBlob>), ImportError> {
    let images: Vec<Image> =
        serde_json::from_slice(&blobs.json(MANIFEST)?).map_err(|error| ImportError::Malformed {
            what: MANIFEST.to_owned(),
            reason: format!("is no list of images: {}", shown(&error.to_string())),
        })?;
    let image = choose(&images, reference, blobs)?;
    let config = blobs.json(&image.config)?;
    // It is named by its digest in every form there was.
    let said = image.config.strip_suffix(".json").map(Digest::from_hex);
    let said = said.and_then(Result::ok).or(digest_in(&image.config));
    let found = Digest::of(&config);
    if let Some(wanted) = said.filter(|said| *said != found) {
        return Err(ImportError::WrongDigest {
            what: shown(&image.config),
            wanted,
            found,
        });
    }
    let count = image.layers.len();
    if count > config::MAX_LAYERS {
        return Err(ImportError::Malformed {
            what: MANIFEST.to_owned(),
            reason: format!(
                "names {count} layers; at most {} can be used",
                config::MAX_LAYERS
            ),
        });
    }
    let layers = image.layers.iter();
    // Where the name is no digest of the layer's bytes, its diff id alone tells whether it is the right one.
    let layers = layers.map(|name| blobs.layer(name, digest_in(name).as_ref(), request.progress));
    Ok((config, layers.collect::<Result<_, _>>()?))
}

fn choose<'a>(
    images: &'a [Image],
    reference: Option<&str>,
    blobs: &Blobs,
) -> Result<&'a Image, ImportError> {
    let names = |image: &Image| {
        let mut names = image.repo_tags.clone().unwrap_or_default();
        names.push(image.config.clone());
        names
    };
    let fits = |image: &&Image| {
        reference.is_none_or(|wanted| names(image).iter().any(|name| is_named(name, wanted)))
    };
    let mut found: Vec<&Image> = images.iter().filter(fits).collect();
    found.dedup_by_key(|image| &image.config);
    match found.as_slice() {
        [image] => Ok(image),
        _ => Err(no_choice(
            blobs,
            reference,
            images.iter().map(|image| names(image).remove(0)).collect(),
        )),
    }
}

/// Whether an image of this name is meant by `wanted`: the name, or its end after a slash.
pub fn is_named(name: &str, wanted: &str) -> bool {
    let rest = name.strip_suffix(wanted);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/') || rest == "sha256:")
}

/// Says that `reference`, or its lack, leaves no choice or several.
pub fn no_choice(blobs: &Blobs, reference: Option<&str>, choices: Vec<String>) -> ImportError {
    ImportError::Choice {
        path: blobs.path().to_owned(),
        reason: match reference {
            Some(reference) => format!("{} is none of its images, or several", shown(reference)),
            None => format!("holds {} images", choices.len()),
        },
        choices: choices
            .iter()
            .take(64)
            .map(|choice| shown(choice))
            .collect(),
    }
}
