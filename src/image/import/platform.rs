//! The machine that an image is for, in the words of the OCI (Go's).

use crate::image::import::error::{ImportError, shown};
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// `os/architecture` or `os/architecture/variant`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// `linux`, or it can't be run here.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v7`, `v8`; none where that does not matter.
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// This machine.
    pub fn here() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            other => other,
        };
        Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
        }
    }

    /// Whether what is for `other` will do where this is wanted. A variant counts only where both name one.
    pub fn accepts(&self, other: &Platform) -> bool {
        let variants = self.variant.as_ref().zip(other.variant.as_ref());
        (&self.os, &self.architecture) == (&other.os, &other.architecture)
            && variants.is_none_or(|(one, other)| one == other)
    }

    /// As [`Platform::accepts`].
    ///
    /// # Errors
    /// Names both machines and what to do.
    pub fn check(&self, other: &Platform) -> Result<(), ImportError> {
        if other.os != "linux" {
            return Err(ImportError::Refused {
                what: "the image".to_owned(),
                reason: format!(
                    "is for {}; only those for linux can be run",
                    shown(&other.to_string())
                ),
            });
        }
        if self.accepts(other) {
            return Ok(());
        }
        let other = shown(&other.to_string());
        Err(ImportError::Refused {
            what: "the image".to_owned(),
            reason: format!(
                "is for {other}, not for {self}; import it nevertheless with --platform {other}"
            ),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Platform, String> {
        let plain = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [os, architecture, variant @ ..] if variant.len() <= 1 && parts.iter().all(plain) => {
                Ok(Platform {
                    os: (*os).to_owned(),
                    architecture: (*architecture).to_owned(),
                    variant: variant.first().map(|&variant| variant.to_owned()),
                })
            }
            _ => Err(
                "write OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, such as linux/arm64".to_owned(),
            ),
        }
    }
}
