//! The api side of what the warden tells of images, which the api process can't read itself: at the creation of a runtime,
//! and in lists.

use crate::image::applied::MAX_CONFIG;
use crate::image::content::ImageConfig;
use crate::image::digest::Digest;
use crate::image::listed::Listed;
use crate::resources::MIB;
use crate::warden::client::{Warden, WardenError, unexpected};
use crate::warden::memfd;
use crate::warden::protocol::{Reply, Request, RuntimeSpec};
use serde::de::DeserializeOwned;
use std::io;
use std::os::fd::OwnedFd;
use uuid::Uuid;

/// The largest page of a list in bytes.
pub const MAX_PAGE: u64 = 16 * MIB;

/// What a runtime of an imported image begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeImage {
    /// The image's content.
    pub id: Digest,
    /// What of its configuration holds in the runtime.
    pub config: ImageConfig,
}

impl Warden {
    /// Makes a runtime's disk, empty or as a copy of a checkpoint's, and proves that it can be mounted. Returns what its
    /// image is, where that is an imported one.
    pub async fn create_runtime(
        &self,
        spec: RuntimeSpec,
        checkpoint: Option<Uuid>,
    ) -> Result<Option<RuntimeImage>, WardenError> {
        let message = |seq| Request::CreateRuntime {
            seq,
            spec,
            checkpoint,
        };
        match self.ask_for_more(message).await? {
            (Reply::Created { image_id, .. }, fds) => of_runtime(image_id, fds),
            _ => Err(unexpected()),
        }
    }

    /// All images, in the order of their names.
    pub async fn list_images(&self) -> Result<Vec<Listed>, WardenError> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let message = |seq| Request::ListImages { seq, after };
            match self.ask_for_more(message).await? {
                (Reply::Images { next, .. }, fds) => {
                    all.extend(page(fds)?);
                    if next.is_none() {
                        return Ok(all);
                    }
                    after = next;
                }
                _ => return Err(unexpected()),
            }
        }
    }
}

/// Reads what came with the reply to a creation.
fn of_runtime(id: Option<Digest>, fds: Vec<OwnedFd>) -> Result<Option<RuntimeImage>, WardenError> {
    id.map(|id| {
        let config = json(fds, MAX_CONFIG)?;
        Ok(RuntimeImage { id, config })
    })
    .transpose()
}

/// Reads a page of a list.
fn page(fds: Vec<OwnedFd>) -> Result<Vec<Listed>, WardenError> {
    json(fds, MAX_PAGE)
}

fn json<T: DeserializeOwned>(fds: Vec<OwnedFd>, most: u64) -> Result<T, WardenError> {
    // None came where this process may open no more.
    let memfd = fds.into_iter().next().ok_or_else(unexpected)?;
    let read = memfd::read(memfd, most);
    read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from))
        .map_err(|source| WardenError::Io {
            operation: "read what the warden tells of an image",
            source,
        })
}
