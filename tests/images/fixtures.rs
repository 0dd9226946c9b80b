//! Images as other programs write them, and the command line that imports them.

use crate::support::mounts::TestDir;
use crate::support::server::run;
use cellblock::image::digest::Digest;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// This machine in the OCI's words.
pub const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else {
    "arm64"
};

/// Another one.
pub const FOREIGN: &str = "riscv64";

/// A data directory that no server uses, beside room for sources.
pub struct Place {
    dir: TestDir,
}

impl Place {
    pub fn new() -> Place {
        let dir = TestDir::new();
        fs::create_dir_all(dir.path().join("data")).expect("make a data directory");
        Place { dir }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A new name for a source.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn cellblock(&self, args: &[&str]) -> Output {
        cellblock(&self.data(), args)
    }

    pub fn import(&self, name: &str, source: &Path, more: &[&str]) -> Output {
        let source = source.to_str().expect("UTF-8");
        self.cellblock(&[&["import", name, source], more].concat())
    }

    /// Into a data directory that is another's, in whatever time it takes.
    pub fn import_into(&self, data: &Path, name: &str, source: &Path) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cellblock"));
        command.args(["image", "import", name]).arg(source);
        command
            .arg("--data-dir")
            .arg(data)
            .output()
            .expect("run cellblock")
    }

    /// The id that an import must come to.
    #[track_caller]
    pub fn must_import(&self, name: &str, source: &Path, more: &[&str]) -> String {
        succeeded(&self.import(name, source, more));
        self.show(name)["id"].as_str().expect("an id").to_owned()
    }

    #[track_caller]
    pub fn show(&self, name: &str) -> Value {
        let text = succeeded(&self.cellblock(&["show", name, "--json"]));
        serde_json::from_str(&text).expect("JSON")
    }

    /// Names of what is in a directory of the store, in order.
    pub fn stored(&self, directory: &str) -> Vec<String> {
        entries(&self.data().join("images").join(directory))
    }

    /// Nothing of any import is there.
    #[track_caller]
    pub fn assert_empty(&self, case: &str) {
        for directory in ["staging", "layers", "contents", "trash"] {
            assert_eq!(self.stored(directory), [""; 0], "{case}: {directory}");
        }
        let list = succeeded(&self.cellblock(&["ls", "--quiet"]));
        assert_eq!(list, "host\n", "{case}");
    }
}

/// Runs `cellblock image …` on a data directory.
pub fn cellblock(data: &Path, args: &[&str]) -> Output {
    run(
        &[&["image"], args].concat(),
        &[("CELLBLOCK_DATA_DIR", data)],
    )
}

/// What a command printed that must have succeeded.
#[track_caller]
pub fn succeeded(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{:?}: {err}", output.status);
    out.into_owned()
}

/// What a command complained of that must have failed, as commands fail.
#[track_caller]
pub fn failed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

/// Names in a directory, which need not be there.
pub fn entries(directory: &Path) -> Vec<String> {
    let Ok(found) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("entry").file_name();
    let names = found.map(|entry| name(entry).into_string().expect("UTF-8"));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Packs a directory, the same bytes for the same files.
pub fn pack(directory: &Path, archive: &Path) {
    let mut tar = Command::new("tar");
    tar.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@1",
    ]);
    let status = tar
        .arg("-C")
        .arg(directory)
        .arg("-cf")
        .arg(archive)
        .arg(".")
        .status();
    assert!(status.expect("run tar").success(), "tar failed");
}

/// Compresses what is in a file.
pub fn gzip(bytes: &[u8], place: &Place) -> Vec<u8> {
    let file = place.path("to-compress");
    fs::write(&file, bytes).expect("write");
    let output = Command::new("gzip")
        .arg("-nc")
        .arg(&file)
        .output()
        .expect("run gzip");
    output.stdout
}

/// An image in no form yet.
#[derive(Clone)]
pub struct Image {
    pub config: Value,
    /// Uncompressed archives, the lowest first.
    pub layers: Vec<Vec<u8>>,
}

impl Image {
    /// Three layers, the last of them the first again.
    pub fn sample(place: &Place) -> Image {
        let layer = |name: &str, files: &[(&str, &str)]| {
            let tree = place.path(&format!("tree-{name}"));
            for (path, text) in files {
                let path = tree.join(path);
                fs::create_dir_all(path.parent().expect("a parent")).expect("make a directory");
                fs::write(path, text).expect("write a file");
            }
            let archive = place.path(&format!("{name}.tar"));
            pack(&tree, &archive);
            fs::read(archive).expect("read the archive")
        };
        let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv/web:/bin/sh\n";
        let lower = layer("lower", &[("etc/passwd", passwd), ("lower", "1")]);
        let upper = layer("upper", &[("upper", "2")]);
        Image::of(vec![lower.clone(), upper, lower])
    }

    pub fn of(layers: Vec<Vec<u8>>) -> Image {
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
        let config = json!({
            "architecture": ARCHITECTURE,
            "os": "linux",
            "created": "2024-01-02T03:04:05Z",
            "config": { "Env": ["PATH=/bin", "A=b=c"], "User": "web", "WorkingDir": "/srv" },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        Image { config, layers }
    }

    pub fn config_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.config).expect("plain values")
    }

    pub fn id(&self) -> String {
        Digest::of(&self.config_bytes()).to_string()
    }

    /// As `docker save` wrote it before it wrote layouts: a layer that stands there twice is a link.
    pub fn write_docker(&self, directory: &Path, tag: &str) {
        fs::create_dir_all(directory).expect("make a directory");
        let config = format!("{}.json", Digest::of(&self.config_bytes()).hex());
        fs::write(directory.join(&config), self.config_bytes()).expect("write the configuration");
        let mut names: Vec<String> = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let name = format!("{index:064}/layer.tar");
            let path = directory.join(&name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("make a directory");
            match self.layers[..index].iter().position(|other| other == layer) {
                Some(first) => {
                    let first = format!("../{first:064}/layer.tar");
                    std::os::unix::fs::symlink(first, path).expect("link");
                }
                None => fs::write(path, layer).expect("write a layer"),
            }
            names.push(name);
        }
        let manifest = json!([{ "Config": config, "RepoTags": [tag], "Layers": names }]);
        fs::write(directory.join("manifest.json"), manifest.to_string()).expect("write");
    }

    /// As an OCI layout, and the descriptor for its index. The layers are compressed where that is asked for.
    pub fn write_blobs(&self, place: &Place, directory: &Path, compressed: bool) -> Value {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("make a directory");
        fs::write(
            directory.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .expect("write");
        let put = |kind: &str, bytes: &[u8]| {
            let digest = Digest::of(bytes);
            fs::write(blobs.join(digest.hex()), bytes).expect("write a blob");
            json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": bytes.len() })
        };
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| match compressed {
                true => put("layer.v1.tar+gzip", &gzip(layer, place)),
                false => put("layer.v1.tar", layer),
            })
            .collect();
        let config = put("config.v1+json", &self.config_bytes());
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        put("manifest.v1+json", manifest.to_string().as_bytes())
    }

    /// A layout of this image alone.
    pub fn write_layout(&self, place: &Place, directory: &Path, compressed: bool) {
        let descriptor = self.write_blobs(place, directory, compressed);
        write_index(directory, &[descriptor]);
    }
}

/// The index of a layout.
pub fn write_index(directory: &Path, descriptors: &[Value]) {
    let index = json!({ "schemaVersion": 2, "manifests": descriptors });
    fs::write(directory.join("index.json"), index.to_string()).expect("write the index");
}
