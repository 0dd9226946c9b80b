//! `cellblock image pull`: what was typed → what the pull is told.

use super::ImportArgs;
use crate::image::import::{Imported, Request};
use crate::image::pull::{self, Manners, PATIENCE, PullError, Reference};
use clap::Args;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

/// What a pull is told.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// HOST[:PORT]/REPOSITORY, with :TAG or @DIGEST after it [default tag: latest]
    #[arg(value_name = "REFERENCE")]
    pub reference: Reference,
    /// Name of the image [default: the repository's last part, and the tag unless that is latest]
    #[arg(long)]
    pub name: Option<String>,
    /// File of credentials, as Docker and Podman write it [default: $REGISTRY_AUTH_FILE, else ~/.docker/config.json]
    ///
    /// Without it CELLBLOCK_REGISTRY_USERNAME and CELLBLOCK_REGISTRY_PASSWORD win over the default files.
    #[arg(long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// Talk plain http, unencrypted, with a registry that is not this machine; it will be sent credentials so, too
    #[arg(long)]
    pub plain_http: bool,
    /// Seconds for which the registry may send nothing
    #[arg(long, value_name = "SECONDS", default_value_t = NonZeroU64::new(PATIENCE.as_secs()).expect("not zero"))]
    pub timeout: NonZeroU64,
    /// What every import is told.
    #[command(flatten)]
    pub how: ImportArgs,
}

impl PullArgs {
    /// The name that the image gets.
    pub fn name(&self) -> String {
        let default = || self.reference.default_name();
        self.name.clone().unwrap_or_else(default)
    }

    /// Pulls it.
    pub fn pull(&self, request: &Request<'_>) -> Result<Imported, PullError> {
        let manners = Manners {
            auth_file: self.auth_file.as_deref(),
            plain_http: self.plain_http,
            patience: Duration::from_secs(self.timeout.get()),
        };
        pull::pull(&self.reference, &manners, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        pull: PullArgs,
    }

    #[test]
    fn a_name_is_given_or_follows_from_the_reference() {
        let typed = |args: &[&str]| Typed::try_parse_from([&["pull"], args].concat());
        let pull = typed(&["a.example/team/app:1"]).unwrap().pull;
        assert_eq!((pull.name().as_str(), pull.timeout.get()), ("app-1", 30));
        let pull = typed(&["a.example/app", "--name", "mine", "--timeout", "5"])
            .unwrap()
            .pull;
        assert_eq!((pull.name().as_str(), pull.timeout.get()), ("mine", 5));
        for wrong in [&["app"][..], &["a.example/app", "--timeout", "0"]] {
            assert!(typed(wrong).is_err(), "{wrong:?}");
        }
    }
}
