//! What a client asks a runtime to be, new or changed, and the checks that make it valid. Impossible sizes are refused
//! here, before anything exists.

use super::defaults::{Profile, Profiles};
use super::env::check_variables;
use super::error::Invalid;
use super::memory::memory;
use super::name;
use super::policy::{Agent, Egress, IdlePolicy, Ingress, TokenSaving, TokenSavingPatch};
use super::settings::Settings;
use super::sizes::HostSizes;
use crate::warden::protocol::Filesystem;
use serde::Serialize;
use std::collections::BTreeMap;

/// A create or patch request, its types checked and nothing else. Absent and null are both none; the flat words of old
/// clients stand beside the nested ones, which win. It is serialized only to tell whether two requests are the same.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct CreateRequest {
    /// `name`, or the patch body's `display_name`.
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
    /// `environment_variables`, all of them.
    pub environment_variables: Option<BTreeMap<String, String>>,
    /// `egress_policy`.
    pub egress: Option<Egress>,
    /// `ingress_specs`, all of them.
    pub ingress: Option<Vec<Ingress>>,
    /// `idle_policy`.
    pub idle_policy: Option<IdlePolicy>,
    /// `llm_tool_io_capture_enabled`.
    pub llm_tool_io_capture_enabled: Option<bool>,
    /// `llm_token_saving_policy`.
    pub llm_token_saving_policy: TokenSavingPatch,
    /// `runtime_agent` and what belongs to it.
    pub agent: Agent,
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
    /// `checkpoint_id`.
    pub checkpoint_id: Option<String>,
}

/// What a request starts from: what it leaves out is as it is there.
#[derive(Debug, Clone, Copy)]
pub enum Base<'a> {
    /// A new runtime: the profile's defaults.
    Nothing,
    /// A new runtime whose disk is a checkpoint's.
    Checkpoint(&'a Settings),
    /// A runtime that there is.
    Runtime(&'a Settings),
}

impl<'a> Base<'a> {
    pub(super) fn settings(self) -> Option<&'a Settings> {
        match self {
            Self::Nothing => None,
            Self::Checkpoint(settings) | Self::Runtime(settings) => Some(settings),
        }
    }

    /// Checks a word that what is on the disk depends on.
    fn same(self, field: &str, wanted: Option<&str>, found: &str) -> Result<(), Invalid> {
        let why = match self {
            Self::Checkpoint(_) => "as in the checkpoint",
            _ => "which can't be changed",
        };
        match wanted {
            Some(wanted) if wanted != found => {
                Err(Invalid::new(field, format!("must be `{found}`, {why}")))
            }
            _ => Ok(()),
        }
    }
}

/// A request that can be carried out, as far as can be told without trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Valid {
    /// The name, where the client chose one.
    pub name: Option<String>,
    /// All the rest, filled in.
    pub settings: Settings,
}

/// The CPU architecture in the API's words, which are Rust's.
pub const ARCH: &str = std::env::consts::ARCH;

const DEFAULT_PROFILE: &str = "default";
const DEFAULT_IMAGE: &str = "host";

impl CreateRequest {
    /// Checks everything and fills in what is left out.
    pub fn validate(
        self,
        profiles: &Profiles,
        host: &HostSizes,
        base: Base<'_>,
    ) -> Result<Valid, Invalid> {
        if let Some(name) = &self.name {
            name::check(name)?;
        }
        if let Some(variables) = &self.environment_variables {
            check_variables("environment_variables", variables)?;
        }
        self.check_words()?;

        let before = base.settings();
        let filesystem = match before {
            Some(before) => {
                base.same("profile", self.profile.as_deref(), &before.profile)?;
                base.same("image", self.image.as_deref(), &before.image)?;
                let found = before.filesystem.as_str();
                base.same("filesystem", self.filesystem.as_deref(), found)?;
                before.filesystem
            }
            None => filesystem(self.filesystem.as_deref())?,
        };
        let word = |ours: &Option<String>, theirs: fn(&Settings) -> &String, default: &str| {
            ours.clone()
                .or_else(|| before.map(theirs).cloned())
                .unwrap_or_else(|| default.to_owned())
        };
        let image = word(&self.image, |before| &before.image, DEFAULT_IMAGE);
        check_image(&image)?;
        let profile_name = word(&self.profile, |before| &before.profile, DEFAULT_PROFILE);
        let profile = profiles
            .get(&profile_name)
            .ok_or_else(|| Invalid::one_of("profile", profiles.names()))?;

        let memory = memory(&self, base, host, profile.memory_mib)?;
        let idle_policy = self.idle_policy.or(self
            .idle_suspend_after_secs
            .map(|suspend_after_secs| IdlePolicy::SuspendAndWakeup { suspend_after_secs }));
        let agent = match before {
            Some(before) if self.agent == Agent::default() => before.agent.clone(),
            _ => self.agent.clone(),
        };
        Ok(Valid {
            settings: Settings {
                request_memory_mib: memory.request,
                limit_memory_mib: memory.limit,
                limit_memory_named: memory.limit_named,
                min_memory_mib: memory.least,
                vcpus: self.vcpus(host, base)?,
                pids: self.pids(host, base, profile)?,
                disk_mib: self.disk(host, base, profile)?,
                image,
                image_id: before.and_then(|before| before.image_id),
                image_config: before
                    .map(|before| before.image_config.clone())
                    .unwrap_or_default(),
                profile: profile_name,
                filesystem,
                environment_variables: self
                    .environment_variables
                    .or_else(|| before.map(|before| before.environment_variables.clone()))
                    .unwrap_or_default(),
                egress: self
                    .egress
                    .or_else(|| before.map(|before| before.egress.clone()))
                    .unwrap_or_default(),
                ingress: self
                    .ingress
                    .or_else(|| before.map(|before| before.ingress.clone()))
                    .unwrap_or_default(),
                idle_policy: idle_policy
                    .or(before.map(|before| before.idle_policy))
                    .unwrap_or_default(),
                llm_tool_io_capture_enabled: self
                    .llm_tool_io_capture_enabled
                    .or(before.map(|before| before.llm_tool_io_capture_enabled))
                    .unwrap_or(false),
                llm_token_saving_policy: before
                    .map_or_else(TokenSaving::default, |before| {
                        before.llm_token_saving_policy
                    })
                    .with(self.llm_token_saving_policy),
                agent,
            },
            name: self.name,
        })
    }

    fn vcpus(&self, host: &HostSizes, base: Base<'_>) -> Result<u32, Invalid> {
        match (self.request_vcpus, self.vcpus, base) {
            (Some(vcpus), ..) => host.vcpus("resources.requests.vcpus", vcpus),
            (None, Some(vcpus), _) => host.vcpus("vcpus", vcpus),
            (None, None, Base::Nothing) => Ok(1),
            (None, None, Base::Checkpoint(before)) => host.vcpus("vcpus", before.vcpus.into()),
            (None, None, Base::Runtime(before)) => Ok(before.vcpus),
        }
    }

    fn pids(&self, host: &HostSizes, base: Base<'_>, profile: &Profile) -> Result<u64, Invalid> {
        let pids = match (self.pids, base) {
            (Some(pids), _) => pids,
            (None, Base::Nothing) => profile.pids.default,
            (None, Base::Checkpoint(before)) => before.pids,
            (None, Base::Runtime(before)) => return Ok(before.pids),
        };
        host.pids("limits.pids", pids, profile.pids)
    }

    fn disk(&self, host: &HostSizes, base: Base<'_>, profile: &Profile) -> Result<u64, Invalid> {
        const FIELD: &str = "limits.disk_mib";
        let disk = match (self.disk_mib, base) {
            (Some(disk), Base::Runtime(before)) if disk != before.disk_mib => {
                let problem = format!(
                    "is {disk}, but the size of a disk, here {}, can't be changed: restore a \
                     checkpoint to a larger one",
                    before.disk_mib
                );
                return Err(Invalid::new(FIELD, problem));
            }
            (_, Base::Runtime(before)) => return Ok(before.disk_mib),
            (Some(disk), Base::Checkpoint(before)) if disk < before.disk_mib => {
                let problem = format!(
                    "is {disk}, but must not be less than the {} MiB of the checkpoint",
                    before.disk_mib
                );
                return Err(Invalid::new(FIELD, problem));
            }
            (Some(disk), _) => disk,
            (None, Base::Checkpoint(before)) => before.disk_mib,
            (None, Base::Nothing) => profile.disk_mib.default,
        };
        host.disk(FIELD, disk, profile.disk_mib)
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
}

/// Names are the warden's to look up; here only what can be none is refused.
fn check_image(name: &str) -> Result<(), Invalid> {
    // Which names there are, and can be, the warden knows; here only that the question fits its message.
    if name.is_empty() || name.len() > 128 {
        return Err(Invalid::new("image", "must be the name of an image"));
    }
    Ok(())
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
