//! What a client asks a new runtime to be, and the checks that make it valid. Impossible sizes are refused here, before
//! anything exists.

use super::defaults::Profiles;
use super::env::check_variables;
use super::error::Invalid;
use super::model::Settings;
use super::name;
use super::policy::{Egress, IdlePolicy, TokenSaving};
use super::sizes::HostSizes;
use crate::profile::Limit;
use crate::warden::protocol::Filesystem;
use serde::Serialize;
use std::collections::BTreeMap;

/// A create request, its types checked and nothing else. Absent and null are both none; the flat words of old clients
/// stand beside the nested ones, which win. It is serialized only to tell whether two requests are the same.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct CreateRequest {
    /// `name`.
    pub name: Option<String>,
    /// `resources.requests.memory_mib`.
    pub request_memory_mib: Option<u64>,
    /// `resources.requests.vcpus`.
    pub request_vcpus: Option<u64>,
    /// `resources.limits.memory_mib`.
    pub limit_memory_mib: Option<u64>,
    /// `vcpus`.
    pub vcpus: Option<u64>,
    /// `cur_memory_mib`.
    pub cur_memory_mib: Option<u64>,
    /// `min_memory_mib`; 0 is none.
    pub min_memory_mib: Option<u64>,
    /// `max_memory_mib`; 0 is none.
    pub max_memory_mib: Option<u64>,
    /// `idle_suspend_after_secs`.
    pub idle_suspend_after_secs: Option<u64>,
    /// `arch`.
    pub arch: Option<String>,
    /// `environment_variables`.
    pub environment_variables: BTreeMap<String, String>,
    /// `egress_policy`.
    pub egress: Option<Egress>,
    /// `idle_policy`.
    pub idle_policy: Option<IdlePolicy>,
    /// `llm_tool_io_capture_enabled`.
    pub llm_tool_io_capture_enabled: bool,
    /// `llm_token_saving_policy`.
    pub llm_token_saving_policy: TokenSaving,
    /// `image`.
    pub image: Option<String>,
    /// `profile`.
    pub profile: Option<String>,
    /// `filesystem`.
    pub filesystem: Option<String>,
    /// `network`.
    pub network: Option<String>,
    /// `limits.pids`.
    pub pids: Option<u64>,
    /// `limits.disk_mib`.
    pub disk_mib: Option<u64>,
}

/// A request that can be carried out, as far as can be told without trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidCreate {
    /// The name, where the client chose one.
    pub name: Option<String>,
    /// All the rest, defaults filled in.
    pub settings: Settings,
}

/// The CPU architecture in the API's words, which are Rust's.
pub const ARCH: &str = std::env::consts::ARCH;

impl CreateRequest {
    /// Checks everything and fills in the defaults.
    pub fn validate(self, profiles: &Profiles, host: &HostSizes) -> Result<ValidCreate, Invalid> {
        if let Some(name) = &self.name {
            name::check(name)?;
        }
        check_variables("environment_variables", &self.environment_variables)?;
        self.check_words()?;

        let profile_name = self.profile.clone().unwrap_or_else(|| "default".into());
        let profile = profiles
            .get(&profile_name)
            .ok_or_else(|| Invalid::one_of("profile", profiles.names()))?;
        let image = self.image.clone().unwrap_or_else(|| "host".into());
        if image.is_empty()
            || image.len() > 128
            || image.contains(|c: char| c.is_control() || c == '/')
        {
            return Err(Invalid::new("image", "must be the name of an image"));
        }
        let (request_memory_mib, limit_memory_mib, min_memory_mib) =
            self.memory(host, profile.memory_mib)?;
        let vcpus = match (self.request_vcpus, self.vcpus) {
            (Some(vcpus), _) => host.vcpus("resources.requests.vcpus", vcpus)?,
            (None, Some(vcpus)) => host.vcpus("vcpus", vcpus)?,
            (None, None) => 1,
        };

        Ok(ValidCreate {
            settings: Settings {
                request_memory_mib,
                limit_memory_mib,
                min_memory_mib,
                vcpus,
                pids: host.pids(
                    "limits.pids",
                    self.pids.unwrap_or(profile.pids.default),
                    profile.pids,
                )?,
                disk_mib: host.disk(
                    "limits.disk_mib",
                    self.disk_mib.unwrap_or(profile.disk_mib.default),
                    profile.disk_mib,
                )?,
                image,
                profile: profile_name,
                filesystem: filesystem(self.filesystem.as_deref())?,
                environment_variables: self.environment_variables,
                egress: self.egress.unwrap_or_default(),
                idle_policy: self
                    .idle_policy
                    .unwrap_or(match self.idle_suspend_after_secs {
                        Some(suspend_after_secs) => {
                            IdlePolicy::SuspendAndWakeup { suspend_after_secs }
                        }
                        None => IdlePolicy::Disabled,
                    }),
                llm_tool_io_capture_enabled: self.llm_tool_io_capture_enabled,
                llm_token_saving_policy: self.llm_token_saving_policy,
            },
            name: self.name,
        })
    }

    fn check_words(&self) -> Result<(), Invalid> {
        if self
            .network
            .as_deref()
            .is_some_and(|network| network != "none")
        {
            return Err(Invalid::one_of("network", ["none"]));
        }
        let arch = self.arch.as_deref().map(|arch| match arch {
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            other => other,
        });
        if arch.is_some_and(|arch| !arch.is_empty() && arch != ARCH) {
            return Err(Invalid::one_of("arch", [ARCH]));
        }
        Ok(())
    }

    /// Memory asked for, enforced, and the least, in MiB.
    fn memory(&self, host: &HostSizes, profile: Limit) -> Result<(u64, u64, u64), Invalid> {
        let flat_limit = self.max_memory_mib.filter(|mib| *mib != 0);
        let (limit_field, limit) = match self.limit_memory_mib {
            Some(mib) => ("resources.limits.memory_mib", Some(mib)),
            None => ("max_memory_mib", flat_limit),
        };
        let (request_field, request) = match (self.request_memory_mib, self.cur_memory_mib) {
            (None, Some(mib)) => ("cur_memory_mib", Some(mib)),
            (mib, _) => ("resources.requests.memory_mib", mib),
        };
        let limit = limit
            .map(|limit| host.memory(limit_field, limit, profile))
            .transpose()?;
        // Where only a limit is named, asking for the default would often be asking for more than that.
        let request = request
            .unwrap_or_else(|| limit.map_or(profile.default, |limit| limit.min(profile.default)));
        let request = host.memory(request_field, request, profile)?;
        let limit = limit.unwrap_or(request);
        if limit < request {
            let problem =
                format!("is {limit}, but must not be less than the {request} MiB requested");
            return Err(Invalid::new(limit_field, problem));
        }
        let least = match self.min_memory_mib.filter(|mib| *mib != 0) {
            Some(least) if least > limit => {
                let problem =
                    format!("is {least}, but must not be more than the limit of {limit} MiB");
                return Err(Invalid::new("min_memory_mib", problem));
            }
            least => least.unwrap_or(request),
        };
        Ok((request, limit, least))
    }
}

fn filesystem(word: Option<&str>) -> Result<Filesystem, Invalid> {
    match word {
        None | Some("persistent") => Ok(Filesystem::Persistent),
        Some("ephemeral") => Ok(Filesystem::Ephemeral),
        Some("read_only") => Ok(Filesystem::ReadOnly),
        Some(_) => Err(Invalid::one_of(
            "filesystem",
            ["persistent", "ephemeral", "read_only"],
        )),
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
