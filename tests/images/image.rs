//! A small image and how a good registry serves it.

use crate::registry::{Reply, Seen};
use crate::support::server;
use cellblock::image::digest::Digest;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image of one layer, which holds one file.
#[derive(Debug, Clone)]
pub struct Image {
    pub layer: Vec<u8>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Image {
    /// One for this machine with so many bytes in its file.
    pub fn new(size: usize) -> Image {
        Image::on(architecture(), size)
    }

    /// One for another kind of machine.
    pub fn on(architecture: &str, size: usize) -> Image {
        let layer = tar(size);
        let config = json!({
            "architecture": architecture, "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        Image {
            layer,
            config,
            manifest: manifest.to_string().into_bytes(),
        }
    }

    /// Path of the layer's blob in the repository that the tests use.
    pub fn layer_path(&self) -> String {
        format!("/v2/team/app/blobs/{}", Digest::of(&self.layer))
    }

    /// Path of the configuration's blob.
    pub fn config_path(&self) -> String {
        format!("/v2/team/app/blobs/{}", Digest::of(&self.config))
    }

    /// What a good registry answers.
    pub fn reply(&self, seen: &Seen) -> Reply {
        let by_digest = format!("/v2/team/app/manifests/{}", Digest::of(&self.manifest));
        if seen.path == "/v2/team/app/manifests/latest" || seen.path == by_digest {
            Reply::new(200, self.manifest.clone()).with("content-type", MANIFEST)
        } else if seen.path == self.config_path() {
            Reply::new(200, self.config.clone())
        } else if seen.path == self.layer_path() {
            Reply::new(200, self.layer.clone())
        } else {
            Reply::new(
                404,
                r#"{"errors":[{"code":"UNKNOWN","message":"no such thing"}]}"#,
            )
        }
    }
}

/// As it stands in a manifest or an index.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
}

/// What the OCI calls this machine.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// An archive with one file of so many bytes that do not repeat.
fn tar(size: usize) -> Vec<u8> {
    let mut header = [0_u8; 512];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, "file");
    put(100, "0000644");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    let mut state = 1_u32;
    archive.extend((0..size).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    }));
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

/// A data directory and a home directory in which `cellblock image pull` runs.
pub struct Place {
    directory: TempDir,
}

impl Place {
    pub fn new() -> Place {
        let directory = tempfile::tempdir().expect("temp dir");
        std::fs::create_dir(directory.path().join("home")).expect("home");
        Place { directory }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where the certificates are that are trusted here.
    pub fn authority(&self) -> PathBuf {
        self.path().join("authority.pem")
    }

    pub fn pull(&self, reference: &str, args: &[&str]) -> Pulled {
        self.pull_with(reference, args, &[])
    }

    /// Pulls with a short patience and nobody's credentials.
    pub fn pull_with(&self, reference: &str, args: &[&str], env: &[(&str, &str)]) -> Pulled {
        let (data, home, authority) = (self.data(), self.path().join("home"), self.authority());
        let mut all = vec!["image", "pull", reference, "--timeout", "1"];
        all.extend(args);
        let mut variables = vec![
            ("CELLBLOCK_DATA_DIR", data.as_path()),
            ("HOME", &home),
            ("SSL_CERT_FILE", &authority),
            ("REGISTRY_AUTH_FILE", Path::new("")),
            ("CELLBLOCK_REGISTRY_USERNAME", Path::new("")),
            ("CELLBLOCK_REGISTRY_PASSWORD", Path::new("")),
        ];
        variables.extend(env.iter().map(|(name, value)| (*name, Path::new(*value))));
        Pulled(server::run(&all, &variables))
    }

    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Files below the images, but for the lock: what a pull left there.
    pub fn left(&self) -> Vec<PathBuf> {
        let mut open = vec![self.data().join("images")];
        let mut files = Vec::new();
        while let Some(path) = open.pop() {
            let Ok(entries) = std::fs::read_dir(&path) else {
                continue;
            };
            for entry in entries.map(|entry| entry.expect("an entry")) {
                let path = entry.path();
                let staged = path
                    .parent()
                    .is_some_and(|parent| parent.ends_with("staging"));
                if entry.file_type().expect("a type").is_dir() {
                    open.push(path.clone());
                }
                if staged || (!path.is_dir() && !path.ends_with("lock")) {
                    files.push(path);
                }
            }
        }
        files
    }
}

/// What became of a pull.
#[derive(Debug)]
pub struct Pulled(pub Output);

impl Pulled {
    /// Asserts that it failed with one line that has all these words.
    #[track_caller]
    pub fn refused(&self, words: &[&str]) {
        let said = self.said();
        assert_eq!(self.0.status.code(), Some(1), "{said}");
        for word in words {
            assert!(said.contains(word), "no {word:?} in {said}");
        }
    }

    /// Asserts that it succeeded.
    #[track_caller]
    pub fn succeeded(&self) -> String {
        assert!(self.0.status.success(), "{}", self.said());
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    /// All that it printed.
    pub fn said(&self) -> String {
        let Output { stdout, stderr, .. } = &self.0;
        String::from_utf8_lossy(&[stdout.as_slice(), stderr].concat()).into_owned()
    }
}
