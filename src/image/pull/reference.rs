//! What an image in a registry is called: `HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]`.
//!
//! The host has to be written. Other tools fill in one of their own where it is missing; here a name that was mistyped
//! would then fetch a stranger's image of the same name from a place that nobody mentioned.

use crate::image::digest::Digest;
use std::fmt;
use std::str::FromStr;

/// The longest path that registries take.
const MAX_REPOSITORY: usize = 255;

/// The longest tag that registries take.
const MAX_TAG: usize = 128;

/// The longest name an image can have here.
const MAX_NAME: usize = 63;

/// Digits of a digest that stand in the name of an image that has no tag.
const SHORT_DIGEST: usize = 12;

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Host and, where it was given, port: as in a URL.
    pub registry: String,
    /// The path below the host.
    pub repository: String,
    /// What is asked for: the digest where one was given, else the tag.
    pub version: Version,
}

/// Which of a repository's images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// The one that the registry calls so today.
    Tag(String),
    /// The one with this content, whatever it is called.
    Digest(Digest),
}

/// A text that names no image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAReference {
    /// Short names of other tools have no host.
    #[error(
        "{0:?} names no registry and none is assumed; write HOST[:PORT]/REPOSITORY[:TAG] in full"
    )]
    NoHost(String),
    /// A URL was given.
    #[error(
        "{0:?}: leave out the part before the host's name (plain http is asked for with --plain-http)"
    )]
    Scheme(String),
    /// Something else is wrong.
    #[error("{text:?}: {reason}")]
    Other {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl Reference {
    /// What the image is called here when nobody says: the repository's last part, and the tag unless that is `latest`.
    pub fn default_name(&self) -> String {
        let last = self.repository.rsplit('/').next().unwrap_or_default();
        let mut name = match &self.version {
            Version::Tag(tag) if tag == "latest" => last.to_owned(),
            Version::Tag(tag) => format!("{last}-{tag}"),
            Version::Digest(digest) => format!("{last}-{}", &digest.hex()[..SHORT_DIGEST]),
        };
        // Repositories and tags have no other characters than names; they may only be longer.
        name.truncate(MAX_NAME);
        name
    }
}

impl FromStr for Reference {
    type Err = NotAReference;

    fn from_str(text: &str) -> Result<Self, NotAReference> {
        let other = |reason| NotAReference::Other {
            text: text.to_owned(),
            reason,
        };
        if text.contains("://") {
            return Err(NotAReference::Scheme(text.to_owned()));
        }
        let no_host = || NotAReference::NoHost(text.to_owned());
        let (registry, rest) = text.split_once('/').ok_or_else(no_host)?;
        // How other tools tell a host from the first part of a path.
        if !registry.contains(['.', ':']) && registry != "localhost" {
            return Err(no_host());
        }
        check_registry(registry).map_err(other)?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|_| other("after @ stands sha256: and 64 hexadecimal digits"))?;
                (rest, Some(digest))
            }
            None => (rest, None),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        if !is_repository(repository) {
            return Err(other(
                "the repository is lower-case letters, digits and . _ - in parts with / between them",
            ));
        }
        if !tag.is_none_or(is_tag) {
            return Err(other(
                "a tag is up to 128 letters, digits and _ . - that begin with a letter, digit or _",
            ));
        }
        let version = match (digest, tag) {
            (Some(digest), _) => Version::Digest(digest),
            (None, tag) => Version::Tag(tag.unwrap_or("latest").to_owned()),
        };
        Ok(Reference {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            version,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (registry, repository) = (&self.registry, &self.repository);
        match &self.version {
            Version::Tag(tag) => write!(f, "{registry}/{repository}:{tag}"),
            Version::Digest(digest) => write!(f, "{registry}/{repository}@{digest}"),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Tag(tag) => f.write_str(tag),
            Version::Digest(digest) => digest.fmt(f),
        }
    }
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    let (host, port) = match registry.rfind(':') {
        // The last colon of an address in brackets without a port is the address's own.
        Some(colon) if !registry.ends_with(']') => {
            (&registry[..colon], Some(&registry[colon + 1..]))
        }
        _ => (registry, None),
    };
    if let Some(port) = port {
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        if !digits
            || port.parse::<u16>().is_ok_and(|port| port == 0)
            || port.parse::<u16>().is_err()
        {
            return Err("the registry's port is a number from 1 to 65535");
        }
    }
    if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        let known = address.parse::<std::net::Ipv6Addr>();
        return known
            .map(drop)
            .map_err(|_| "between [ and ] stands an IPv6 address");
    }
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(letter) && !label.starts_with('-');
    if host.len() > 253 || !host.split('.').all(label) {
        return Err("the registry is a host name or an address, with :PORT after it or without");
    }
    Ok(())
}

/// Parts of lower-case letters and digits, with single separators (`.`, `_`, `__` or hyphens) inside.
fn is_repository(text: &str) -> bool {
    let part = |part: &str| {
        let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let inside = part
            .split(alphanumeric)
            .filter(|between| !between.is_empty());
        let mut separators =
            inside.map(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'));
        part.starts_with(alphanumeric) && part.ends_with(alphanumeric) && separators.all(|ok| ok)
    };
    text.len() <= MAX_REPOSITORY && text.split('/').all(part)
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= MAX_TAG
        && text.starts_with(word)
        && text.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Reference {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn a_reference_is_host_repository_and_version() {
        let reference = parsed("registry.example:5000/team/app_1:v1.2");
        assert_eq!(reference.registry, "registry.example:5000");
        assert_eq!(reference.repository, "team/app_1");
        assert_eq!(reference.version, Version::Tag("v1.2".to_owned()));
        assert_eq!(
            parsed("localhost/app").version,
            Version::Tag("latest".to_owned())
        );
        assert_eq!(parsed("[::1]:5000/app").registry, "[::1]:5000");
        assert_eq!(parsed("[::1]/app").registry, "[::1]");
        let digest = Digest::of(b"x");
        for tag in ["", ":v1"] {
            let reference = parsed(&format!("127.0.0.1:1/app{tag}@{digest}"));
            assert_eq!(reference.version, Version::Digest(digest));
            assert_eq!(reference.to_string(), format!("127.0.0.1:1/app@{digest}"));
        }
    }

    #[test]
    fn a_registry_is_never_made_up() {
        for short in ["busybox", "busybox:1.37", "library/busybox", "team/app/x:1"] {
            let error = short.parse::<Reference>().unwrap_err();
            assert_eq!(error, NotAReference::NoHost(short.to_owned()));
        }
        let url = "https://registry.example/app";
        assert!(matches!(
            url.parse::<Reference>(),
            Err(NotAReference::Scheme(_))
        ));
    }

    #[test]
    fn what_could_mean_something_else_in_a_url_is_refused() {
        let long = format!("a.b/{}", "a".repeat(256));
        let wrong = [
            "a.b/",
            "a.b/../x",
            "a.b/x/../y",
            "a.b/x//y",
            "a.b/X",
            "a.b/x?y",
            "a.b/x%2e",
            "a.b/x:",
            "a.b/x:-t",
            "a.b/x:t/u",
            "a.b/x:t?u",
            "a.b/x___y",
            "a.b/x@sha256:0",
            "a.b/x@sha512:00",
            "user@a.b/x",
            "a.b:0/x",
            "a.b:65536/x",
            "a.b:+1/x",
            "a..b/x",
            "-a.b/x",
            "[::1/x",
            "[nothing]/x",
            long.as_str(),
        ];
        for text in wrong {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_name_here_follows_from_repository_and_tag() {
        let names = [
            ("a.b/team/app", "app"),
            ("a.b/app:latest", "app"),
            ("a.b/app:V1.2_x", "app-V1.2_x"),
        ];
        for (reference, name) in names {
            assert_eq!(parsed(reference).default_name(), name);
        }
        let digest = Digest::of(b"abc");
        let name = parsed(&format!("a.b/app@{digest}")).default_name();
        assert_eq!(name, "app-ba7816bf8f01");
        let long = parsed(&format!("a.b/app:{}", "t".repeat(128))).default_name();
        assert!(crate::image::is_name(&long), "{long}");
    }
}
