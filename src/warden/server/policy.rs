//! Profiles as the warden uses them: compiled once, at its start.

use crate::cell::Sandbox;
use crate::cell::identity::Ids;
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
