//! Which image a pull takes, what it calls it, and that an interrupted one leaves nothing.

use crate::image::{INDEX, Image, MANIFEST, Place, architecture, descriptor};
use crate::needs;
use crate::registry::{Registry, Reply};
use crate::support::{bound, eventually};
use serde_json::json;
use std::process::{Command, Stdio};

#[test]
fn an_index_leads_to_the_image_for_the_machine() {
    needs!(Root);
    let (here, there) = (Image::new(1000), Image::on("riscv64", 2000));
    let entry = |image: &Image, architecture: &str| {
        let mut entry = descriptor(MANIFEST, &image.manifest);
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    };
    let entries = [entry(&there, "riscv64"), entry(&here, architecture())];
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
    let registry = Registry::start(move |seen| {
        let reply = match seen.path == "/v2/team/app/manifests/latest" {
            true => return Reply::new(200, index.clone()).with("content-type", INDEX),
            false => here.reply(seen),
        };
        match reply.is_found() {
            true => reply,
            false => there.reply(seen),
        }
    });
    let place = Place::new();
    let reference = format!("{}/team/app:latest", registry.address);
    let said = place.pull(&reference, &[]).succeeded();
    assert!(said.starts_with("pulled app: sha256:"), "{said}");
    let other = ["--platform", "linux/riscv64", "--name", "other"];
    let said = place.pull(&reference, &other).succeeded();
    assert!(said.starts_with("pulled other: sha256:"), "{said}");
    let offered = format!(
        "none for linux/s390x; there are: linux/riscv64, linux/{}",
        architecture()
    );
    place
        .pull(&reference, &["--platform", "linux/s390x"])
        .refused(&[&offered]);
}

#[test]
fn a_single_image_for_another_machine_is_refused_before_its_layers_come() {
    needs!(Root);
    let image = Image::on("riscv64", 1000);
    let served = image.clone();
    let registry = Registry::start(move |seen| served.reply(seen));
    let place = Place::new();
    let reference = format!("{}/team/app", registry.address);
    place
        .pull(&reference, &[])
        .refused(&["linux/riscv64", "--platform"]);
    assert!(
        registry
            .seen()
            .iter()
            .all(|seen| seen.path != image.layer_path())
    );
}

#[test]
fn what_is_there_is_not_fetched_again_and_what_is_taken_stays() {
    needs!(Root);
    let (image, other) = (Image::new(1000), Image::new(2000));
    let served = image.clone();
    let registry = Registry::start(move |seen| served.reply(seen));
    let place = Place::new();
    let reference = format!("{}/team/app", registry.address);
    place.pull(&reference, &[]).succeeded();
    let said = place.pull(&reference, &[]).succeeded();
    assert!(said.contains("already; nothing was changed"), "{said}");
    place.pull(&reference, &["--name", "again"]).succeeded();
    let fetched = |registry: &Registry, path: &str| {
        let seen = registry.seen();
        seen.iter().filter(|seen| seen.path == path).count()
    };
    assert_eq!(fetched(&registry, &image.layer_path()), 1);

    let path = other.layer_path();
    let registry = Registry::start(move |seen| other.reply(seen));
    let reference = format!("{}/team/app", registry.address);
    place
        .pull(&reference, &["--name", "app"])
        .refused(&["\"app\" exists already"]);
    assert_eq!(fetched(&registry, &path), 0);
}

#[test]
fn nothing_is_asked_of_a_registry_that_was_not_named() {
    needs!(Root);
    let place = Place::new();
    for (reference, words) in [
        ("busybox", "names no registry"),
        ("library/busybox:1", "names no registry"),
        ("http://127.0.0.1/x", "leave out the part before the host"),
    ] {
        let pulled = place.pull(reference, &[]);
        assert_eq!(pulled.0.status.code(), Some(2), "{}", pulled.said());
        assert!(pulled.said().contains(words), "{}", pulled.said());
    }
    place
        .pull("127.0.0.1:1/host", &[])
        .refused(&["\"host\" is taken"]);
    place
        .pull("127.0.0.1:1/app", &[])
        .refused(&["127.0.0.1:1/app", "can't be reached"]);
    assert!(place.left().is_empty());
}

#[test]
fn an_interrupted_pull_leaves_nothing() {
    needs!(Root);
    let image = Image::new(100_000);
    let (served, path) = (image.clone(), image.layer_path());
    let registry = Registry::start(move |seen| match seen.path == path {
        true => Reply::new(200, served.layer.clone()).stalled(50_000),
        false => served.reply(seen),
    });
    let place = Place::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_cellblock"))
        .args([
            "image",
            "pull",
            &format!("{}/team/app", registry.address),
            "--data-dir",
        ])
        .arg(place.data())
        .env("HOME", place.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start cellblock");
    let asked = || {
        registry
            .seen()
            .iter()
            .any(|seen| seen.path == image.layer_path())
    };
    let under_way = eventually(bound(10_000), || asked() && !place.left().is_empty());
    // SAFETY: kill(2) takes numbers only; the child has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let status = child.wait().expect("wait");
    assert!(under_way, "the layer was never asked for");
    assert_eq!(status.code(), Some(130));
    assert!(place.left().is_empty(), "{:?}", place.left());
}
