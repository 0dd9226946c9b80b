//! What a registry can do wrong, in the operator's words, and which of it is worth another try.

use super::origin::NoWay;
use super::said::Said;
use crate::image::digest::Digest;
use std::io;
use std::time::Duration;
use ureq::Error;

/// Why one thing could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No connection.
    #[error("{host} can't be reached")]
    Unreachable {
        /// The server.
        host: String,
        /// The resolver's or the kernel's answer.
        #[source]
        source: Error,
    },
    /// Longer silence than we bear.
    #[error("{host} has sent nothing for {} s", .patience.as_secs_f32())]
    Silent {
        /// The server.
        host: String,
        /// For how long.
        patience: Duration,
    },
    /// Less data than can be called progress.
    #[error("{host} sends less than {least} bytes in {} s", .patience.as_secs_f32())]
    Trickle {
        /// The server.
        host: String,
        /// What would have been enough.
        least: u64,
        /// In which time.
        patience: Duration,
    },
    /// A small document that does not end.
    #[error("{host} takes longer than {} s for it", .time.as_secs_f32())]
    Slow {
        /// The server.
        host: String,
        /// What it had.
        time: Duration,
    },
    /// The connection ended too early, and did so again.
    #[error("the connection to {host} broke")]
    Broken {
        /// The server.
        host: String,
        /// How it showed.
        #[source]
        source: Error,
    },
    /// It can't be known who is at the other end.
    #[error(
        "no trusted connection to {host} (further certificate authorities can be named by SSL_CERT_FILE)"
    )]
    Untrusted {
        /// The server.
        host: String,
        /// What is wrong.
        #[source]
        source: Error,
    },
    /// What came is no HTTP, or not of the kind that is understood.
    #[error("{host} does not answer as a registry does")]
    Protocol {
        /// The server.
        host: String,
        /// What is wrong.
        #[source]
        source: Error,
    },
    /// It is overloaded or broken, and was so each time.
    #[error("{host} answers {status}{said}; tried {tries} times, try again later")]
    Busy {
        /// The server.
        host: String,
        /// The HTTP status.
        status: u16,
        /// Its own words.
        said: Said,
        /// How often.
        tries: u32,
    },
    /// It wants to be left alone for longer than somebody would wait.
    #[error("{host} answers {status}{said} and asks to come back in {seconds} s")]
    Later {
        /// The server.
        host: String,
        /// The HTTP status.
        status: u16,
        /// Its own words.
        said: Said,
        /// When.
        seconds: u64,
    },
    /// There is no such thing.
    #[error("not found at {host}{said}")]
    NotFound {
        /// The server.
        host: String,
        /// Its own words.
        said: Said,
    },
    /// Credentials are wanted and none are there.
    #[error("{host} wants credentials; none are known for it{said}")]
    NoCredentials {
        /// The server.
        host: String,
        /// Its own words.
        said: Said,
    },
    /// The credentials, or nobody's, are not enough.
    #[error("{host} refuses access{said}")]
    Refused {
        /// The server.
        host: String,
        /// Its own words.
        said: Said,
    },
    /// It asks for credentials in no way that is known.
    #[error(
        "{host} wants credentials in a way that is not known here (known are Basic and Bearer)"
    )]
    Challenge {
        /// The server.
        host: String,
    },
    /// The token service is not to be trusted with credentials.
    #[error("the token service that {host} names is not asked: {reason}")]
    TokenService {
        /// The registry.
        host: String,
        /// Why not.
        reason: String,
    },
    /// Another status.
    #[error("{host} answers {status}{said}")]
    Status {
        /// The server.
        host: String,
        /// The HTTP status.
        status: u16,
        /// Its own words.
        said: Said,
    },
    /// A redirect that is not followed.
    #[error("a redirect of {host} is not followed: {reason}")]
    Redirect {
        /// Who redirected.
        host: String,
        /// Why not.
        #[source]
        reason: NoWay,
    },
    /// Redirect upon redirect.
    #[error("{host} redirects more than {most} times")]
    Redirects {
        /// Who redirected last.
        host: String,
        /// How many are followed.
        most: usize,
    },
    /// Another number of bytes than promised.
    #[error("{promised} bytes were promised; {host} sends {sent}")]
    Size {
        /// The server.
        host: String,
        /// By the manifest.
        promised: u64,
        /// What came, or was announced.
        sent: String,
    },
    /// Other bytes than promised.
    #[error("{host} sends other content than promised: {got}")]
    Digest {
        /// The server.
        host: String,
        /// What came.
        got: Digest,
    },
    /// More than a document of this kind can be.
    #[error("{host} sends more than {most} bytes")]
    TooLong {
        /// The server.
        host: String,
        /// The bound.
        most: u64,
    },
    /// A document that makes no sense.
    #[error("{0}")]
    Document(String),
    /// It can't be kept.
    #[error("write {path}")]
    Write {
        /// Where.
        path: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl Fault {
    /// What a failed exchange with a server means.
    pub(super) fn of(error: Error, host: &str, patience: Duration) -> Fault {
        let host = host.to_owned();
        match error {
            Error::Timeout(_) => Fault::Silent { host, patience },
            Error::Rustls(_) | Error::Tls(_) => Fault::Untrusted {
                host,
                source: error,
            },
            Error::Io(ref io) if tls(io).is_some() => Fault::Untrusted {
                host,
                source: error,
            },
            Error::Io(ref io) if is_break(io.kind()) => Fault::Broken {
                host,
                source: error,
            },
            Error::Io(_) | Error::HostNotFound | Error::ConnectionFailed => Fault::Unreachable {
                host,
                source: error,
            },
            _ => Fault::Protocol {
                host,
                source: error,
            },
        }
    }

    /// Whether the same request may fare better.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Fault::Broken { .. })
    }

    /// Whether the other end talks, but no TLS. A certificate that can't be trusted is not that.
    pub(super) fn is_no_tls(&self) -> bool {
        match self {
            Fault::Untrusted {
                source: Error::Io(io),
                ..
            } => matches!(tls(io), Some(rustls::Error::InvalidMessage(_))),
            Fault::Broken { .. } => true,
            _ => false,
        }
    }
}

fn tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn is_break(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        kind,
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}
