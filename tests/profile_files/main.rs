//! Profile files: the embedded ones and those of a directory; how bad ones are refused is in [`refusals`].

mod refusals;

use cellblock::profile::{HidePid, Profile, ProfileError, ProfileSet, Rlimit, Tcp};
use nix::sys::resource::Resource;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const DEFAULT: &str = include_str!("../../sandbox-profiles/default.toml");
const POLICY: &str = include_str!("../../sandbox-profiles/seccomp/default.json");

/// A profile directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().expect("a temporary directory");
    fs::create_dir(dir.path().join("seccomp")).expect("a directory in it");
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect(name);
    }
    dir
}

fn load(files: &[(&str, &str)]) -> Result<ProfileSet, ProfileError> {
    ProfileSet::load(Some(directory(files).path()))
}

fn embedded(name: &str) -> Profile {
    let set = ProfileSet::load(None).expect("the embedded profiles are good");
    set.get(name).expect(name).clone()
}

fn rlimit(profile: &Profile, resource: Resource) -> Option<(u64, u64)> {
    let mut found = profile.rlimits.iter().filter(|r| r.resource == resource);
    found.next().map(|Rlimit { soft, hard, .. }| (*soft, *hard))
}

#[test]
fn the_embedded_profiles_are_what_the_contract_promises() {
    let set = ProfileSet::load(None).expect("the embedded profiles are good");
    assert_eq!(set.names().collect::<Vec<_>>(), ["default", "strict"]);
    assert!(set.get("other").is_none());

    let default = embedded("default");
    let identity = &default.identity;
    assert_eq!((identity.uid, identity.gid), (0, 0));
    assert_eq!(
        (identity.user.as_str(), identity.home.as_str()),
        ("root", "/root")
    );
    assert_eq!(default.umask, 0o022);
    assert_eq!(default.limits.memory_mib.default, 1024);
    assert_eq!(default.limits.memory_mib.max, None);
    assert_eq!(default.limits.pids.default, 256);
    assert_eq!(default.limits.disk_mib.default, 1024);
    assert_eq!((default.limits.tmp_mib, default.limits.shm_mib), (64, 64));
    assert_eq!(
        rlimit(&default, Resource::RLIMIT_STACK),
        Some((8 << 20, u64::MAX))
    );
    assert_eq!(default.proc.mount_options(), []);
    assert_eq!(default.landlock.tcp, Tcp::Allow);

    let strict = embedded("strict");
    let identity = &strict.identity;
    assert_eq!((identity.uid, identity.gid), (1000, 1000));
    assert_eq!(
        (identity.user.as_str(), identity.home.as_str()),
        ("user", "/home/user")
    );
    assert_eq!(strict.umask, 0o022);
    assert_eq!(strict.proc.hidepid, HidePid::Invisible);
    assert_eq!(strict.landlock.tcp, Tcp::Deny);
    assert_eq!(strict.proc.mount_options(), [("hidepid", "2")]);
    for profile in [default, strict] {
        assert_eq!(rlimit(&profile, Resource::RLIMIT_CORE), Some((1, 1)));
        assert_eq!(rlimit(&profile, Resource::RLIMIT_RTPRIO), Some((0, 0)));
        assert_eq!(rlimit(&profile, Resource::RLIMIT_NICE), Some((0, 0)));
        assert!(!profile.compile_seccomp().expect("it compiles").is_empty());
    }
}

/// runc's lists, without /sys, which a cell has not.
#[test]
fn every_proc_path_that_runc_covers_is_covered() {
    let masked = "acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list \
                  timer_stats config.gz kallsyms kmsg kpagecgroup kpagecount kpageflags modules \
                  slabinfo vmallocinfo";
    for profile in [embedded("default"), embedded("strict")] {
        let has = |paths: &[std::path::PathBuf], name: &str| {
            paths
                .iter()
                .any(|path| path == &Path::new("/proc").join(name))
        };
        for name in masked.split_ascii_whitespace() {
            assert!(has(&profile.masked_paths, name), "{} {name}", profile.name);
        }
        for name in ["bus", "fs", "irq", "sys", "sysrq-trigger"] {
            let covered = has(&profile.readonly_paths, name) || has(&profile.masked_paths, name);
            assert!(covered, "{} {name}", profile.name);
        }
    }
}

#[test]
fn strict_is_nowhere_laxer_than_default() {
    let (default, strict) = (embedded("default"), embedded("strict"));
    let at_most = |strict: Option<u64>, default: Option<u64>| match (strict, default) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(strict), Some(default)) => strict <= default,
    };
    let of = |l: &cellblock::profile::Limits| [l.memory_mib, l.pids, l.disk_mib];
    for (s, d) in of(&strict.limits).into_iter().zip(of(&default.limits)) {
        assert!(
            s.default <= d.default && at_most(s.max, d.max),
            "{s:?} {d:?}"
        );
    }
    assert!(strict.limits.tmp_mib <= default.limits.tmp_mib);
    assert!(strict.limits.shm_mib <= default.limits.shm_mib);
    for Rlimit {
        resource,
        soft,
        hard,
    } in &default.rlimits
    {
        let (s, h) = rlimit(&strict, *resource).expect("strict sets what default sets");
        assert!(s <= *soft && h <= *hard, "{resource:?}");
    }
    let set = |paths: &[std::path::PathBuf]| paths.iter().cloned().collect::<BTreeSet<_>>();
    assert!(set(&default.masked_paths).is_subset(&set(&strict.masked_paths)));
    assert!(set(&default.readonly_paths).is_subset(&set(&strict.readonly_paths)));
}

#[test]
fn a_limit_allows_from_one_to_its_maximum() {
    let pids = embedded("strict").limits.pids;
    let max = pids.max.expect("strict has one");
    assert!(pids.allows(1) && pids.allows(max));
    assert!(!pids.allows(0) && !pids.allows(max + 1));
    let memory = embedded("default").limits.memory_mib;
    assert!(memory.allows(u64::MAX) && !memory.allows(0));
}

#[test]
fn a_directory_adds_and_overrides() {
    let mine = DEFAULT
        .replace("uid = 0", "uid = 7")
        .replace("default.json", "mine.json");
    let strict = DEFAULT.replace("shm_mib = 64", "shm_mib = 5");
    let policy = r#"{"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [
        {"names": ["execve", "exceve"], "action": "SCMP_ACT_ALLOW"}]}"#;
    let set = load(&[
        ("mine.toml", &mine),
        ("strict.toml", &strict),
        ("seccomp/mine.json", policy),
        ("README.md", "not a profile"),
        (".mine.toml.swp", "not a profile"),
        ("._old.toml", "not a profile"),
    ])
    .expect("good files");
    assert_eq!(
        set.names().collect::<Vec<_>>(),
        ["default", "mine", "strict"]
    );
    let mine = set.get("mine").expect("it was added");
    assert_eq!((mine.name.as_str(), mine.identity.uid), ("mine", 7));
    assert_eq!(mine.unknown_syscalls(), ["exceve"]);
    let strict = set.get("strict").expect("it was replaced");
    assert_eq!((strict.limits.shm_mib, strict.identity.uid), (5, 0));
    assert_eq!(strict.unknown_syscalls(), Vec::<String>::new());
    assert_eq!(set.get("default").expect("it stays").limits.shm_mib, 64);
}

#[test]
fn a_profile_from_before_landlock_allows_tcp() {
    for now in ["[landlock]\ntcp = \"allow\"\n", "tcp = \"allow\"\n"] {
        let before = DEFAULT.replace(now, "");
        assert_ne!(before, DEFAULT);
        let set = load(&[("mine.toml", &before)]).expect("a good file");
        let mine = set.get("mine").expect("it was added");
        assert_eq!(mine.landlock.tcp, Tcp::Allow);
    }
}

#[test]
fn a_directorys_policy_replaces_the_embedded_one_for_embedded_profiles_too() {
    let policy = POLICY.replace(r#""uname""#, r#""uname", "no_such_call""#);
    let set = load(&[("seccomp/default.json", &policy)]).expect("good files");
    for profile in set.iter() {
        assert_eq!(
            profile.unknown_syscalls(),
            ["no_such_call"],
            "{}",
            profile.name
        );
    }
}
