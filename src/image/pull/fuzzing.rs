//! See [`crate::fuzzing`]. Nobody is asked anything.

use super::auth_file::AuthFile;
use super::challenge::Challenge;
use super::origin::{Origin, Url};
use super::reference::Reference;
use super::said::Said;
use crate::image::is_name;
use std::path::Path;

/// What a registry answers, what the operator calls an image, a file of credentials.
pub fn registry(data: &[u8]) {
    let said = Said::of(data).to_string();
    assert!(!said.contains(char::is_control) && said.len() < 4096);
    if let Ok(file) = serde_json::from_slice::<AuthFile>(data) {
        for repository in ["a", "a/b/c"] {
            let _ = file.find(Path::new("auth.json"), "a.example:5000", repository);
        }
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    Challenge::choose([text].into_iter());
    if let Some(Challenge::Bearer { realm, .. }) = Challenge::choose(text.lines()) {
        let _ = Url::parse(&realm);
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse(), Ok(reference.clone()));
        assert!(is_name(&reference.default_name()), "{reference}");
        let origin = Origin::new(true, &reference.registry).expect("a registry has a URL");
        assert!(origin.tls && origin.port != 0);
    }
    if let Ok(url) = Url::parse(text) {
        assert!(Url::parse(&url.text()).as_ref() == Ok(&url), "{text:?}");
    }
    let registry = Origin::new(true, "a.example").expect("a host");
    if let Ok(next) = registry.at("/v2/".to_owned()).follow(text, &registry) {
        assert!(next.origin.tls, "from an encrypted place to a plain one");
    }
}
