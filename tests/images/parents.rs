//! Directories that a layer only implies keep the owner and the mode that a lower layer gives them.

use crate::archives::{Head, Tar};
use crate::fixtures::{Image, Place};
use crate::needs;
use crate::support::together;
use serde_json::Value;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

fn dir(tar: Tar, name: &str, mode: u32, owner: u32) -> Tar {
    let mut head = Head::new(name, b'5');
    (head.mode, head.uid, head.gid, head.mtime) = (mode, owner.into(), owner.into(), 77);
    tar.entry(&head, b"")
}

/// The image's trees, the lowest first.
fn trees(place: &Place, name: &str) -> Vec<PathBuf> {
    let shown = place.show(name);
    let layers = shown["layers"].as_array().expect("layers");
    let tree = |layer: &Value| {
        let digest = layer["diff_id"].as_str().expect("a diff id");
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        place.data().join("images/layers").join(hex).join("fs")
    };
    layers.iter().map(tree).collect()
}

fn import(place: &Place, name: &str, layers: Vec<Vec<u8>>) -> Vec<PathBuf> {
    let mut image = Image::of(layers);
    image.config["config"]["User"] = Value::Null;
    let layout = place.path(name);
    image.write_layout(place, &layout, true);
    assert_eq!(place.must_import(name, &layout, &[]), image.id());
    trees(place, name)
}

fn what(status: &Metadata) -> (u32, u32, u32, i64) {
    let mode = status.mode() & 0o7777;
    (mode, status.uid(), status.gid(), status.mtime())
}

#[test]
fn what_a_lower_layer_says_of_a_directory_holds_where_an_upper_one_only_implies_it() {
    needs!(Root);
    let _turn = together();
    let place = Place::new();
    let mut lower = dir(Tar::new(), "home", 0o755, 0);
    for (name, mode, owner) in [
        ("home/app", 0o700, 1234),
        ("home/app/deep", 0o2750, 55),
        ("opaque", 0o1777, 1),
        ("gone", 0o700, 2),
        ("anew", 0o700, 3),
        ("hidden", 0o700, 4),
        ("hidden/below", 0o700, 4),
        ("said", 0o700, 5),
        ("linked", 0o700, 6),
        ("caf\u{e9} %2f", 0o711, 7),
    ] {
        lower = dir(lower, name, mode, owner);
    }
    let middle = Tar::new()
        .file(".wh.gone", b"")
        .file("hidden/.wh..wh..opq", b"")
        .file("home/app/deep/x", b"")
        .symlink("linked", "said");
    let upper = Tar::new()
        .file("home/app/deep/y", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file("gone/x", b"")
        .file("hidden/below/x", b"")
        .file("new/x", b"")
        .file(".wh.anew", b"")
        .file("anew/x", b"")
        .file("linked/x", b"")
        .file("caf\u{e9} %2f/x", b"");
    let upper = dir(upper.file("said/x", b""), "said", 0o711, 8);
    let layers = vec![lower.end(), middle.end(), upper.end()];

    let trees = import(&place, "image", layers);
    assert_eq!(trees.len(), 4, "one more layer");
    let look = |name: &str| fs::symlink_metadata(trees[3].join(name)).map(|status| what(&status));
    for (name, wanted) in [
        ("home", (0o755, 0, 0, 77)),
        ("home/app", (0o700, 1234, 1234, 77)),
        ("home/app/deep", (0o2750, 55, 55, 77)),
        ("opaque", (0o1777, 1, 1, 77)),
        ("hidden", (0o700, 4, 4, 77)),
        ("caf\u{e9} %2f", (0o711, 7, 7, 77)),
    ] {
        assert_eq!(look(name).expect(name), wanted, "{name}");
    }
    // Others were made anew, or are nothing but implied, or say it themselves.
    for name in ["gone", "anew", "hidden/below", "new", "said", "linked"] {
        assert!(look(name).is_err(), "{name}");
    }
    let files = fs::read_dir(&trees[3]).expect("list").count();
    assert_eq!(files, 4, "nothing else");
}

#[test]
fn an_image_that_says_everything_gets_no_layer_more() {
    needs!(Root);
    let _turn = together();
    let place = Place::new();
    let lower = dir(dir(Tar::new(), "a", 0o700, 1), "a/b", 0o700, 1).end();
    let upper = dir(dir(Tar::new(), "a", 0o711, 2), "a/b", 0o711, 2);
    let upper = upper.file("a/b/x", b"").end();
    assert_eq!(import(&place, "image", vec![lower, upper]).len(), 2);
    // Nor does one that implies what it says, or what no layer says.
    let plain = dir(Tar::new(), "a", 0o755, 0).end();
    let upper = Tar::new().file("a/x", b"").end();
    assert_eq!(import(&place, "plain", vec![plain, upper]).len(), 2);
    let layers = [b"1", b"2"].map(|text| Tar::new().file("c/x", text).end());
    assert_eq!(import(&place, "implied", layers.to_vec()).len(), 2);
}
