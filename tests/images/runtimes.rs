//! Runtimes keep the image they were made of, whatever becomes of its name; and they cost little beside it.

use crate::needs;
use crate::support::server::Options;
use crate::support::{
    Runtime, Server, alone, api, assert_invalid, bound, eventually, image, server, store, times,
    together,
};
use cellblock::image::ImageStore;
use cellblock::image::content::Content;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// An image whose file `/which` holds a word.
fn which(server: &Server, name: &str, word: &str) -> Content {
    let layer = store::layer(server, word, |tree| {
        fs::write(tree.join("which"), format!("{word}\n")).expect("write a file");
    });
    let layers = [store::base(server), layer];
    let content = store::content(word, &layers, store::user(33, 33, word, "/"));
    store::put(server, name, &content);
    content
}

fn check(runtime: &Runtime, word: &str) {
    let said = format!("{word}\n33 {word}\n");
    runtime
        .sh("cat /which; echo $(id -u) $USER")
        .assert_stdout(&said);
}

/// As clients see it.
fn image_of(server: &Server, path: &str) -> (Value, Value) {
    let object = server.api.get(path).data(200);
    (object["image"].clone(), object["image_id"].clone())
}

#[test]
fn a_runtime_keeps_its_image_when_the_name_goes_or_means_another() {
    needs!(Root);
    let _turn = together();
    let server = Server::start(Options::default());
    let first = which(&server, "image", "first");
    let api = server.api.clone();
    let create = |body: Value| Runtime::create(&api, &body);
    let runtime = create(json!({"image": "image"}));
    let ephemeral = create(json!({"image": "image", "filesystem": "ephemeral"}));
    runtime.sh("true");
    let checkpoints = format!("/v1/runtimes/{}/checkpoints", runtime.id);
    let checkpoint = server.api.post(&checkpoints, &json!({})).data(200);
    let checkpoint = checkpoint["id"].as_str().expect("an id").to_owned();

    store::forget(&server, "image");
    check(&runtime, "first");
    check(&ephemeral, "first");
    let refused = server.api.post("/v1/runtimes", &json!({"image": "image"}));
    assert_invalid(&refused, "image");
    let second = which(&server, "image", "second");
    check(&create(json!({"image": "image"})), "second");
    check(&ephemeral, "first");

    // Neither do its mounts have to outlive the server.
    let ids = (json!("image"), json!(first.id));
    let server = server.restart();
    let path = format!("/v1/runtimes/{}", runtime.id);
    assert_eq!(image_of(&server, &path), ids);
    check(&runtime, "first");
    check(&ephemeral, "first");
    assert_eq!(
        image_of(&server, &format!("/v1/checkpoints/{checkpoint}")),
        ids
    );
    let restored = json!({"checkpoint_id": checkpoint, "image": "image"});
    let restored = create(restored);
    assert_eq!(restored.object["image_id"], json!(first.id));
    assert_ne!(first.id, second.id);
    check(&restored, "first");
}

#[test]
fn a_runtime_of_a_directory_does_not_become_one_of_an_imported_image() {
    needs!(Root);
    let _turn = together();
    let server = Server::start(Options::default());
    let rootfs = server.data_dir().join("rootfs");
    image::rootfs(&rootfs);
    image::add(&server, "image", &rootfs).expect("add the image");
    let runtime = Runtime::create(&server.api, &json!({"image": "image"}));
    assert_eq!(runtime.object["image_id"], Value::Null);
    which(&server, "image", "imported");
    let path = |operation: &str| format!("/v1/runtimes/{}/{operation}", runtime.id);
    server.api.post(&path("stop"), &json!({})).data(200);
    let started = server.api.post(&path("start"), &json!({}));
    assert!(started.status >= 400, "{}", started.text());
}

/// Bytes that a runtime's disk takes on the host.
fn disk_bytes(server: &Server, runtime: &Runtime) -> u64 {
    let disk = server
        .data_dir()
        .join("runtimes")
        .join(&runtime.id)
        .join("disk.img");
    fs::metadata(disk).expect("look at the disk").blocks() * 512
}

#[test]
fn many_runtimes_of_an_image_take_little_disk_each() {
    needs!(Root);
    let _turn = alone();
    const COUNT: usize = 100;
    const MOST: u64 = 2 << 20;
    let layer = store::layer(server(), "large", |tree| {
        fs::write(tree.join("large"), vec![7; 32 << 20]).expect("write a large file");
    });
    store::plain(server(), "large", &[store::base(server()), layer]);
    let body = json!({"image": "large"});
    let runtimes: Vec<Runtime> = (0..times(COUNT))
        .map(|_| {
            let runtime = Runtime::create(api(), &body);
            runtime
                .sh("echo x > /root/x; wc -c < /large")
                .assert_stdout("33554432\n");
            runtime
        })
        .collect();
    nix::unistd::sync();
    let largest = runtimes
        .iter()
        .map(|runtime| disk_bytes(server(), runtime))
        .max();
    println!("the largest disk takes {largest:?} bytes");
    assert!(largest < Some(MOST), "a disk takes {largest:?} bytes");
}

#[test]
fn an_image_that_goes_while_a_runtime_is_made_of_it_is_gone() {
    needs!(Root);
    let _turn = together();
    let server = Server::start(Options::default());
    let content = which(&server, "image", "going");
    let data = server.data_dir();
    let layer = store::tree(&server, content.layers[1]);
    // As `image rm` does: it may look for what refers to the image, and nothing may come to refer to it meanwhile.
    let removing = ImageStore::new(&data).lock_exclusive().expect("the lock");
    let entries = || fs::read_dir(data.join("runtimes")).expect("list").flatten();
    let before = entries().count();
    std::thread::scope(|scope| {
        let create = scope.spawn(|| server.api.post("/v1/runtimes", &json!({"image": "image"})));
        let begun = || entries().count() > before;
        assert!(eventually(bound(10_000), begun), "nothing was begun");
        store::forget(&server, "image");
        fs::remove_dir_all(layer.parent().expect("the layer")).expect("remove the layer");
        drop(removing);
        let refused = create.join().expect("an answer");
        assert_invalid(&refused, "image");
    });
    assert_eq!(entries().count(), before, "something is left of it");
}
