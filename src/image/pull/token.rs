//! A token for one repository, from the service that the registry names.

use super::client::Answer;
use super::credentials::Credentials;
use super::fault::Fault;
use super::origin::Url;
use super::registry::Registry;
use super::secret::Secret;
use crate::image::progress::Progress;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

/// A token and what is said of it.
const MAX_ANSWER: u64 = 1 << 20;

/// More fits into no header.
const MAX_TOKEN: usize = 32 << 10;

/// All but what a query may hold as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[derive(Deserialize)]
struct Granted {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

impl Registry {
    /// Asks for a token: as somebody, if we have credentials for the registry. They are sent to a token service over
    /// TLS only, and a redirect of the service is not followed.
    ///
    /// The scope is our own word, not the registry's: else it could have a token made out that opens other repositories
    /// of the service's, and keep it.
    pub(super) fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<Secret, Fault> {
        let host = self.origin.to_string();
        let refused = |reason: &str| Fault::TokenService {
            host: host.clone(),
            reason: reason.to_owned(),
        };
        let realm = Url::parse(realm).map_err(|error| refused(&error.to_string()))?;
        if !realm.origin.tls {
            if self.credentials.is_some() {
                return Err(refused(
                    "it talks plain http, over which no credentials are sent",
                ));
            }
            let known = realm.origin.host == self.origin.host;
            let local = self.origin.is_loopback() && realm.origin.is_loopback();
            if self.origin.tls || !(known || local) {
                return Err(refused("it talks plain http"));
            }
        }
        let mut form = vec![("scope", format!("repository:{}:pull", self.repository))];
        form.extend(service.map(|service| ("service", service.to_owned())));
        let answer = match &self.credentials {
            Some(Credentials::Identity(token)) => {
                form.push(("grant_type", "refresh_token".to_owned()));
                form.push(("client_id", "cellblock".to_owned()));
                form.push(("refresh_token", token.reveal().to_owned()));
                let url = realm.text();
                self.client.send(&realm.origin, progress, |agent| {
                    let request = agent.post(&url);
                    let request = request.content_type("application/x-www-form-urlencoded");
                    request.send(encode(&form))
                })?
            }
            other => {
                let between = if realm.path.contains('?') { '&' } else { '?' };
                let url = format!("{}{between}{}", realm.text(), encode(&form));
                let pass = other.as_ref().and_then(Credentials::basic);
                self.client.send(&realm.origin, progress, |agent| {
                    let mut request = agent.get(&url);
                    if let Some(pass) = &pass {
                        request = request.header("authorization", pass.reveal());
                    }
                    request.call()
                })?
            }
        };
        self.granted(answer)
    }

    fn granted(&self, answer: Answer) -> Result<Secret, Fault> {
        let host = answer.from.to_string();
        let status = answer.response.status().as_u16();
        if status != 200 {
            let said = self.client.said(answer);
            return Err(match status {
                401 | 403 if self.credentials.is_none() => Fault::NoCredentials { host, said },
                401 | 403 => Fault::Refused { host, said },
                status => Fault::Status { host, status, said },
            });
        }
        let body = self.client.document(answer, MAX_ANSWER)?;
        let granted: Option<Granted> = serde_json::from_slice(&body).ok();
        let token = granted.and_then(|granted| granted.token.or(granted.access_token));
        // Whatever else it is, it becomes a header.
        let fits = |token: &String| {
            !token.is_empty()
                && token.len() <= MAX_TOKEN
                && token.bytes().all(|b| b.is_ascii_graphic())
        };
        match token.filter(fits) {
            Some(token) => Ok(Secret::new(format!("Bearer {token}"))),
            None => Err(Fault::Document(format!("{host} answers with no token"))),
        }
    }
}

fn encode(form: &[(&str, String)]) -> String {
    let pairs = form
        .iter()
        .map(|(key, value)| format!("{key}={}", utf8_percent_encode(value, QUERY)));
    pairs.collect::<Vec<_>>().join("&")
}
