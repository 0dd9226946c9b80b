//! An image as it is listed for clients: what a runtime of it is made of and begins with, and nothing of where it lies.

use crate::image::applied::MAX_CONFIG;
use crate::image::catalogue::Record;
use crate::image::content::ImageConfig;
use crate::image::digest::Digest;
use crate::image::import::Platform;
use crate::image::{HOST, ImageError, ImageStore};
use serde::{Deserialize, Serialize};

/// Where an image comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The machine's own `/usr`.
    Host,
    /// A directory of the operator's, used in place.
    Directory,
    /// The store.
    Imported,
}

impl Kind {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Directory => "directory",
            Self::Imported => "imported",
        }
    }
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub kind: Kind,
    /// An imported one's content.
    pub id: Option<Digest>,
    /// The machine it is for, in the OCI's words; none where nobody knows.
    pub architecture: Option<String>,
    /// Bytes of all regular files in its layers.
    pub bytes: Option<u64>,
    /// Diff ids of its layers, the lowest first.
    pub layers: Vec<Digest>,
    /// When it was made, where it says so.
    pub created: Option<String>,
    /// What it says of the commands that are run in it.
    pub config: Option<ImageConfig>,
}

impl ImageStore {
    /// What there is to tell of an image.
    pub fn listed(&self, name: &str) -> Result<Listed, ImageError> {
        let mut listed = Listed {
            name: name.to_owned(),
            kind: Kind::Directory,
            id: None,
            architecture: None,
            bytes: None,
            layers: Vec::new(),
            created: None,
            config: None,
        };
        if name == HOST {
            listed.kind = Kind::Host;
            listed.architecture = Some(Platform::here().architecture);
            return Ok(listed);
        }
        if let Record::Image(id) = self.record(name)? {
            let content = self.content(&id)?;
            listed.kind = Kind::Imported;
            listed.id = Some(content.id);
            listed.architecture = Some(content.architecture);
            listed.bytes = Some(content.bytes);
            listed.layers = content.layers;
            listed.created = content.created;
            // A runtime can't be made with a larger one, nor is it fit for a list.
            let size =
                serde_json::to_vec(&content.config).map_or(u64::MAX, |json| json.len() as u64);
            listed.config = (size <= MAX_CONFIG).then_some(content.config);
        }
        Ok(listed)
    }
}
