//! Where a registry may send a pull, and that nobody there learns who pulls.

use crate::image::{Image, Place};
use crate::needs;
use crate::registry::{Registry, Reply};

const USER: [(&str, &str); 2] = [
    ("CELLBLOCK_REGISTRY_USERNAME", "mallory"),
    ("CELLBLOCK_REGISTRY_PASSWORD", "hunter2"),
];

/// A registry that wants a password and redirects the layer's blob.
fn redirecting(image: &Image, to: String) -> impl Fn(&crate::registry::Seen) -> Reply + use<> {
    let image = image.clone();
    move |seen| match seen.header("authorization") {
        None => Reply::new(401, "").with("www-authenticate", "Basic realm=\"x\""),
        Some(_) if seen.path == image.layer_path() => Reply::redirect(&to),
        Some(_) => image.reply(seen),
    }
}

#[test]
fn a_redirect_elsewhere_is_followed_without_credentials() {
    needs!(Root);
    let image = Image::new(100_000);
    let place = Place::new();
    let served = image.layer.clone();
    let storage = Registry::start_tls(&place.authority(), move |_| Reply::new(200, served.clone()));
    let to = format!("https://{}/bucket/x?signature=s3cr3t", storage.address);
    let registry = Registry::start(redirecting(&image, to));
    let reference = format!("{}/team/app", registry.address);
    let pulled = place.pull_with(&reference, &[], &USER);
    pulled.succeeded();
    assert!(registry.seen().iter().any(|seen| seen.has_credentials()));
    let seen = storage.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].path, "/bucket/x?signature=s3cr3t");
    assert!(!seen[0].has_credentials(), "{seen:?}");
}

#[test]
fn a_redirect_within_the_registry_keeps_them() {
    needs!(Root);
    let image = Image::new(1000);
    let (good, served) = (
        redirecting(&image, "/elsewhere".to_owned()),
        image.layer.clone(),
    );
    let registry = Registry::start(move |seen| match seen.path == "/elsewhere" {
        true => Reply::new(200, served.clone()),
        false => good(seen),
    });
    let place = Place::new();
    place
        .pull_with(&format!("{}/team/app", registry.address), &[], &USER)
        .succeeded();
    let seen = registry.seen();
    let last = seen.last().expect("a request");
    assert!(
        last.path == "/elsewhere" && last.has_credentials(),
        "{last:?}"
    );
}

#[test]
fn a_redirect_into_plain_http_is_refused_before_anybody_is_asked() {
    needs!(Root);
    let image = Image::new(1000);
    let place = Place::new();
    let served = image.layer.clone();
    let plain = Registry::start(move |_| Reply::new(200, served.clone()));
    let down = format!("http://{}/x?signature=s3cr3t", plain.address);
    let registry = Registry::start_tls(&place.authority(), redirecting(&image, down));
    let reference = format!("{}/team/app", registry.address);
    let pulled = place.pull_with(&reference, &[], &USER);
    pulled.refused(&["redirect", &format!("{} over plain http", plain.address)]);
    // Signatures in a redirect are somebody's password for a while.
    assert!(!pulled.said().contains("s3cr3t"), "{}", pulled.said());
    assert!(plain.seen().is_empty(), "{:?}", plain.seen());

    // From loopback to an address that is nobody's.
    let away = Registry::start(redirecting(&image, "http://192.0.2.1/x".to_owned()));
    let reference = format!("{}/team/app", away.address);
    place
        .pull_with(&reference, &[], &USER)
        .refused(&["redirect", "192.0.2.1 over plain http"]);
    place
        .pull_with(&reference, &["--plain-http"], &USER)
        .refused(&["192.0.2.1 over plain http"]);
    assert!(place.left().is_empty(), "{:?}", place.left());
}

#[test]
fn redirects_that_lead_nowhere_end() {
    needs!(Root);
    let image = Image::new(1000);
    let places = [
        (image.layer_path(), "redirects more than 5 times"),
        (
            "https://user:pw@localhost:1/x".to_owned(),
            "no plain http or https URL",
        ),
        (
            "file:///etc/shadow".to_owned(),
            "no plain http or https URL",
        ),
        (String::new(), "no plain http or https URL"),
    ];
    for (to, words) in places {
        let registry = Registry::start(redirecting(&image, to));
        let place = Place::new();
        let reference = format!("{}/team/app", registry.address);
        place.pull_with(&reference, &[], &USER).refused(&[words]);
        assert!(place.left().is_empty(), "{:?}", place.left());
    }
}

#[test]
fn nobody_is_trusted_without_a_certificate() {
    needs!(Root);
    let image = Image::new(1000);
    let place = Place::new();
    let elsewhere = place.path().join("other.pem");
    let registry = Registry::start_tls(&elsewhere, move |seen| image.reply(seen));
    // Some authority is known, but not this one.
    Registry::start_tls(&place.authority(), |_| Reply::new(404, ""));
    let reference = format!("{}/team/app", registry.address);
    place
        .pull(&reference, &[])
        .refused(&["no trusted connection", "SSL_CERT_FILE"]);
    assert!(registry.seen().is_empty());
    let trusted = elsewhere.to_str().expect("UTF-8");
    place
        .pull_with(&reference, &[], &[("SSL_CERT_FILE", trusted)])
        .succeeded();
}
