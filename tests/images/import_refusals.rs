//! Sources that are not what they say: each is refused with what is wrong with it, and leaves nothing.

use crate::fixtures::{Image, Place, failed, pack, write_index};
use crate::needs;
use crate::support::together;
use cellblock::image::digest::Digest;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON");
    change(&mut value);
    fs::write(path, value.to_string()).expect("write");
}

/// A layout's blob of this kind, by what its manifest says.
fn blob(layout: &Path, layer: usize) -> std::path::PathBuf {
    let read = |path: &Path| -> Value {
        serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON")
    };
    let place = |value: &Value| {
        layout
            .join("blobs/sha256")
            .join(&value["digest"].as_str().expect("a digest")[7..])
    };
    let manifest = place(&read(&layout.join("index.json"))["manifests"][0]);
    place(&read(&manifest)["layers"][layer])
}

#[test]
fn a_layout_that_lies_is_refused() {
    needs!(Root);
    let _turn = together();
    let place = Place::new();
    let image = Image::sample(&place);
    type Break = fn(&Path);
    let cases: [(&str, Break, &str); 9] = [
        (
            "other bytes",
            |layout| {
                let path = blob(layout, 1);
                let mut bytes = fs::read(&path).expect("read");
                bytes[0] ^= 1;
                fs::write(path, bytes).expect("write");
            },
            "its digest is",
        ),
        (
            "a blob less",
            |layout| fs::remove_file(blob(layout, 1)).expect("remove"),
            "is not in the source",
        ),
        (
            "a link for a blob",
            |layout| {
                let path = blob(layout, 1);
                fs::rename(&path, layout.join("moved")).expect("rename");
                symlink(layout.join("moved"), path).expect("link");
            },
            "open ",
        ),
        (
            "no JSON",
            |layout| fs::write(layout.join("index.json"), "{").expect("write"),
            "index.json",
        ),
        (
            "too much JSON",
            |layout| {
                fs::write(layout.join("index.json"), " ".repeat((4 << 20) + 1)).expect("write");
            },
            "4194304",
        ),
        (
            "another size",
            |layout| {
                edit(&layout.join("index.json"), |index| {
                    index["manifests"][0]["size"] = 1.into()
                });
            },
            "1 were promised",
        ),
        (
            "another size of a layer",
            |layout| {
                let index = layout.join("index.json");
                let name = |digest: &Digest| layout.join("blobs/sha256").join(digest.hex());
                edit(&index, |index| {
                    let descriptor = &mut index["manifests"][0];
                    let digest = descriptor["digest"].as_str().expect("a digest").parse();
                    let manifest = name(&digest.expect("a digest"));
                    edit(&manifest, |manifest| {
                        manifest["layers"][0]["size"] = 7.into()
                    });
                    let bytes = fs::read(&manifest).expect("read");
                    let digest = Digest::of(&bytes);
                    fs::rename(manifest, name(&digest)).expect("rename");
                    descriptor["digest"] = digest.to_string().into();
                    descriptor["size"] = bytes.len().into();
                });
            },
            "7 were promised",
        ),
        (
            "a digest that is a path",
            |layout| {
                edit(&layout.join("index.json"), |index| {
                    index["manifests"][0]["digest"] = "sha256:../../../etc/shadow".into()
                });
            },
            "names nothing that is understood",
        ),
        (
            "another type",
            |layout| {
                edit(&layout.join("index.json"), |index| {
                    index["manifests"][0]["mediaType"] = "text/html".into()
                });
            },
            "text/html",
        ),
    ];
    for (index, (case, harm, complaint)) in cases.into_iter().enumerate() {
        let layout = place.path(&format!("layout-{index}"));
        image.write_layout(&place, &layout, true);
        harm(&layout);
        let text = failed(&place.import("bad", &layout, &[]));
        assert!(
            text.contains(complaint),
            "{case}: {complaint} is not in {text}"
        );
        place.assert_empty(case);
    }
}

#[test]
fn a_layer_from_elsewhere_is_refused_by_its_type() {
    needs!(Root);
    let _turn = together();
    let place = Place::new();
    let layout = place.path("layout");
    let descriptor = Image::sample(&place).write_blobs(&place, &layout, false);
    let blobs = layout.join("blobs/sha256");
    let path = blobs.join(&descriptor["digest"].as_str().expect("a digest")[7..]);
    edit(&path, |manifest| {
        let kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        manifest["layers"][1]["mediaType"] = kind.into();
    });
    let bytes = fs::read(&path).expect("read");
    let digest = Digest::of(&bytes);
    fs::write(blobs.join(digest.hex()), &bytes).expect("write");
    write_index(
        &layout,
        &[json!({ "mediaType": descriptor["mediaType"], "digest": digest, "size": bytes.len() })],
    );
    let text = failed(&place.import("bad", &layout, &[]));
    assert!(text.contains("foreign"), "{text}");
    place.assert_empty("foreign");
}

#[test]
fn an_archive_that_lies_is_refused() {
    needs!(Root);
    let _turn = together();
    let place = Place::new();
    let image = Image::sample(&place);
    type Break = fn(&Path);
    let cases: [(&str, Break, &str); 7] = [
        (
            "a layer outside",
            |dir| {
                edit(&dir.join("manifest.json"), |list| {
                    list[0]["Layers"][1] = "../../etc/shadow".into()
                });
            },
            "../../etc/shadow: is named as a part of the image",
        ),
        (
            "a configuration outside",
            |dir| {
                edit(&dir.join("manifest.json"), |list| {
                    list[0]["Config"] = "/etc/shadow".into()
                });
            },
            "/etc/shadow: is named as a part of the image",
        ),
        (
            "a layer that leads outside",
            |dir| {
                let path = dir.join(format!("{:064}/layer.tar", 1));
                fs::remove_file(&path).expect("remove");
                symlink("../../../../../../etc/shadow", path).expect("link");
            },
            "layer.tar is not in the source",
        ),
        (
            "another layer",
            |dir| {
                let layer = |index: usize| dir.join(format!("{index:064}/layer.tar"));
                fs::copy(layer(0), layer(1)).expect("copy");
            },
            "layer 2: its content has the digest",
        ),
        (
            "a layer less",
            |dir| {
                edit(&dir.join("manifest.json"), |list| {
                    drop(list[0]["Layers"].as_array_mut().expect("a list").pop())
                });
            },
            "its manifest names 2 layers, its configuration 3",
        ),
        (
            "no JSON",
            |dir| fs::write(dir.join("manifest.json"), "[{\"Config\":").expect("write"),
            "manifest.json",
        ),
        (
            "another configuration",
            |dir| {
                let name = crate::fixtures::entries(dir)
                    .into_iter()
                    .find(|name| name.len() == 69)
                    .expect("it is there");
                fs::write(dir.join(name), "{}").expect("write");
            },
            "its digest is",
        ),
    ];
    for (index, (case, harm, complaint)) in cases.into_iter().enumerate() {
        let directory = place.path(&format!("docker-{index}"));
        image.write_docker(&directory, "sample:1");
        harm(&directory);
        let archive = place.path("docker.tar");
        pack(&directory, &archive);
        let text = failed(&place.import("bad", &archive, &[]));
        assert!(
            text.contains(complaint),
            "{case}: {complaint} is not in {text}"
        );
        place.assert_empty(case);
    }
}

#[test]
fn a_damaged_archive_is_refused_wherever_it_ends() {
    needs!(Root);
    let _turn = together();
    let place = Place::new();
    let directory = place.path("docker");
    Image::sample(&place).write_docker(&directory, "sample:1");
    let archive = place.path("docker.tar");
    pack(&directory, &archive);
    let whole = fs::read(&archive).expect("read");
    for length in [
        0,
        100,
        512,
        1024,
        2000,
        whole.len() / 2,
        whole.len() / 2 + 300,
    ] {
        fs::write(&archive, &whole[..length]).expect("write");
        failed(&place.import("bad", &archive, &[]));
        place.assert_empty(&format!("{length} bytes"));
    }
    // A size that leads beyond everything: binary, in the first file's header.
    let mut huge = whole.clone();
    huge[124..136].copy_from_slice(&[
        0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    ]);
    fs::write(&archive, huge).expect("write");
    failed(&place.import("bad", &archive, &[]));
    place.assert_empty("a huge size");
    let text = failed(&place.import("bad", &place.path("nothing"), &[]));
    assert!(text.contains("nothing"), "{text}");
}

#[test]
fn what_no_image_can_have_is_refused_by_its_name() {
    needs!(Root);
    let _turn = together();
    let place = Place::new();
    let fifo = place.path("with-fifo");
    fs::create_dir_all(fifo.join("dir")).expect("make");
    nix::unistd::mkfifo(&fifo.join("dir/fifo"), nix::sys::stat::Mode::S_IRWXU)
        .expect("make a FIFO");
    let whiteout = place.path("with-whiteout");
    fs::create_dir_all(&whiteout).expect("make");
    fs::write(whiteout.join(".wh.etc"), "").expect("write");
    let socket = place.path("with-socket");
    fs::create_dir_all(&socket).expect("make");
    let _listener = std::os::unix::net::UnixListener::bind(socket.join("socket")).expect("bind");
    for (source, name) in [
        (fifo, "dir/fifo"),
        (whiteout, ".wh.etc"),
        (socket, "socket"),
    ] {
        let text = failed(&place.import("bad", &source, &[]));
        assert!(text.contains(name) && text.contains("remove"), "{text}");
        place.assert_empty(name);
    }
    let text = failed(&place.import("bad", &place.path(""), &[]));
    assert!(text.contains("holds the data directory"), "{text}");
    let big = place.path("big");
    fs::create_dir_all(&big).expect("make");
    fs::write(big.join("file"), [1; 5000]).expect("write");
    failed(&place.import("bad", &big, &["--max-bytes", "4096"]));
    failed(&place.import("bad", &big, &["--max-entries", "1"]));
    place.assert_empty("bounds");
}
