//! The system calls that each process of the service may make, as data beside this file: in the format of the profiles'
//! policies, so that one compiler does both, and with the reason of each group. They were measured: what the processes call
//! while all tests run, and what other versions of the C library and other kernels call in its place.
//!
//! What a filter does not list is ENOSYS, as on a kernel that lacks it: libraries know what to do without. What of it nobody
//! but an intruder asks for ends the api process.

use crate::profile::seccomp::{SeccompPolicy, Target};
use crate::profile::{ProfileError, ProfileSet};
use seccompiler::BpfProgram;
use std::error::Error;

type Program = Result<BpfProgram, ProfileError>;

/// Installs the filter of the api process, for this thread and all that it starts.
pub fn enter_api() -> Result<(), Box<dyn Error>> {
    if cfg!(cellblock_without = "role-filters") {
        return Ok(());
    }
    install(&api()?)
}

/// Installs the filter of the warden and of all that it starts: jobs, tools, cells.
pub fn enter_warden(profiles: &ProfileSet) -> Result<(), Box<dyn Error>> {
    for (profile, calls) in overruled(profiles)? {
        tracing::warn!(
            profile,
            calls,
            "the profile allows system calls that no command may make: they stay refused"
        );
    }
    // It is commands' as well, so a build without theirs has none.
    if cfg!(any(
        cellblock_without = "role-filters",
        cellblock_without = "seccomp"
    )) {
        return Ok(());
    }
    install(&warden(profiles)?)
}

/// The api process's filter.
pub fn api() -> Program {
    let text = include_str!("filters/api.json");
    SeccompPolicy::parse("embedded filters/api.json", text)?
        .compile_for_service(&Target::running()?)
}

/// The warden's filter. A command inherits it, so it lets through what any profile does: a profile decides alone, but for a
/// few calls that stay refused.
pub fn warden(profiles: &ProfileSet) -> Program {
    let mut policy = wardens()?;
    for profile in profiles.iter() {
        policy.admit(profile.seccomp_policy());
    }
    policy.compile_for_service(&Target::running()?)
}

/// Profiles that allow calls which stay refused, with those.
fn overruled(profiles: &ProfileSet) -> Result<Vec<(String, String)>, ProfileError> {
    let (own, machine) = (wardens()?, Target::running()?);
    let with_calls = profiles.iter().map(|profile| {
        let calls = profile.seccomp_policy().refused_by(&own, &machine);
        (profile.name.clone(), calls.join(" "))
    });
    Ok(with_calls.filter(|(_, calls)| !calls.is_empty()).collect())
}

fn wardens() -> Result<SeccompPolicy, ProfileError> {
    let text = include_str!("filters/warden.json");
    SeccompPolicy::parse("embedded filters/warden.json", text)
}

/// Sets no_new_privs too: the warden runs nothing that gains a right by set-id.
fn install(program: &BpfProgram) -> Result<(), Box<dyn Error>> {
    seccompiler::apply_filter(program)
        .map_err(|error| format!("install the seccomp filter: {error}").into())
}
