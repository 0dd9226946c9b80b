//! A registry: GET of a path in one repository, with what that takes of authorization and redirects.
//!
//! Credentials and tokens go to the registry itself and to nobody that it redirects to.

use super::challenge::Challenge;
use super::client::{Answer, Client};
use super::credentials::Credentials;
use super::fault::Fault;
use super::origin::{NoWay, Origin, Url};
use super::reference::Reference;
use super::secret::Secret;
use crate::image::progress::Progress;

/// How many redirects lead to one thing.
const MAX_REDIRECTS: usize = 5;

/// A repository of a registry.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) client: Client,
    pub(super) origin: Origin,
    pub(super) repository: String,
    pub(super) credentials: Option<Credentials>,
    /// Value of the `Authorization` header, once the registry has asked for one.
    pass: Option<Secret>,
}

impl Registry {
    /// Finds out how to talk to the registry: TLS, or plain http where that was asked for, or where it is this machine and
    /// talks no TLS.
    pub(super) fn open(
        client: Client,
        reference: &Reference,
        credentials: Option<Credentials>,
        plain_http: bool,
    ) -> Result<Registry, Fault> {
        let secure = origin(true, reference)?;
        let plain = origin(false, reference)?;
        let chosen = if plain_http {
            plain
        } else if secure.is_loopback() {
            let url = secure.at("/v2/".to_owned()).text();
            match client.try_once(&secure, |agent| agent.get(&url).call()) {
                Err(fault) if fault.is_no_tls() => plain,
                other => other.map(|_| secure)?,
            }
        } else {
            secure
        };
        Ok(Registry {
            client,
            origin: chosen,
            repository: reference.repository.clone(),
            credentials,
            pass: None,
        })
    }

    /// Asks for something in the repository: `manifests/…`, `blobs/…`.
    pub(super) fn get(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        progress: &dyn Progress,
    ) -> Result<Answer, Fault> {
        let url = self.origin.at(format!("/v2/{}/{path}", self.repository));
        let mut asked = false;
        loop {
            let answer = self.follow(url.clone(), headers, progress)?;
            let status = answer.response.status().as_u16();
            let host = answer.from.to_string();
            match status {
                200..=299 => return Ok(answer),
                // Once per request: the token may have grown old since the last one.
                401 if answer.from == self.origin && !asked => {
                    asked = true;
                    self.pass = Some(self.authorize(answer, progress)?);
                }
                401 | 403 => {
                    let said = self.client.said(answer);
                    return Err(Fault::Refused { host, said });
                }
                404 => {
                    let said = self.client.said(answer);
                    return Err(Fault::NotFound { host, said });
                }
                status => {
                    let said = self.client.said(answer);
                    return Err(Fault::Status { host, status, said });
                }
            }
        }
    }

    fn follow(
        &self,
        mut url: Url,
        headers: &[(&str, &str)],
        progress: &dyn Progress,
    ) -> Result<Answer, Fault> {
        for _ in 0..=MAX_REDIRECTS {
            let pass = self.pass.as_ref().filter(|_| url.origin == self.origin);
            let answer = self.client.send(&url.origin, progress, |agent| {
                let mut request = agent.get(url.text());
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                if let Some(pass) = pass {
                    request = request.header("authorization", pass.reveal());
                }
                request.call()
            })?;
            if !answer.is_redirect() {
                return Ok(answer);
            }
            let location = answer.header("location").unwrap_or_default();
            url = url
                .follow(location, &self.origin)
                .map_err(|reason| Fault::Redirect {
                    host: answer.from.to_string(),
                    reason,
                })?;
        }
        Err(Fault::Redirects {
            host: url.origin.to_string(),
            most: MAX_REDIRECTS,
        })
    }

    fn authorize(&self, answer: Answer, progress: &dyn Progress) -> Result<Secret, Fault> {
        let host = self.origin.to_string();
        let offers = answer.response.headers().get_all("www-authenticate");
        let offers = offers.iter().filter_map(|offer| offer.to_str().ok());
        match Challenge::choose(offers) {
            None => Err(Fault::Challenge { host }),
            Some(Challenge::Bearer { realm, service }) => {
                self.token(&realm, service.as_deref(), progress)
            }
            Some(Challenge::Basic) => match &self.credentials {
                // The same again would be refused again, and some count that.
                Some(known) if self.pass.is_none() => {
                    known.basic().ok_or(Fault::Challenge { host })
                }
                Some(_) => {
                    let said = self.client.said(answer);
                    Err(Fault::Refused { host, said })
                }
                None => {
                    let said = self.client.said(answer);
                    Err(Fault::NoCredentials { host, said })
                }
            },
        }
    }
}

impl Answer {
    pub(super) fn is_redirect(&self) -> bool {
        matches!(self.response.status().as_u16(), 301 | 302 | 303 | 307 | 308)
    }
}

fn origin(tls: bool, reference: &Reference) -> Result<Origin, Fault> {
    Origin::new(tls, &reference.registry).map_err(|error: NoWay| Fault::Document(error.to_string()))
}
