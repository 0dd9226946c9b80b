//! Images as the warden uses them: what a runtime is mounted from, what of an image holds in it, and the list of all.

use crate::cell::identity::Ids;
use crate::cell::rootfs::Layers;
use crate::image::content::ImageConfig;
use crate::image::digest::Digest;
use crate::image::{self, ImageError, ImageStore, applied};
use crate::warden::memfd;
use crate::warden::protocol::{Failure, MAX_IMAGES, Reply};
use crate::warden::server::Warden;
use crate::warden::server::catalogue::Record;
use crate::warden::server::requests::invalid;
use std::error::Error;
use std::os::fd::OwnedFd;

/// What a new runtime's image is.
#[derive(Debug)]
pub(super) struct Chosen {
    /// What it is mounted from.
    pub layers: Layers,
    /// An imported image's id and what of its configuration holds.
    pub imported: Option<(Digest, ImageConfig)>,
}

impl Warden {
    /// What the image of a new runtime is. `restored` is that of the checkpoint that it is made of, and then counts whatever
    /// the name stands for by now.
    pub(super) fn choose(
        &self,
        name: &str,
        restored: Option<Option<Digest>>,
        profile: Ids,
    ) -> Result<Chosen, Failure> {
        let content = match restored {
            Some(Some(id)) => Some(self.images.content(&id)),
            Some(None) => None,
            None => self.images.content_of(name).transpose(),
        };
        let Some(content) = content else {
            let layers = in_place(&self.images, name).map_err(|error| unusable(name, error))?;
            return Ok(Chosen {
                layers,
                imported: None,
            });
        };
        let content = content.map_err(|error| unusable(name, error))?;
        let config = applied::applied(&content, profile).map_err(Failure::BadImage)?;
        let layers = self.images.layers_of(&content);
        Ok(Chosen {
            layers: layers.map_err(|error| unusable(name, error))?,
            imported: Some((content.id, config)),
        })
    }

    /// What a runtime that there is is mounted from.
    pub(super) fn layers(&self, record: &Record) -> Result<Layers, Failure> {
        let layers = match &record.image_id {
            Some(id) => {
                let content = self.images.content(id);
                content.and_then(|content| self.images.layers_of(&content))
            }
            None => in_place(&self.images, &record.spec.image),
        };
        layers.map_err(|error| unusable(&record.spec.image, error))
    }

    /// Answers with a page of the list of images.
    pub(super) fn list_images(&mut self, seq: u64, after: Option<&str>) -> Result<(), Failure> {
        if after.is_some_and(|name| !image::is_name(name)) {
            return Err(invalid("after"));
        }
        let mut names = self.images.list().map_err(|error| {
            tracing::error!(error = &error as &dyn Error, "can't list images");
            Failure::Internal
        })?;
        names.retain(|name| Some(name.as_str()) > after);
        let more = names.len() > MAX_IMAGES;
        names.truncate(MAX_IMAGES);
        let next = names.last().filter(|_| more).cloned();
        let listed = |name: String| match self.images.listed(&name) {
            Ok(listed) => Some(listed),
            // Removed since.
            Err(ImageError::Unknown(_)) => None,
            Err(error) => {
                tracing::warn!(name, error = &error as &dyn Error, "an image is not listed");
                None
            }
        };
        let page: Vec<_> = names.into_iter().filter_map(listed).collect();
        let page = sealed(c"images", &page)?;
        self.reply(&Reply::Images { seq, next }, vec![page]);
        Ok(())
    }
}

/// A sealed memfd with a value as JSON.
pub(super) fn sealed(
    name: &std::ffi::CStr,
    value: &impl serde::Serialize,
) -> Result<OwnedFd, Failure> {
    let json = serde_json::to_vec(value).map_err(|_| Failure::Internal)?;
    memfd::seal(name, &json).map_err(|_| Failure::NoRoom("descriptors".to_owned()))
}

/// Only what is no imported image: a runtime without a content was not made of one, whatever has its name now.
fn in_place(images: &ImageStore, name: &str) -> Result<Layers, ImageError> {
    match images.content_of(name)? {
        None => images.layers(name),
        Some(_) => Err(ImageError::Unknown(name.to_owned())),
    }
}

fn unusable(name: &str, error: ImageError) -> Failure {
    match error {
        ImageError::Unknown(_) | ImageError::Name(_) => Failure::UnknownImage,
        other => {
            tracing::error!(
                image = name,
                error = &other as &dyn Error,
                "image can't be used"
            );
            Failure::BadImage(match other {
                ImageError::Missing(_) => "it is not in the store any more".to_owned(),
                _ => "it can't be used as a root file system".to_owned(),
            })
        }
    }
}
