//! A file of credentials, as Docker, Podman and Skopeo write it: `auths` has an entry per registry, or per beginning of a
//! repository's name in it.

use super::credentials::{Credentials, CredentialsError};
use super::secret::Secret;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// More is no file of credentials.
const MAX_FILE: u64 = 1 << 20;

/// A file of credentials; further keys are other programs' business.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

/// Reads it.
pub(super) fn read(path: &Path) -> Result<AuthFile, CredentialsError> {
    let failed = |source| CredentialsError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let parsed = (bytes.len() as u64 <= MAX_FILE).then(|| serde_json::from_slice(&bytes).ok());
    parsed.flatten().ok_or_else(|| CredentialsError::Format {
        path: path.to_owned(),
        reason: "not a file of registry credentials (JSON with \"auths\")",
    })
}

impl AuthFile {
    /// What it says of a registry and repository.
    pub(super) fn find(
        &self,
        path: &Path,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credentials>, CredentialsError> {
        let helper = |helper: &String| CredentialsError::Helper {
            path: path.to_owned(),
            registry: registry.to_owned(),
            helper: helper.clone(),
        };
        if let Some(name) = self.cred_helpers.get(registry) {
            return Err(helper(name));
        }
        let Some(entry) = self.entry(registry, repository) else {
            return Ok(None);
        };
        let known = entry
            .credentials()
            .map_err(|reason| CredentialsError::Format {
                path: path.to_owned(),
                reason,
            })?;
        match (known, &self.creds_store) {
            // What is kept in a store leaves an empty entry here.
            (None, Some(name)) => Err(helper(name)),
            (known, _) => Ok(known),
        }
    }

    /// The entry for the longest beginning of the repository, else for the registry.
    fn entry(&self, registry: &str, repository: &str) -> Option<&Entry> {
        let mut place = format!("{registry}/{repository}");
        loop {
            let mut entries = self.auths.iter();
            if let Some((_, entry)) = entries.find(|(key, _)| normal(key) == place) {
                return Some(entry);
            }
            place.truncate(place.rfind('/')?);
        }
    }
}

/// Old files have URLs as keys.
fn normal(key: &str) -> &str {
    let key = key.strip_prefix("https://").unwrap_or(key);
    let key = key.strip_prefix("http://").unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").unwrap_or(key);
    key.strip_suffix("/v2").unwrap_or(key)
}

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = filled(&self.identitytoken) {
            return Ok(Some(Credentials::Identity(Secret::new(token))));
        }
        let (username, password) = match filled(&self.auth) {
            Some(auth) => {
                let wrong =
                    "an \"auth\" in it is not base64 of a user name, a colon and a password";
                let pair = BASE64_STANDARD.decode(auth.trim()).map_err(|_| wrong)?;
                let pair = String::from_utf8(pair).map_err(|_| wrong)?;
                // Some tools pad with NUL.
                let (user, password) = pair.trim_end_matches('\0').split_once(':').ok_or(wrong)?;
                (user.to_owned(), password.to_owned())
            }
            None => match (filled(&self.username), filled(&self.password)) {
                (Some(username), Some(password)) => (username, password),
                _ => return Ok(None),
            },
        };
        if username.contains(':') {
            return Err("a user name in it has a colon, which no registry can take");
        }
        Ok(Some(Credentials::Password {
            username,
            password: Secret::new(password),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn find(file: serde_json::Value, repository: &str) -> Result<Option<Credentials>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth.json");
        std::fs::write(&path, file.to_string()).unwrap();
        Credentials::find(Some(&path), "a.example:5000", repository).map_err(|e| e.to_string())
    }

    fn password(username: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password {
            username: username.to_owned(),
            password: Secret::new(password),
        })
    }

    #[test]
    fn every_way_of_writing_an_entry_is_read() {
        let auth = BASE64_STANDARD.encode("u:p:q");
        let entries = [
            (json!({"auth": auth}), password("u", "p:q")),
            (
                json!({"username": "u", "password": "p"}),
                password("u", "p"),
            ),
            (
                json!({"auth": auth, "identitytoken": "t"}),
                Some(Credentials::Identity(Secret::new("t"))),
            ),
            (json!({}), None),
        ];
        for (entry, credentials) in entries {
            for key in [
                "a.example:5000",
                "https://a.example:5000/v1/",
                "a.example:5000/team",
            ] {
                let file = json!({"auths": {key: entry, "b.example": {"auth": "!"}}});
                assert_eq!(
                    find(file, "team/app").unwrap(),
                    credentials,
                    "{key} {entry}"
                );
            }
        }
    }

    #[test]
    fn the_closest_entry_counts_and_another_hosts_never() {
        let user = |name: &str| json!({"username": name, "password": "p"});
        let file = json!({"auths": {
            "a.example": user("port"), "a.example:5000": user("host"), "a.example:5000/team": user("team"),
        }});
        assert_eq!(
            find(file.clone(), "team/app").unwrap(),
            password("team", "p")
        );
        assert_eq!(
            find(file.clone(), "teams/app").unwrap(),
            password("host", "p")
        );
        let file = json!({"auths": {"a.example": user("port"), "b.a.example:5000": user("b")}});
        assert_eq!(find(file, "team/app").unwrap(), None);
    }

    #[test]
    fn helpers_are_named_and_not_run() {
        let files = [
            json!({"credHelpers": {"a.example:5000": "vault"}}),
            json!({"credsStore": "vault", "auths": {"a.example:5000": {}}}),
        ];
        for file in files {
            let error = find(file, "app").unwrap_err();
            assert!(
                error.contains("\"vault\"") && error.contains("--auth-file"),
                "{error}"
            );
        }
        let elsewhere = json!({"credsStore": "vault", "credHelpers": {"b.example": "x"}});
        assert_eq!(find(elsewhere, "app").unwrap(), None);
    }

    #[test]
    fn no_error_and_no_debug_output_quotes_a_secret() {
        let secret = "hunter2";
        let wrong = [
            json!({"auths": {"a.example:5000": {"auth": secret}}}),
            json!({"auths": {"a.example:5000": {"password": [secret]}}}),
            json!({"auths": secret}),
        ];
        for file in wrong {
            let error = find(file, "app").unwrap_err();
            assert!(!error.contains(secret), "{error}");
        }
        assert!(!format!("{:?}", password("u", secret)).contains(secret));
    }
}
