//! Where a request goes, and where a registry may send it on to.
//!
//! Who answers over plain http may be anybody on the way, so plain http is spoken with this machine itself, or with the
//! registry where the operator asked for it, and never by way of a redirect from anywhere else.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use ureq::http::Uri;

/// A server: nothing that was given to one is given to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// Whether the connection is encrypted and the server's name proven.
    pub(super) tls: bool,
    /// Host name or address, as in a URL, in lower case.
    pub(super) host: String,
    /// The port, the scheme's own where none was written.
    pub(super) port: u16,
}

/// A place on a server.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Url {
    /// The server.
    pub(super) origin: Origin,
    /// Path and query. Not to be shown: what a registry redirects to may have a signature in its query.
    pub(super) path: String,
}

/// Why a place is not gone to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    /// Not http or https, or with a user's name in it, or no URL at all.
    #[error("it names a place that is no plain http or https URL")]
    NotAUrl,
    /// Plain http to somewhere where it was not asked for.
    #[error("it leads to {0} over plain http")]
    Plain(String),
}

impl Origin {
    /// The server of `HOST[:PORT]`.
    pub(super) fn new(tls: bool, registry: &str) -> Result<Origin, NoWay> {
        let scheme = if tls { "https" } else { "http" };
        Ok(Url::parse(&format!("{scheme}://{registry}/"))?.origin)
    }

    /// Whether this is the machine itself, by address or by the one name that means it.
    pub(super) fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host == "localhost" && is_local("localhost"),
        }
    }

    /// A place on it.
    pub(super) fn at(&self, path: String) -> Url {
        Url {
            origin: self.clone(),
            path,
        }
    }
}

impl Url {
    /// Takes apart an absolute URL.
    pub(super) fn parse(text: &str) -> Result<Url, NoWay> {
        let uri: Uri = text.parse().map_err(|_| NoWay::NotAUrl)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(NoWay::NotAUrl),
        };
        let authority = uri.authority().ok_or(NoWay::NotAUrl)?;
        // A name and password in a URL would be sent as credentials that nobody here gave.
        if authority.as_str().contains('@') || !is_host(authority.host()) {
            return Err(NoWay::NotAUrl);
        }
        let written = authority.as_str().len() > authority.host().len();
        let port = match authority.port_u16() {
            Some(0) => return Err(NoWay::NotAUrl),
            Some(port) => port,
            None if written => return Err(NoWay::NotAUrl),
            None if tls => 443,
            None => 80,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Url {
            origin: Origin {
                tls,
                host: authority.host().to_ascii_lowercase(),
                port,
            },
            path: path.to_owned(),
        })
    }

    /// Where a `Location` leads from here, if one may go there. `registry` is where the way began.
    pub(super) fn follow(&self, location: &str, registry: &Origin) -> Result<Url, NoWay> {
        let next = if location.starts_with('/') && !location.starts_with("//") {
            self.origin.at(location.to_owned())
        } else {
            Url::parse(location)?
        };
        // Twice, so that a path is held to the same rules as a URL.
        let next = Url::parse(&next.text())?;
        let (from, to) = (&self.origin, &next.origin);
        let asked_for = *to == *registry || (from.is_loopback() && to.is_loopback());
        if to.tls || (!from.tls && asked_for) {
            Ok(next)
        } else {
            Err(NoWay::Plain(to.to_string()))
        }
    }

    /// As it is written in a request.
    pub(super) fn text(&self) -> String {
        let scheme = if self.origin.tls { "https" } else { "http" };
        let Origin { host, port, .. } = &self.origin;
        format!("{scheme}://{host}:{port}{}", self.path)
    }
}

/// Whether it is a name, an IPv4 address or an IPv6 one in brackets. The library that takes URLs apart lets brackets stand
/// anywhere, and then reads its own result differently.
fn is_host(text: &str) -> bool {
    let part_of_name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !text.is_empty() && text.bytes().all(part_of_name),
    }
}

/// Whether a name's addresses are all this machine's: what `localhost` means is the resolver's word, not a law.
fn is_local(name: &str) -> bool {
    let found = (name, 0).to_socket_addrs().map(Iterator::collect);
    let found: Vec<SocketAddr> = found.unwrap_or_default();
    !found.is_empty() && found.iter().all(|address| address.ip().is_loopback())
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => f.write_str(&self.host),
            (_, port) => write!(f, "{}:{port}", self.host),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/…", self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn servers_differ_by_scheme_host_and_port() {
        let one = url("https://A.example/v2/").origin;
        assert_eq!(one, url("https://a.example:443/other").origin);
        for other in [
            "http://a.example:443/",
            "https://a.example:444/",
            "https://b.example/",
        ] {
            assert_ne!(one, url(other).origin, "{other}");
        }
    }

    #[test]
    fn brackets_stand_around_an_address_and_port_0_is_none() {
        assert_eq!(url("https://[::1]:5000/v2/").origin.host, "[::1]");
        for text in [
            "https://a[:1]:0000/a",
            "https://a[::1]:5000/a",
            "https://[::1/a",
            "https://[a.example]/a",
            "https://a.example:0/a",
            "https://a%41.example/a",
        ] {
            assert_eq!(Url::parse(text), Err(NoWay::NotAUrl), "{text}");
        }
    }

    #[test]
    fn this_machine_is_known_by_its_addresses_and_one_name() {
        for here in [
            "127.0.0.1",
            "127.1.2.3:5000",
            "[::1]:5000",
            "localhost",
            "LOCALHOST:1",
        ] {
            assert!(Origin::new(false, here).unwrap().is_loopback(), "{here}");
        }
        for elsewhere in [
            "128.0.0.1",
            "localhost.example",
            "[::2]",
            "127.0.0.1.example",
        ] {
            assert!(
                !Origin::new(false, elsewhere).unwrap().is_loopback(),
                "{elsewhere}"
            );
        }
    }

    #[test]
    fn redirects_never_lead_into_plain_http_elsewhere() {
        let secure = url("https://a.example/v2/x");
        let local = url("http://127.0.0.1:5000/v2/x");
        let asked = url("http://a.example:5000/v2/x");
        let allowed = [
            (&secure, "https://b.example/y?sig=1"),
            (&secure, "/y"),
            (&local, "/y"),
            (&local, "http://127.0.0.1:6000/y"),
            (&local, "https://b.example/y"),
            (&asked, "http://a.example:5000/y"),
            (&asked, "https://b.example/y"),
        ];
        for (from, to) in allowed {
            assert!(from.follow(to, &from.origin).is_ok(), "{from:?} to {to}");
        }
        let refused = [
            (&secure, "http://a.example/y"),
            (&secure, "http://127.0.0.1/y"),
            (&local, "http://b.example/y"),
            (&asked, "http://b.example/y"),
            (&asked, "http://127.0.0.1/y"),
        ];
        for (from, to) in refused {
            let answer = from.follow(to, &from.origin);
            assert!(
                matches!(answer, Err(NoWay::Plain(_))),
                "{from:?} to {to}: {answer:?}"
            );
        }
    }

    #[test]
    fn what_is_no_plain_url_is_not_followed() {
        let from = url("https://a.example/v2/x");
        let wrong = [
            "",
            "y",
            "//b.example/y",
            "ftp://b.example/",
            "file:///etc/shadow",
            "https://user:password@b.example:1/",
            "https://b.example:/",
            "https://b.example:99999/",
            "/y\r\nX: 1",
            "https:///y",
        ];
        for to in wrong {
            assert_eq!(from.follow(to, &from.origin), Err(NoWay::NotAUrl), "{to:?}");
        }
    }
}
