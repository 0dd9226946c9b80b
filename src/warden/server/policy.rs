//! Profiles as the warden uses them: compiled once, at its start.

use crate::cell::Sandbox;
use crate::cell::identity::Ids;
use crate::cell::payload::CALLS_AFTER_ORDER;
use crate::landlock::Abi;
use crate::profile::{Limits, Profile, ProfileError, ProfileSet, Tcp};
use crate::resources::MIB;
use std::collections::HashMap;

/// A profile, compiled.
#[derive(Debug)]
pub struct Policy {
    /// What a cell is built with.
    pub sandbox: Sandbox,
    /// Who a command is where the image does not say.
    pub ids: Ids,
    /// Bounds that hold whatever the api process says.
    pub limits: Limits,
}

/// Compiles all profiles, so that a broken one stops the start and not an exec. `landlock` is what the kernel has of that.
pub fn compile_all(
    profiles: &ProfileSet,
    landlock: Abi,
) -> Result<HashMap<String, Policy>, ProfileError> {
    profiles
        .iter()
        .map(|p| Ok((p.name.clone(), compile(p, landlock)?)))
        .collect()
}

fn compile(profile: &Profile, landlock: Abi) -> Result<Policy, ProfileError> {
    let text = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
    let rlimits = profile
        .rlimits
        .iter()
        .map(|l| (l.resource, l.soft, l.hard))
        .collect();
    let sandbox = Sandbox {
        shm_bytes: profile.limits.shm_mib * MIB,
        tmp_bytes: profile.limits.tmp_mib * MIB,
        masked_paths: profile.masked_paths.iter().map(text).collect(),
        readonly_paths: profile.readonly_paths.iter().map(text).collect(),
        proc_options: profile.proc.mount_options(),
        rlimits,
        umask: profile.umask,
        seccomp: profile.compile_seccomp()?,
        seccomp_early: profile.allows_always(CALLS_AFTER_ORDER)?,
        landlock,
        deny_tcp: profile.landlock.tcp == Tcp::Deny,
    };
    Ok(Policy {
        sandbox,
        ids: Ids {
            uid: profile.identity.uid,
            gid: profile.identity.gid,
        },
        limits: profile.limits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else every command pays for its filter on its way, and nothing but a bench would tell.
    #[test]
    fn the_profiles_that_come_with_the_service_are_installed_early() {
        let profiles = ProfileSet::load(None).unwrap();
        for (name, policy) in compile_all(&profiles, Abi::Unsupported).unwrap() {
            assert!(policy.sandbox.seccomp_early, "{name}");
        }
    }
}
