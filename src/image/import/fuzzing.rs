//! See [`crate::fuzzing`]. Nothing is put into a store, and no process is started.

use super::archive::{self, Looked};
use super::blobs::Blobs;
use super::config::{self, MAX_LAYERS};
use super::manifest::{self, Document};
use super::{LayerBlob, Platform, Request, docker, oci};
use crate::fuzzing::{file, with_checksums};
use crate::image::ImageStore;
use crate::image::progress::Silent;
use crate::image::unpack::{Bounds, Unpacker};
use std::path::Path;

/// An archive of images; and the same bytes as each of the documents in one.
pub fn import(data: &[u8]) {
    documents(data);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(platform) = text.parse::<Platform>()
    {
        assert_eq!(platform.to_string(), text);
        assert!(platform.accepts(&platform));
    }
    let data = with_checksums(data);
    let store = ImageStore::new(Path::new("/nonexistent"));
    let unpacker = Unpacker::new(0);
    let request = Request {
        store: &store,
        name: "fuzzing",
        platform: None,
        bounds: Bounds::default(),
        unpacker: &unpacker,
        progress: &Silent,
    };
    for reader in [docker::read, oci::read] {
        for reference in [None, Some("a:1")] {
            let archive = file(&data);
            let path = Path::new("fuzzing.tar");
            let Ok(Looked::Files(index)) = archive::look(&archive, path) else {
                return;
            };
            let mut blobs = Blobs::of_archive(path, archive, index);
            let Ok((document, layers)) = reader(&mut blobs, reference, &request) else {
                continue;
            };
            documents(&document);
            for layer in layers {
                if let LayerBlob::File { offset, length, .. } = layer {
                    let end = offset.checked_add(length);
                    assert!(end.is_some_and(|end| end <= data.len() as u64));
                }
            }
        }
    }
}

fn documents(data: &[u8]) {
    if let Ok(parsed) = config::parse(data, &Silent) {
        assert!((1..=MAX_LAYERS).contains(&parsed.diff_ids.len()));
        for (name, value) in &parsed.env {
            assert!(!name.is_empty() && !name.contains(['=', '\0']));
            assert!(!value.contains(['\0', '\n', '\r']));
        }
        let absolute = |dir: &String| dir.starts_with('/') && !dir.contains('\0');
        assert!(parsed.working_dir.as_ref().is_none_or(absolute));
    }
    for content_type in manifest::accept().split(", ") {
        match manifest::parse(content_type, data) {
            Ok(Document::Manifest(manifest)) => assert!(manifest.layers.len() <= MAX_LAYERS),
            Ok(Document::Index(index)) => {
                if let Ok(chosen) = manifest::choose(&index, &Platform::here()) {
                    assert!(index.contains(chosen));
                }
            }
            Err(reason) => assert!(!reason.contains(char::is_control), "{reason:?}"),
        }
    }
}
