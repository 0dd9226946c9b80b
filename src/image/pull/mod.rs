//! Pulling an image out of a registry (OCI distribution specification, and Docker's older names of the same things).
//!
//! ```text
//! reference    HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]
//! credentials  the environment or a file (auth_file) → who we are
//! origin       where a request goes, and where a redirect may lead
//! client       one request, with a few tries → answer
//! registry     GET in a repository: challenge, token, redirects
//! token        the token service
//! blob         a blob → file, verified
//! fault        all that can go wrong with a registry, with its own words (said)
//! ```
//!
//! Nothing that a registry says is believed: documents are bounded and of the type that they come as, what a digest names
//! has that digest and the promised size, and nobody but the registry and its token service sees credentials. The layers'
//! bytes are only kept; [`crate::image::import::finish`] makes an image of them, as of those from a file.

mod auth_file;
mod blob;
mod challenge;
mod client;
mod credentials;
mod fault;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod origin;
mod reference;
mod registry;
mod said;
mod secret;
mod token;

pub use credentials::{CredentialsError, PASSWORD, USERNAME};
pub use fault::Fault;
pub use origin::NoWay;
pub use reference::{NotAReference, Reference, Version};
pub use said::Said;

use crate::image::digest::Digest;
use crate::image::import::manifest::{self, Document, Manifest};
use crate::image::import::{
    ImportError, Imported, LayerBlob, Platform, Request, Staging, config, finish,
};
use crate::image::names::check_name;
use crate::image::progress::Silent;
use credentials::Credentials;
use registry::Registry;
use std::path::Path;
use std::time::Duration;

/// How long a registry may be silent where nobody says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How a registry is talked to.
#[derive(Debug, Clone, Copy)]
pub struct Manners<'a> {
    /// A file of credentials, in place of all other ways to find some.
    pub auth_file: Option<&'a Path>,
    /// Plain http with a registry that is not this machine.
    pub plain_http: bool,
    /// The longest silence.
    pub patience: Duration,
}

/// Why an image is not pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Who we are can't be told.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The registry, or the way to it.
    #[error("{place}")]
    Registry {
        /// Registry, repository, and which thing in it.
        place: String,
        /// What is wrong.
        #[source]
        fault: Fault,
    },
    /// The image is not taken, or can't be kept.
    #[error(transparent)]
    Import(#[from] ImportError),
}

/// Fetches an image and puts it into the store.
pub fn pull(
    reference: &Reference,
    manners: &Manners<'_>,
    request: &Request<'_>,
) -> Result<Imported, PullError> {
    check_name(request.name).map_err(ImportError::from)?;
    let (registry, repository) = (&reference.registry, &reference.repository);
    let credentials = Credentials::find(manners.auth_file, registry, repository)?;
    let client = client::Client::new(manners.patience);
    let place = |fault| failed(reference, "", fault);
    let registry = Registry::open(client, reference, credentials, manners.plain_http);
    let mut pull = Pull {
        reference,
        request,
        registry: registry.map_err(place)?,
    };
    let manifest = pull.manifest()?;
    let config = pull.config(&manifest)?;
    let parsed = config::parse(&config, &Silent)?;
    let wanted = request.platform.cloned().unwrap_or_else(Platform::here);
    wanted.check(&parsed.platform)?;
    let (ids, layers) = (parsed.diff_ids.len(), manifest.layers.len());
    if ids != layers {
        let text = format!("its manifest names {layers} layers, its configuration {ids}");
        return Err(place(Fault::Document(text)));
    }
    let store = request.store;
    let known = store.named_as(request.name, &parsed.id);
    if known.map_err(ImportError::from)?
        && let Some(content) = store.content_of(request.name).map_err(ImportError::from)?
    {
        return Ok(Imported {
            content,
            new: false,
        });
    }
    let staging = Staging::new(store).map_err(ImportError::from)?;
    let blobs = pull.layers(&staging, &manifest, &parsed.diff_ids)?;
    Ok(finish(staging, &config, &blobs, request)?)
}

/// A pull under way.
struct Pull<'a> {
    reference: &'a Reference,
    request: &'a Request<'a>,
    registry: Registry,
}

impl Pull<'_> {
    /// From the reference to the manifest for the platform.
    fn manifest(&mut self) -> Result<Manifest, PullError> {
        let reference = self.reference;
        let wanted = match reference.version {
            Version::Digest(digest) => Some(digest),
            Version::Tag(_) => None,
        };
        let index = match self.document(&reference.version.to_string(), wanted, None)? {
            Document::Manifest(manifest) => return Ok(manifest),
            Document::Index(index) => index,
        };
        let platform = self
            .request
            .platform
            .cloned()
            .unwrap_or_else(Platform::here);
        let what = format!("index {}", reference.version);
        let document = |text| failed(reference, &what, Fault::Document(text));
        let chosen = manifest::choose(&index, &platform).map_err(document)?;
        let (digest, size) = (chosen.digest, chosen.size);
        match self.document(&digest.to_string(), Some(digest), Some(size))? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => {
                let text = "the index leads to another index".to_owned();
                Err(failed(reference, &what, Fault::Document(text)))
            }
        }
    }

    fn document(
        &mut self,
        version: &str,
        digest: Option<Digest>,
        size: Option<u64>,
    ) -> Result<Document, PullError> {
        let fetched = self.fetch_document(version, digest, size);
        fetched.map_err(|fault| failed(self.reference, &format!("manifest {version}"), fault))
    }

    fn fetch_document(
        &mut self,
        version: &str,
        digest: Option<Digest>,
        size: Option<u64>,
    ) -> Result<Document, Fault> {
        let accept = manifest::accept();
        let path = format!("manifests/{version}");
        let headers = [("accept", accept.as_str())];
        let answer = self.registry.get(&path, &headers, self.request.progress)?;
        let host = answer.from.to_string();
        let content_type = answer.header("content-type").unwrap_or_default().to_owned();
        // A registry says of a tag's manifest what digest it has.
        let announced = answer.header("docker-content-digest");
        let announced = announced.and_then(|text| text.parse().ok());
        let bytes = self.registry.client.document(answer, config::MAX_JSON)?;
        verify(&host, &bytes, digest.or(announced), size)?;
        manifest::parse(&content_type, &bytes).map_err(Fault::Document)
    }

    fn config(&mut self, manifest: &Manifest) -> Result<Vec<u8>, PullError> {
        let config = &manifest.config;
        let path = format!("blobs/{}", config.digest);
        let progress = self.request.progress;
        let registry = &mut self.registry;
        let fetched = registry.get(&path, &[], progress).and_then(|answer| {
            let host = answer.from.to_string();
            let bytes = registry.client.document(answer, config::MAX_JSON)?;
            verify(&host, &bytes, Some(config.digest), Some(config.size))?;
            Ok(bytes)
        });
        let what = format!("configuration {}", config.digest);
        fetched.map_err(|fault| failed(self.reference, &what, fault))
    }

    /// Fetches what the store lacks, each blob once.
    fn layers(
        &mut self,
        staging: &Staging,
        manifest: &Manifest,
        diff_ids: &[Digest],
    ) -> Result<Vec<LayerBlob>, PullError> {
        let (progress, most) = (self.request.progress, self.request.bounds.bytes);
        let all: u64 = manifest
            .layers
            .iter()
            .map(|layer| layer.size)
            .fold(0, u64::saturating_add);
        if all > most {
            let text =
                format!("its layers have {all} bytes as they are sent, but {most} is the most");
            return Err(failed(self.reference, "", Fault::Document(text)));
        }
        let count = manifest.layers.len();
        let mut blobs = Vec::new();
        for (index, (layer, diff_id)) in manifest.layers.iter().zip(diff_ids).enumerate() {
            if staging.claim(diff_id).map_err(ImportError::from)? {
                blobs.push(LayerBlob::Claimed);
                continue;
            }
            let path = staging.blob_path(&layer.digest);
            if !path.exists() {
                let what = format!("fetch layer {} of {count}", index + 1);
                let fetched = blob::fetch(&mut self.registry, layer, &path, &what, progress);
                let what = format!("blob {}", layer.digest);
                fetched.map_err(|fault| failed(self.reference, &what, fault))?;
            }
            blobs.push(LayerBlob::File {
                path,
                offset: 0,
                length: layer.size,
            });
        }
        Ok(blobs)
    }
}

/// Whether bytes are what was promised.
fn verify(
    host: &str,
    bytes: &[u8],
    digest: Option<Digest>,
    size: Option<u64>,
) -> Result<(), Fault> {
    let (host, sent) = (host.to_owned(), bytes.len() as u64);
    if let Some(promised) = size.filter(|size| *size != sent) {
        let sent = sent.to_string();
        return Err(Fault::Size {
            host,
            promised,
            sent,
        });
    }
    let got = Digest::of(bytes);
    match digest {
        Some(digest) if digest != got => Err(Fault::Digest { host, got }),
        _ => Ok(()),
    }
}

fn failed(reference: &Reference, what: &str, fault: Fault) -> PullError {
    let between = if what.is_empty() { "" } else { ", " };
    let (registry, repository) = (&reference.registry, &reference.repository);
    PullError::Registry {
        place: format!("{registry}/{repository}{between}{what}"),
        fault,
    }
}
