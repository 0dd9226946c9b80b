//! See [`crate::fuzzing`].

use super::file::RawProfile;
use super::seccomp::SeccompPolicy;
use super::{Profile, ProfileError};
use crate::resources::{INIT_ID, MIB, RANGE};
use nix::sys::resource::Resource;
use std::sync::{Arc, LazyLock};

static POLICY: LazyLock<Arc<SeccompPolicy>> = LazyLock::new(|| {
    let text = include_str!("../../sandbox-profiles/seccomp/default.json");
    Arc::new(SeccompPolicy::parse("default.json", text).expect("the project's own"))
});

/// A profile in TOML.
pub fn profile(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match read(text) {
        Ok(profile) => check(&profile),
        Err(error) => {
            let said = error.to_string();
            assert!(said.starts_with("f.toml: "), "{said}");
        }
    }
}

fn read(text: &str) -> Result<Profile, ProfileError> {
    let raw = RawProfile::parse("f.toml", text)?;
    let policy = raw.seccomp_file("f.toml")?;
    assert!(!policy.contains('/') && !matches!(policy, "" | "." | ".."));
    raw.check("f.toml", "f", POLICY.clone())
}

/// What those who use a profile take for granted.
fn check(profile: &Profile) {
    let limits = &profile.limits;
    for limit in [limits.memory_mib, limits.pids, limits.disk_mib] {
        assert!(limit.default >= 1 && limit.allows(limit.default));
    }
    for mib in [limits.tmp_mib, limits.shm_mib] {
        assert!(mib >= 1 && mib.checked_mul(MIB).is_some(), "{mib} MiB");
    }
    let identity = &profile.identity;
    for id in [identity.uid, identity.gid] {
        assert!(id < RANGE && id != INIT_ID);
    }
    let passwd = format!("{}:{}", identity.user, identity.home);
    assert_eq!(passwd.split([':', '\n']).count(), 2, "{passwd:?}");
    assert!(identity.home.starts_with('/'));
    assert!(profile.umask <= 0o777);
    for path in profile.masked_paths.iter().chain(&profile.readonly_paths) {
        assert!(path.starts_with("/proc") && path.components().count() > 2);
        assert!(!path.to_string_lossy().contains("..") || !path.iter().any(|part| part == ".."));
    }
    let cores = profile
        .rlimits
        .iter()
        .filter(|limit| limit.resource == Resource::RLIMIT_CORE);
    assert_eq!(cores.count(), 1);
    assert!(profile.rlimits.iter().all(|limit| limit.soft <= limit.hard));
}
