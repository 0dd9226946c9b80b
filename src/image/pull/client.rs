//! One request after another over HTTP: bounded waits, a few tries where the server is only busy, no redirect followed and
//! nothing sent that the caller did not ask for.

use super::fault::Fault;
use super::origin::Origin;
use super::said::Said;
use crate::image::progress::Progress;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::http::Response;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

/// How often a request is sent to a server that is busy or whose connections break.
const TRIES: u32 = 4;

/// Before the second try; doubled for each further one.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Nobody waits longer on a server's word.
const LONGEST_WAIT: u64 = 60;

/// A document takes no longer than this many times the patience, however steadily it trickles.
const DOCUMENT_PATIENCE: u32 = 4;

/// How much of an error's body is looked at.
const MAX_SAID_BODY: u64 = 8 << 10;

/// Sends requests.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    /// The longest silence.
    pub(super) patience: Duration,
}

/// What a server answered, and which it was.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    pub(super) from: Origin,
}

impl Client {
    /// A client that trusts the machine's certificate authorities, or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    pub(super) fn new(patience: Duration) -> Client {
        let roots = rustls_native_certs::load_native_certs().certs;
        let roots = roots
            .into_iter()
            .map(|root| Certificate::from_der(&root).to_owned());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots.collect())))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("cellblock/", env!("CARGO_PKG_VERSION")))
            // Each silence is bounded, and those who trickle a handshake or a header are, but not the whole: an image may
            // take hours on a slow line, and a registry that has said nothing for half a minute never will.
            .timeout_resolve(Some(patience))
            .timeout_connect(Some(patience))
            .timeout_send_request(Some(patience))
            .timeout_recv_response(Some(patience))
            .timeout_per_read(Some(patience))
            .build();
        Client {
            agent: Agent::new_with_config(config),
            patience,
        }
    }

    /// Sends a request once.
    pub(super) fn try_once(
        &self,
        to: &Origin,
        request: impl Fn(&Agent) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Answer, Fault> {
        match request(&self.agent) {
            Ok(response) => Ok(Answer {
                response,
                from: to.clone(),
            }),
            Err(error) => Err(self.fault(error, to)),
        }
    }

    /// Sends a request until there is an answer that further tries would not change.
    pub(super) fn send(
        &self,
        to: &Origin,
        progress: &dyn Progress,
        request: impl Fn(&Agent) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Answer, Fault> {
        for tries in 1.. {
            let (wait, why) = match self.try_once(to, &request) {
                Ok(answer) => {
                    let status = answer.response.status().as_u16();
                    if !matches!(status, 429 | 500 | 502 | 503 | 504) {
                        return Ok(answer);
                    }
                    let asked = answer.retry_after();
                    let (host, said) = (to.to_string(), self.said(answer));
                    match asked {
                        Some(seconds) if seconds > LONGEST_WAIT => {
                            return Err(Fault::Later {
                                host,
                                status,
                                said,
                                seconds,
                            });
                        }
                        _ if tries == TRIES => {
                            return Err(Fault::Busy {
                                host,
                                status,
                                said,
                                tries,
                            });
                        }
                        _ => {}
                    }
                    let wait = asked.map(Duration::from_secs);
                    (wait, format!("{host} answers {status}"))
                }
                Err(fault) if fault.is_passing() && tries < TRIES => (None, fault.to_string()),
                Err(fault) => return Err(fault),
            };
            self.pause(wait, tries, &why, progress);
        }
        unreachable!("the last try returns")
    }

    /// Waits before the next of several tries.
    pub(super) fn pause(
        &self,
        asked: Option<Duration>,
        tries: u32,
        why: &str,
        progress: &dyn Progress,
    ) {
        let wait = asked.unwrap_or(FIRST_WAIT * 2_u32.pow(tries.saturating_sub(1).min(6)));
        progress.note(&format!("{why}; next try in {} s", wait.as_secs_f32()));
        std::thread::sleep(wait);
    }

    /// The whole body of an answer that is no longer than a document can be.
    pub(super) fn document(&self, answer: Answer, most: u64) -> Result<Vec<u8>, Fault> {
        let host = answer.from.to_string();
        let announced = answer.response.body().content_length();
        if announced.is_some_and(|length| length > most) {
            return Err(Fault::TooLong { host, most });
        }
        let time = self.patience * DOCUMENT_PATIENCE;
        let deadline = Instant::now() + time;
        let mut reader = answer.response.into_body().into_reader();
        let (mut bytes, mut piece) = (Vec::new(), [0; 16 << 10]);
        loop {
            let read = reader.read(&mut piece);
            let count = read.map_err(|error| self.fault(error.into(), &answer.from))?;
            if count == 0 {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&piece[..count]);
            if bytes.len() as u64 > most {
                return Err(Fault::TooLong { host, most });
            }
            if Instant::now() > deadline {
                return Err(Fault::Slow { host, time });
            }
        }
    }

    /// What the server says of an error, as far as it does so at once.
    pub(super) fn said(&self, answer: Answer) -> Said {
        let body = answer.response.into_body().into_reader();
        let (mut bytes, mut piece) = (Vec::new(), [0; 1 << 10]);
        let deadline = Instant::now() + self.patience.min(Duration::from_secs(2));
        let mut body = body.take(MAX_SAID_BODY);
        while let Ok(count @ 1..) = body.read(&mut piece) {
            bytes.extend_from_slice(&piece[..count]);
            if Instant::now() > deadline {
                break;
            }
        }
        Said::of(&bytes)
    }

    /// What a failed exchange means.
    pub(super) fn fault(&self, error: ureq::Error, from: &Origin) -> Fault {
        Fault::of(error, &from.to_string(), self.patience)
    }
}

impl Answer {
    /// A header's value, if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// How long the server wants to be left alone. A date in its place is not read: then the wait is our own.
    fn retry_after(&self) -> Option<u64> {
        self.header("retry-after")?.trim().parse().ok()
    }
}
