//! Imported images made by hand, as the store keeps them: for tests of what becomes of an image, not of how it comes.

use super::image;
use super::server::Server;
use cellblock::image::content::{Content, ImageConfig, ImageUser};
use cellblock::image::digest::Digest;
use nix::sys::stat::{Mode, SFlag, mknod};
use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// This machine in the OCI's words.
pub const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else {
    "arm64"
};

/// Programs beside those of [`image::rootfs`].
const TOOLS: [&str; 6] = ["env", "stat", "wc", "pwd", "chmod", "rm"];

fn images(server: &Server) -> PathBuf {
    server.data_dir().join("images")
}

/// Where a layer's tree is.
pub fn tree(server: &Server, layer: Digest) -> PathBuf {
    images(server).join("layers").join(layer.hex()).join("fs")
}

/// Puts a layer into the store, unless one of that name is there.
pub fn layer(server: &Server, name: &str, fill: impl FnOnce(&Path)) -> Digest {
    let digest = Digest::of(name.as_bytes());
    let tree = tree(server, digest);
    if tree.exists() {
        return digest;
    }
    let new = images(server).join(format!("new-{}", super::procs::marker()));
    fs::create_dir_all(new.join("fs")).expect("make a layer");
    fs::set_permissions(&new, Permissions::from_mode(0o700)).expect("chmod the layer");
    fill(&new.join("fs"));
    let record = json!({"diff_id": digest, "bytes": 0, "entries": 0});
    fs::write(new.join("layer.json"), record.to_string()).expect("write the layer's record");
    let parent = tree.parent().expect("the layer");
    fs::create_dir_all(parent.parent().expect("all layers")).expect("make the store");
    match fs::rename(&new, parent) {
        // Another test was faster.
        Err(_) if tree.exists() => fs::remove_dir_all(&new).expect("remove the second"),
        renamed => renamed.expect("put the layer in place"),
    }
    digest
}

/// The layer with a shell and a few tools.
pub fn base(server: &Server) -> Digest {
    layer(server, "base", |tree| {
        image::rootfs(tree);
        for tool in TOOLS {
            let program = Path::new("/usr/bin").join(tool);
            image::add_program(tree, &program, &format!("bin/{tool}"));
        }
    })
}

/// An image of these layers, the lowest first.
pub fn content(name: &str, layers: &[Digest], config: ImageConfig) -> Content {
    Content {
        id: Digest::of(format!("image {name}").as_bytes()),
        architecture: ARCHITECTURE.to_owned(),
        created: Some("2024-05-06T07:08:09Z".to_owned()),
        layers: layers.to_vec(),
        bytes: 12_345,
        config,
    }
}

/// Gives a content to a server's store and a name to it; an older image loses that name.
pub fn put(server: &Server, name: &str, content: &Content) {
    let contents = images(server).join("contents");
    fs::create_dir_all(&contents).expect("make the store");
    let file = contents.join(format!("{}.json", content.id.hex()));
    let json = serde_json::to_vec(content).expect("plain data");
    fs::write(file, json).expect("write the content");
    let name = images(server).join(format!("{name}.json"));
    fs::write(name, json!({"image": content.id}).to_string()).expect("write the name");
}

/// An image on a server with nothing to say of its commands.
pub fn plain(server: &Server, name: &str, layers: &[Digest]) -> Content {
    let content = content(name, layers, ImageConfig::default());
    put(server, name, &content);
    content
}

/// Takes a name away, as `image rm` does; what runtimes are made of stays.
pub fn forget(server: &Server, name: &str) {
    fs::remove_file(images(server).join(format!("{name}.json"))).expect("remove the name");
}

/// A configuration with a user.
pub fn user(uid: u32, gid: u32, name: &str, home: &str) -> ImageConfig {
    ImageConfig {
        user: Some(ImageUser {
            uid,
            gid,
            name: name.to_owned(),
            home: home.to_owned(),
        }),
        ..ImageConfig::default()
    }
}

/// A whiteout, as a layer is unpacked: what is below is not there any more.
pub fn whiteout(path: &Path) {
    mknod(path, SFlag::S_IFCHR, Mode::empty(), 0).expect("make a whiteout");
}

/// An opaque directory: nothing of what is below it shows.
pub fn opaque(path: &Path) {
    fs::create_dir_all(path).expect("make a directory");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(path, "trusted.overlay.opaque", b"y", flags).expect("make it opaque");
}
