//! What is no profile, no policy or no directory of them: refused with the file, the field and what to do.

use crate::{DEFAULT, directory, load, rlimit};
use cellblock::profile::{ProfileError, ProfileSet};
use nix::sys::resource::Resource;
use proptest::prelude::*;

/// The message with its sources.
fn refusal(result: Result<ProfileSet, ProfileError>) -> String {
    let error = result.expect_err("a bad file");
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        message = format!("{message}: {inner}");
        source = inner.source();
    }
    message
}

#[test]
fn bad_files_are_refused_with_file_field_and_remedy() {
    let cases = [
        ("uid = 0", "uid = 65536", "identity.uid: 65536 is outside"),
        (
            "gid = 0",
            "gid = 65535",
            "identity.gid: 65535 is that of a cell's init",
        ),
        ("uid = 0", "uid = -1", "expected u32"),
        ("uid = 0\n", "", "missing field `uid`"),
        (
            "user = \"root\"",
            "user = \"ro:ot\"",
            "identity.user: \"ro:ot\" is no login name",
        ),
        (
            "user = \"root\"",
            "user = \"0oo\"",
            "identity.user: \"0oo\" is no login name",
        ),
        (
            "home = \"/root\"",
            "home = \"root\"",
            "identity.home: \"root\" is no plain absolute",
        ),
        (
            "home = \"/root\"",
            "home = \"/a/../b\"",
            "identity.home: \"/a/../b\" is no plain",
        ),
        (
            "home = \"/root\"",
            "home = \"/a:\"",
            "identity.home: \"/a:\" is no plain",
        ),
        ("umask = 0o022", "umask = 0o1022", "umask: 0o1022 has bits"),
        (
            "umask = 0o022",
            "umaks = 0o022",
            "unknown field `umaks`, expected one of `seccomp`",
        ),
        (
            "\"/proc/keys\"",
            "\"/proc/../etc\"",
            "masked_paths[21]: \"/proc/../etc\" is no path under",
        ),
        (
            "\"/proc/keys\"",
            "\"/sys/firmware\"",
            "masked_paths[21]: \"/sys/firmware\" is no path",
        ),
        (
            "\"/proc/keys\"",
            "\"/process\"",
            "masked_paths[21]: \"/process\" is no path under /proc",
        ),
        (
            "\"/proc/sysrq-trigger\"",
            "\"/proc\"",
            "readonly_paths[1]: \"/proc\" is no path under /proc",
        ),
        (
            "\"/proc/sysrq-trigger\"",
            "\"/proc/sysrq-trigger/\"",
            "readonly_paths[1]: \"/proc/sysrq-trigger/\" is no path",
        ),
        (
            "default = 256",
            "default = 0",
            "limits.pids.default: 0 is 0 or over max; choose",
        ),
        (
            "default = 256",
            "default = 4097",
            "limits.pids.default: 4097 is 0 or over max",
        ),
        (
            "shm_mib = 64",
            "shm_mib = 0",
            "limits.shm_mib: 0 would be a tmpfs without a limit",
        ),
        (
            "shm_mib = 64",
            "shm_mib = 17592186044416",
            "limits.shm_mib: 17592186044416 is more than any machine has",
        ),
        (
            "RLIMIT_NICE",
            "RLIMIT_NIECE",
            "rlimits[7].type: \"RLIMIT_NIECE\" is no resource; write",
        ),
        (
            "RLIMIT_NICE",
            "RLIMIT_RTPRIO",
            "rlimits[7].type: RLIMIT_RTPRIO is set twice",
        ),
        (
            "soft = 1024",
            "soft = 9000",
            "rlimits[1].soft: 9000 is over hard",
        ),
        (
            "\"unlimited\"",
            "\"endless\"",
            "a number from 0 or \"unlimited\"",
        ),
        (
            "soft = 1\nhard = 1\n",
            "soft = 0\nhard = 0\n",
            "add type = \"RLIMIT_CORE\", soft = 1",
        ),
        (
            "RLIMIT_CORE",
            "RLIMIT_AS",
            "rlimits: core dumps could reach a helper",
        ),
        (
            "\"default.json\"",
            "\"../x.json\"",
            "seccomp: \"../x.json\" is no plain file name",
        ),
        (
            "\"default.json\"",
            "\"x/\"",
            "seccomp: \"x/\" is no plain file name",
        ),
        (
            "\"default.json\"",
            "\"none.json\"",
            "seccomp: there is no policy \"none.json\"; put it",
        ),
        (
            "[identity]",
            "[proc]\nhidepid = \"2\"\n[identity]",
            "unknown variant `2`",
        ),
        (
            "tcp = \"allow\"",
            "tcp = \"yes\"",
            "unknown variant `yes`, expected `allow` or `deny`",
        ),
        (
            "tcp = \"allow\"",
            "udp = \"allow\"",
            "unknown field `udp`, expected `tcp`",
        ),
        ("[identity]", "[identity", "not a profile"),
    ];
    for (good, bad, expected) in cases {
        let text = DEFAULT.replacen(good, bad, 1);
        assert_ne!(text, DEFAULT, "{good:?} is not in the file");
        let message = refusal(load(&[("mine.toml", &text)]));
        assert!(message.contains("/mine.toml: "), "{message}");
        assert!(
            message.contains(expected),
            "{expected:?} is not in {message:?}"
        );
    }
}

#[test]
fn bad_policies_names_and_directories_are_refused() {
    let message = refusal(load(&[("seccomp/default.json", "{")]));
    assert!(
        message.contains("/seccomp/default.json: not an OCI seccomp policy"),
        "{message}"
    );
    for name in ["My.toml", "a b.toml", "-a.toml", "é.toml"] {
        let message = refusal(load(&[(name, DEFAULT)]));
        assert!(
            message.contains("can't be a profile's name; rename it"),
            "{message}"
        );
    }
    let missing = directory(&[]).path().join("missing");
    let message = refusal(ProfileSet::load(Some(&missing)));
    assert!(
        message.contains("missing: can't be read; check"),
        "{message}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 64,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_default_profile_with_a_part_replaced_is_loaded_or_refused(
        from in 0.0..1.0f64, len in 0usize..40, new in "[\\[\\]{}\"=.,a-z0-9\n /-]{0,20}",
    ) {
        let from = (from * DEFAULT.len() as f64) as usize;
        let to = (from + len).min(DEFAULT.len());
        let text = format!("{}{new}{}", &DEFAULT[..from], &DEFAULT[to..]);
        let dir = directory(&[("mine.toml", &text)]);
        match ProfileSet::load(Some(dir.path())) {
            Ok(set) => {
                let mine = set.get("mine").expect("it was loaded");
                prop_assert_eq!(rlimit(mine, Resource::RLIMIT_CORE), Some((1, 1)));
            }
            Err(error) => prop_assert!(error.to_string().contains("mine.toml"), "{}", error),
        }
    }
}
