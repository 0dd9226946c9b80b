//! What is imported comes to the same, in whatever form it comes.

use crate::fixtures::{
    ARCHITECTURE, FOREIGN, Image, Place, failed, gzip, pack, succeeded, write_index,
};
use crate::needs;
use crate::support::together;
use cellblock::image::digest::Digest;
use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

#[test]
fn one_image_in_every_form_is_one_image_and_its_layers_are_there_once() {
    needs!(Root);
    let _turn = together();
    let place = Place::new();
    let image = Image::sample(&place);

    let docker = place.path("docker");
    image.write_docker(&docker, "sample:1");
    pack(&docker, &place.path("docker.tar"));
    let packed = fs::read(place.path("docker.tar")).expect("read");
    fs::write(place.path("docker.tar.gz"), gzip(&packed, &place)).expect("write");
    let layout = place.path("layout");
    image.write_layout(&place, &layout, true);
    pack(&layout, &place.path("layout.tar"));
    // What `docker save` writes today: both forms in one.
    let both = place.path("both");
    image.write_layout(&place, &both, false);
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let layers: Vec<String> = image.layers.iter().map(|layer| blob(layer)).collect();
    let manifest = json!([{ "Config": blob(&image.config_bytes()), "RepoTags": ["sample:1"], "Layers": layers }]);
    fs::write(both.join("manifest.json"), manifest.to_string()).expect("write");
    pack(&both, &place.path("both.tar"));

    let sources = [
        "docker",
        "docker.tar",
        "docker.tar.gz",
        "layout",
        "layout.tar",
        "both.tar",
    ];
    for (index, source) in sources.iter().enumerate() {
        let id = place.must_import(&format!("image-{index}"), &place.path(source), &[]);
        assert_eq!(id, image.id(), "{source}");
    }
    let mut wanted: Vec<String> = image.layers[..2]
        .iter()
        .map(|layer| Digest::of(layer).hex())
        .collect();
    wanted.sort();
    assert_eq!(place.stored("layers"), wanted);
    assert_eq!(place.stored("contents").len(), 1);
    assert_eq!(place.stored("staging"), [""; 0]);

    let shown = place.show("image-0");
    assert_eq!(shown["platform"], format!("linux/{ARCHITECTURE}"));
    assert_eq!(shown["created"], "2024-01-02T03:04:05Z");
    assert_eq!(shown["layers"].as_array().expect("a list").len(), 2);
    assert_eq!(
        shown["config"],
        json!({
            "env": { "PATH": "/bin", "A": "b=c" },
            "user": { "uid": 33, "gid": 34, "name": "web", "home": "/srv/web" },
            "working_dir": "/srv",
        })
    );
    let list = succeeded(&place.cellblock(&["ls"]));
    let rows: Vec<Vec<&str>> = list
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), 2 + sources.len(), "{list}");
    assert!(
        rows[2][0] == "image-0" && image.id()[7..].starts_with(rows[2][1]),
        "{list}"
    );
    assert_eq!(rows[2][4], "2", "{list}");

    let again = succeeded(&place.import("image-0", &layout, &[]));
    assert!(again.contains("already"), "{again}");
}

#[test]
fn a_root_file_system_is_the_same_packed_or_piped() {
    needs!(Root);
    let _turn = together();
    let place = Place::new();
    let layer = Image::sample(&place).layers.swap_remove(0);
    let [plain, packed] = ["rootfs.tar", "rootfs.tar.gz"].map(|name| place.path(name));
    fs::write(&plain, &layer).expect("write");
    fs::write(&packed, gzip(&layer, &place)).expect("write");
    let id = place.must_import("plain", &plain, &[]);
    assert_eq!(place.must_import("packed", &packed, &[]), id);
    let fifo = place.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("make a FIFO");
    let writer = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::write(fifo, layer).expect("write into the FIFO")
    });
    assert_eq!(place.must_import("piped", &fifo, &[]), id);
    writer.join().expect("written");
    assert_eq!(place.stored("layers").len(), 1);

    // A name that is something else's stays that.
    let other = place.path("tree-upper");
    let text = failed(&place.import("plain", &other, &[]));
    assert!(text.contains("exists already"), "{text}");
    assert_eq!(place.show("plain")["id"], id);
    assert_eq!(place.stored("staging"), [""; 0]);
}

#[test]
fn of_several_images_the_named_one_is_taken_and_of_several_machines_this_one() {
    needs!(Root);
    let _turn = together();
    let place = Place::new();
    let image = Image::sample(&place);
    let mut other = Image::of(vec![image.layers[0].clone()]);
    other.config["config"] = json!({});
    let mut foreign = other.clone();
    foreign.config["architecture"] = FOREIGN.into();

    let layout = place.path("layout");
    let [mut first, mut here, mut there] =
        [&image, &other, &foreign].map(|one| one.write_blobs(&place, &layout, false));
    first["annotations"] = json!({ "org.opencontainers.image.ref.name": "first" });
    here["platform"] = json!({ "os": "linux", "architecture": ARCHITECTURE });
    there["platform"] = json!({ "os": "linux", "architecture": FOREIGN });
    let index = json!({
        "schemaVersion": 2, "manifests": [there, here],
    })
    .to_string();
    let digest = Digest::of(index.as_bytes());
    fs::write(layout.join("blobs/sha256").join(digest.hex()), &index).expect("write");
    let second = json!({
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": index.len(),
        "annotations": { "io.containerd.image.name": "registry.example/team/second:2" },
    });
    // What another program understands does not stand in the way.
    let odd =
        json!({ "mediaType": "x/y", "digest": format!("sha512:{}", "0".repeat(128)), "size": 1 });
    write_index(&layout, &[odd, first, second]);

    let text = failed(&place.import("x", &layout, &[]));
    for part in [
        "holds 2 images",
        "--ref",
        "\n  first\n",
        "\n  registry.example/team/second:2",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    failed(&place.import("x", &layout, &["--ref", "third"]));
    place.assert_empty("no choice");
    assert_eq!(
        place.must_import("first", &layout, &["--ref", "first"]),
        image.id()
    );
    assert_eq!(
        place.must_import("second", &layout, &["--ref", "second:2"]),
        other.id()
    );
    let named = [
        "--ref",
        "second:2",
        "--platform",
        &format!("linux/{FOREIGN}"),
    ];
    assert_eq!(place.must_import("third", &layout, &named), foreign.id());
    let text = failed(&place.import(
        "x",
        &layout,
        &["--ref", "second:2", "--platform", "linux/mips"],
    ));
    assert!(
        text.contains(ARCHITECTURE) && text.contains(FOREIGN),
        "{text}"
    );

    let single = place.path("single");
    foreign.write_docker(&single, "foreign:1");
    let text = failed(&place.import("x", &single, &[]));
    assert!(text.contains("--platform linux/riscv64"), "{text}");
}

#[test]
fn a_directory_is_copied_as_it_is_the_same_each_time() {
    needs!(Root);
    let _turn = together();
    let place = Place::new();
    let source = place.path("rootfs");
    fs::create_dir_all(source.join("dir/deep")).expect("make");
    fs::write(source.join("dir/file"), "text").expect("write");
    fs::hard_link(source.join("dir/file"), source.join("dir/second")).expect("link");
    fs::set_permissions(source.join("dir/file"), Permissions::from_mode(0o640)).expect("chmod");
    std::os::unix::fs::chown(source.join("dir/file"), Some(5), Some(6)).expect("chown");
    symlink("/etc/shadow", source.join("outside")).expect("link");
    symlink("/etc", source.join("etc")).expect("link");
    let long = "n".repeat(200);
    fs::write(source.join("dir/deep").join(&long), "long").expect("write");

    let id = place.must_import("one", &source, &[]);
    let copy = place.path("copy");
    let copied = Command::new("cp")
        .args(["-a", "-T"])
        .args([&source, &copy])
        .status();
    assert!(copied.expect("run cp").success());
    assert_eq!(place.must_import("two", &copy, &[]), id);
    fs::write(copy.join("dir/file"), "Text").expect("write");
    assert_ne!(place.must_import("three", &copy, &[]), id);

    let layer = place.show("one")["layers"][0]["diff_id"]
        .as_str()
        .expect("a digest")[7..]
        .to_owned();
    let tree = place.data().join("images/layers").join(layer).join("fs");
    let file = fs::metadata(tree.join("dir/file")).expect("the file");
    assert_eq!(
        (file.mode() & 0o7777, file.uid(), file.gid(), file.nlink()),
        (0o640, 5, 6, 2)
    );
    assert_eq!(
        fs::read_link(tree.join("outside"))
            .expect("a link")
            .to_str(),
        Some("/etc/shadow")
    );
    assert!(
        fs::symlink_metadata(tree.join("etc"))
            .expect("a link")
            .is_symlink()
    );
    assert_eq!(
        fs::read(tree.join("dir/deep").join(long)).expect("read"),
        b"long"
    );
}

#[test]
fn a_directory_is_copied_without_what_is_mounted_in_it() {
    needs!(Root, Unshare);
    let _turn = together();
    let place = Place::new();
    let source = place.path("rootfs");
    for name in ["proc", "srv/data"] {
        fs::create_dir_all(source.join(name)).expect("make");
    }
    fs::write(source.join("file"), "own").expect("write");
    fs::write(place.path("secret"), "secret").expect("write");
    let line = "mount -t tmpfs none \"$1/srv/data\"; echo secret > \"$1/srv/data/file\"
        mount --bind \"$2\" \"$1/file\"
        exec \"$3\" image import mounted \"$1\" --data-dir \"$4\"";
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-ec", line, "sh"])
        .args([&source, &place.path("secret")])
        .arg(env!("CARGO_BIN_EXE_cellblock"))
        .arg(place.data())
        .output()
        .expect("run unshare");
    let notes = String::from_utf8_lossy(&output.stderr).into_owned();
    succeeded(&output);
    for name in ["srv/data", "file"] {
        assert!(
            notes.contains(&format!("{name}: something is mounted there")),
            "{notes}"
        );
    }
    let layer = place.stored("layers").swap_remove(0);
    let tree = place.data().join("images/layers").join(layer).join("fs");
    assert!(tree.join("srv/data").is_dir() && !tree.join("srv/data/file").exists());
    assert!(!tree.join("file").exists());
}
