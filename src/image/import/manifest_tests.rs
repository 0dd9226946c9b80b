//! See [`super`].

use super::*;
use serde_json::{Value, json};

fn descriptor(media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(b"x"), "size": 1})
}

fn manifest() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST[0],
        "config": descriptor(CONFIG[0]),
        "layers": [descriptor(LAYER[1])],
    })
}

fn index(platforms: &[(&str, &str, Option<&str>)]) -> Value {
    let entries = platforms.iter().map(|(os, architecture, variant)| {
        let mut entry = descriptor(MANIFEST[0]);
        entry["platform"] = json!({"os": os, "architecture": architecture, "variant": variant});
        entry
    });
    json!({"schemaVersion": 2, "manifests": entries.collect::<Vec<_>>()})
}

fn parsed(content_type: &str, document: &Value) -> Result<Document, String> {
    parse(content_type, document.to_string().as_bytes())
}

#[test]
fn documents_are_what_they_come_as() {
    let with_charset = format!("{}; charset=utf-8", MANIFEST[0]);
    assert!(matches!(
        parsed(&with_charset, &manifest()),
        Ok(Document::Manifest(_))
    ));
    let list = index(&[("linux", "amd64", None)]);
    assert!(matches!(parsed(INDEX[1], &list), Ok(Document::Index(_))));
    for wrong in ["", "text/html", "application/json", LAYER[0]] {
        let error = parsed(wrong, &manifest()).unwrap_err();
        assert!(error.contains(&format!("{wrong:?}")), "{error}");
    }
    assert!(parsed(MANIFEST[1], &manifest()).is_err());
    assert!(parsed(INDEX[0], &manifest()).is_err());
}

#[test]
fn a_text_that_passes_for_index_and_manifest_is_neither() {
    let mut both = manifest();
    both.as_object_mut().unwrap().remove("mediaType");
    assert!(parsed(MANIFEST[0], &both).is_ok());
    both["manifests"] = json!([]);
    for content_type in [MANIFEST[0], INDEX[0]] {
        assert!(parsed(content_type, &both).is_err(), "{content_type}");
    }
}

#[test]
fn what_can_not_be_unpacked_is_refused_before_it_is_fetched() {
    let wrong: [(&str, Value, &str); 5] = [
        (
            "config",
            descriptor("application/vnd.cncf.helm.config.v1+json"),
            "no image",
        ),
        (
            "layers",
            json!([descriptor(
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
            )]),
            "is a foreign one",
        ),
        (
            "layers",
            json!([descriptor("application/x-squashfs")]),
            "can't be unpacked",
        ),
        (
            "layers",
            json!(vec![descriptor(LAYER[0]); 128]),
            "128 layers",
        ),
        (
            "config",
            json!({"mediaType": CONFIG[0], "digest": Digest::of(b""), "size": MAX_JSON + 1}),
            "more than",
        ),
    ];
    for (key, value, words) in wrong {
        let mut document = manifest();
        document[key] = value;
        let error = parsed(MANIFEST[0], &document).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn words_of_a_document_are_escaped_and_cut() {
    let long = format!("\u{1b}[2J{}", "x".repeat(100_000));
    let mut strange = [manifest(), manifest(), manifest()];
    strange[0]["config"] = descriptor(&long);
    strange[1]["layers"] = json!([descriptor(&long)]);
    strange[2]["config"]["digest"] = json!(long);
    for document in strange {
        let error = parsed(MANIFEST[0], &document).unwrap_err();
        assert!(error.len() < 500 && !error.contains('\u{1b}'), "{error}");
    }
}

#[test]
fn the_right_platform_is_chosen_or_all_are_named() {
    let list = index(&[
        ("linux", "arm", Some("v7")),
        ("linux", "amd64", Some("v3")),
        ("linux", "amd64", None),
        ("unknown", "unknown", None),
        ("windows", "amd64", None),
    ]);
    let Ok(Document::Index(entries)) = parsed(INDEX[0], &list) else {
        panic!("no index")
    };
    let choose = |wanted: &str| choose(&entries, &wanted.parse().unwrap());
    assert_eq!(choose("linux/amd64").unwrap(), &entries[2]);
    assert_eq!(choose("linux/amd64/v3").unwrap(), &entries[1]);
    assert_eq!(choose("linux/arm").unwrap(), &entries[0]);
    let error = choose("linux/riscv64").unwrap_err();
    assert_eq!(
        error,
        "there is none for linux/riscv64; there are: linux/arm/v7, linux/amd64/v3, linux/amd64, windows/amd64"
    );
}

#[test]
fn a_platform_fits_with_or_without_the_variant_that_all_have() {
    let fits = [
        ("linux/amd64", "linux/amd64", true),
        ("linux/amd64", "linux/amd64/v1", true),
        ("linux/amd64", "linux/amd64/v3", false),
        ("linux/amd64", "linux/arm64", false),
        ("linux/arm64", "linux/arm64/v8", true),
        ("linux/arm64/v8", "linux/arm64", true),
        ("linux/arm64/v9", "linux/arm64", false),
        ("linux/arm", "linux/arm/v6", false),
        ("linux/arm/v6", "linux/arm/v6", true),
        ("linux/arm/v6", "linux/arm/v7", false),
    ];
    for (wanted, offered, fits) in fits {
        let got = fit(&wanted.parse().unwrap(), &offered.parse().unwrap());
        assert_eq!(got.is_some(), fits, "{wanted} of {offered}");
    }
}
