//! A registry that stalls, dies, sends other bytes than promised or never ends: a clear error, nothing on disk, and the
//! next attempt works.

use crate::image::{Image, MANIFEST, Place};
use crate::needs;
use crate::registry::{Registry, Reply, Seen};
use cellblock::image::digest::Digest;
use std::time::Instant;

/// Pulls from a registry that is bad the first time that it is asked for a path, and good afterwards.
#[track_caller]
fn bad_then_good(path: &str, image: &Image, bad: Reply, words: &[&str]) {
    let (at, good) = (path.to_owned(), image.clone());
    let registry = Registry::start(move |seen| match seen.path == at && seen.before == 0 {
        true => bad.clone(),
        false => good.reply(seen),
    });
    let reference = format!("{}/team/app", registry.address);
    let place = Place::new();
    let pulled = place.pull(&reference, &[]);
    pulled.refused(words);
    pulled.refused(&[&reference]);
    assert_eq!(place.left(), Vec::<std::path::PathBuf>::new(), "{words:?}");
    place.pull(&reference, &[]).succeeded();
}

#[test]
fn a_silent_registry_is_given_up_wherever_it_falls_silent() {
    needs!(Root);
    let image = Image::new(100_000);
    let blob = format!("blob {}", Digest::of(&image.layer));
    let config = format!("configuration {}", Digest::of(&image.config));
    let manifest = "/v2/team/app/manifests/latest";
    let silence = "has sent nothing for 1 s";
    let cases = [
        (manifest, Reply::silence(), "manifest latest"),
        (
            manifest,
            Reply::new(200, image.manifest.clone())
                .with("content-type", MANIFEST)
                .stalled(20),
            "manifest latest",
        ),
        (
            &image.config_path(),
            Reply::new(200, image.config.clone()).stalled(0),
            &config,
        ),
        (&image.layer_path(), Reply::silence(), &blob),
        (
            &image.layer_path(),
            Reply::new(200, image.layer.clone()).stalled(50_000),
            &blob,
        ),
    ];
    for (path, bad, what) in cases {
        bad_then_good(path, &image, bad, &[what, silence]);
    }
}

#[test]
fn a_trickle_is_no_progress() {
    needs!(Root);
    let image = Image::new(100_000);
    let blob = format!("blob {}", Digest::of(&image.layer));
    let layer = Reply::new(200, image.layer.clone()).trickled();
    let words = ["sends less than 1024 bytes in 1 s", &blob];
    bad_then_good(&image.layer_path(), &image, layer, &words);
    let manifest = Reply::new(200, image.manifest.clone()).with("content-type", MANIFEST);
    let words = ["manifest latest", "takes longer than 4 s"];
    bad_then_good(
        "/v2/team/app/manifests/latest",
        &image,
        manifest.trickled(),
        &words,
    );
}

#[test]
fn other_bytes_than_promised_are_not_kept() {
    needs!(Root);
    let image = Image::new(10_000);
    let other = Image::new(20_000);
    let (config, layer) = (image.config_path(), image.layer_path());
    let manifest = "/v2/team/app/manifests/latest";
    let size = image.layer.len();
    let mut same_size = image.layer.clone();
    same_size[600] ^= 1;
    let page = Reply::new(200, "<html>").with("content-type", "text/html");
    let large = Reply::new(200, vec![b' '; (4 << 20) + 1]).with("content-type", MANIFEST);
    let of_another = Reply::new(200, other.manifest).with("content-type", MANIFEST);
    let of_another = of_another.with("docker-content-digest", Digest::of(&image.manifest));
    let other_config = format!("{} bytes were promised", image.config.len());
    let cases = [
        (
            &layer,
            Reply::new(200, same_size),
            "other content than promised",
        ),
        (
            &layer,
            Reply::new(200, other.layer.clone()),
            "bytes were promised",
        ),
        (
            &layer,
            Reply::new(200, image.layer[1..].to_vec()),
            "bytes were promised",
        ),
        (
            &layer,
            Reply::endless(&[0; 1000]),
            &format!("sends more than {size}"),
        ),
        (&config, Reply::new(200, "{}"), &other_config),
        (
            &config,
            Reply::endless(&[b' '; 1000]),
            "sends more than 4194304 bytes",
        ),
        (
            &manifest.to_owned(),
            of_another,
            "other content than promised",
        ),
        (&manifest.to_owned(), page, "\"text/html\""),
        (&manifest.to_owned(), Reply::new(200, "{}"), "type \"\""),
        (
            &manifest.to_owned(),
            Reply::new(200, "{").with("content-type", MANIFEST),
            "no manifest",
        ),
        (&manifest.to_owned(), large, "sends more than 4194304 bytes"),
        (
            &manifest.to_owned(),
            Reply::endless(&[b' '; 1000]).with("content-type", MANIFEST),
            "sends more than 4194304 bytes",
        ),
        (
            &layer,
            Reply::new(200, "").with("content-length", "x"),
            "does not answer as a registry",
        ),
        (&layer, Reply::new(404, ""), "not found"),
        (
            &layer,
            Reply::new(403, r#"{"errors":[{"code":"DENIED","message":"no"}]}"#),
            "refuses access: \"DENIED no\"",
        ),
        (&layer, Reply::new(418, ""), "answers 418"),
    ];
    for (path, bad, words) in cases {
        bad_then_good(path, &image, bad, &[words]);
    }
}

#[test]
fn a_manifest_asked_for_by_digest_has_that_digest() {
    needs!(Root);
    let (image, other) = (Image::new(1000), Image::new(2000));
    let digest = Digest::of(&image.manifest);
    let path = format!("/v2/team/app/manifests/{digest}");
    let (good, at) = (image.clone(), path.clone());
    let registry = Registry::start(move |seen| match seen.path == at && seen.before == 0 {
        true => Reply::new(200, other.manifest.clone()).with("content-type", MANIFEST),
        false => good.reply(seen),
    });
    let place = Place::new();
    let reference = format!("{}/team/app@{digest}", registry.address);
    place
        .pull(&reference, &[])
        .refused(&["other content than promised", &digest.to_string()]);
    let said = place.pull(&reference, &[]).succeeded();
    assert!(
        said.contains(&format!("pulled app-{}", &digest.hex()[..12])),
        "{said}"
    );
}

/// Ranges of a blob as a good registry gives them.
fn range(seen: &Seen, body: &[u8]) -> Option<Reply> {
    let from = seen
        .header("range")?
        .strip_prefix("bytes=")?
        .strip_suffix('-')?;
    let from: usize = from.parse().ok()?;
    let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
    Some(Reply::new(206, &body[from..]).with("content-range", range))
}

#[test]
fn a_broken_blob_is_taken_up_where_it_broke() {
    needs!(Root);
    let image = Image::new(3_000_000);
    let (good, path) = (image.clone(), image.layer_path());
    let registry = Registry::start(move |seen| match (seen.path == path, seen.before) {
        (true, 0) => Reply::new(200, good.layer.clone()).cut(1_000_000),
        (true, _) => range(seen, &good.layer).expect("a range"),
        _ => good.reply(seen),
    });
    let place = Place::new();
    let pulled = place.pull(&format!("{}/team/app", registry.address), &[]);
    pulled.succeeded();
    assert!(
        pulled.said().contains("broke; next try in 0.5 s"),
        "{}",
        pulled.said()
    );
    let mut seen = registry.seen();
    seen.retain(|seen| seen.path == image.layer_path());
    let ranges: Vec<_> = seen.iter().map(|seen| seen.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=1000000-")]);
}

#[test]
fn a_registry_without_ranges_sends_a_broken_blob_again() {
    needs!(Root);
    let image = Image::new(100_000);
    let other_part =
        |layer: &[u8]| Reply::new(206, &layer[..100]).with("content-range", "bytes 0-99/102912");
    for kind in 0..3 {
        let (good, path) = (image.clone(), image.layer_path());
        let registry = Registry::start(move |seen| match (seen.path == path, seen.before, kind) {
            (true, 0, _) => Reply::new(200, good.layer.clone()).cut(50_000),
            (true, 1, 1) => Reply::new(416, ""),
            (true, 1, 2) => other_part(&good.layer),
            _ => good.reply(seen),
        });
        let place = Place::new();
        let pulled = place.pull(&format!("{}/team/app", registry.address), &[]);
        match kind {
            2 => pulled.refused(&["another part of the blob"]),
            _ => drop(pulled.succeeded()),
        }
    }
}

#[test]
fn a_blob_that_always_breaks_is_given_up() {
    needs!(Root);
    let image = Image::new(100_000);
    let (good, path) = (image.clone(), image.layer_path());
    let registry = Registry::start(move |seen| match seen.path == path {
        true => Reply::new(200, good.layer.clone()).cut(10),
        false => good.reply(seen),
    });
    let place = Place::new();
    let pulled = place.pull(&format!("{}/team/app", registry.address), &[]);
    pulled.refused(&["broke", &Digest::of(&image.layer).to_string()]);
    assert!(place.left().is_empty(), "{:?}", place.left());
    let tries = registry
        .seen()
        .iter()
        .filter(|seen| seen.path == image.layer_path())
        .count();
    assert_eq!(tries, 4);
}

#[test]
fn a_blob_that_gets_no_further_than_before_is_given_up() {
    needs!(Root);
    let image = Image::new(3_000_000);
    let (good, path) = (image.clone(), image.layer_path());
    // More than the least progress each second time, and never more in all.
    let registry = Registry::start(move |seen| match (seen.path == path, seen.before) {
        (true, 0 | 2 | 4) => Reply::new(200, good.layer.clone()).cut(2_500_000),
        (true, 1 | 3 | 5) => Reply::new(200, good.layer.clone()).cut(1_200_000),
        _ => good.reply(seen),
    });
    let place = Place::new();
    let pulled = place.pull(&format!("{}/team/app", registry.address), &[]);
    pulled.refused(&["broke", &Digest::of(&image.layer).to_string()]);
}

#[test]
fn a_busy_registry_is_asked_again_when_it_wants_and_not_for_ever() {
    needs!(Root);
    let image = Image::new(1000);
    let busy = |status: u16, after: &'static str, good_from: usize| {
        let good = image.clone();
        Registry::start(move |seen| match seen.before < good_from {
            true => Reply::new(status, "").with("retry-after", after),
            false => good.reply(seen),
        })
    };
    let place = Place::new();
    let start = Instant::now();
    let registry = busy(429, "1", 1);
    let reference = format!("{}/team/app", registry.address);
    place.pull(&reference, &[]).succeeded();
    // Manifest, configuration, layer: each was refused once.
    assert!(start.elapsed().as_secs() >= 3, "{:?}", start.elapsed());

    let registry = busy(503, "0", usize::MAX);
    let reference = format!("{}/team/app", registry.address);
    place
        .pull(&reference, &[])
        .refused(&["answers 503", "tried 4 times"]);
    assert_eq!(registry.seen().len(), 4);

    let registry = busy(429, "3600", usize::MAX);
    let reference = format!("{}/team/app", registry.address);
    place
        .pull(&reference, &[])
        .refused(&["answers 429", "in 3600 s"]);
    assert_eq!(registry.seen().len(), 1);
}
