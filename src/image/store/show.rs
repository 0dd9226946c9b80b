//! What is told of images: a line in a list, or all that is known.

use crate::image::HOST;
use crate::image::ImageStore;
use crate::image::catalogue::Record;
use crate::image::content::Content;
use crate::image::error::{ImageError, io_error};
use crate::image::store::{LayerRecord, Users};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::SystemTime;

/// What an image is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Made from the machine.
    Embedded,
    /// A directory, used in place.
    InPlace(PathBuf),
    /// In the store.
    Imported {
        /// What it is.
        content: Box<Content>,
        /// Its layers, each once, the lowest first.
        layers: Vec<LayerRecord>,
    },
}

/// An image as it is told of.
#[derive(Debug, Clone)]
pub struct Told {
    /// Its name.
    pub name: String,
    /// See [`Kind`].
    pub kind: Kind,
    /// When it got its name.
    pub since: Option<SystemTime>,
}

impl ImageStore {
    /// All images, in the order of their names.
    pub fn tell_all(&self) -> Result<Vec<Told>, ImageError> {
        // The lock would make the directory that somebody has mistyped.
        let lock = self.directory.exists().then(|| self.lock_shared());
        let _lock = lock.transpose()?;
        let names = self.list()?;
        names
            .into_iter()
            .map(|name| self.tell_locked(name))
            .collect()
    }

    /// One image, and how many are made of it.
    pub fn tell(&self, name: &str) -> Result<(Told, Users), ImageError> {
        let _lock = self.lock_shared()?;
        let told = self.tell_locked(name.to_owned())?;
        let mut references = self.references()?;
        let users = match &told.kind {
            Kind::Imported { content, .. } => references.users.remove(&content.id),
            Kind::InPlace(_) | Kind::Embedded => references.in_place.remove(name),
        };
        Ok((told, users.unwrap_or_default()))
    }

    fn tell_locked(&self, name: String) -> Result<Told, ImageError> {
        if name == HOST {
            return Ok(Told {
                name,
                kind: Kind::Embedded,
                since: None,
            });
        }
        let kind = match self.record(&name)? {
            Record::Rootfs(path) => Kind::InPlace(path),
            Record::Image(id) => {
                let content = Box::new(self.content(&id)?);
                let mut seen = BTreeSet::new();
                let once = content.layers.iter().filter(|layer| seen.insert(**layer));
                let layers = once
                    .map(|layer| self.layer(layer))
                    .collect::<Result<_, _>>()?;
                Kind::Imported { content, layers }
            }
        };
        let path = self.record_path(&name);
        let status = std::fs::metadata(&path).map_err(io_error("find", &path))?;
        Ok(Told {
            name,
            kind,
            since: status.modified().ok(),
        })
    }
}
