//! Names of runtimes: what is allowed, and readable random ones.

use super::error::{Invalid, RuntimeError};
use uuid::Uuid;

const MAX_LEN: usize = 63;

/// Checks a name that a client chose.
pub(super) fn check(name: &str) -> Result<(), Invalid> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if !first || !rest || name.len() > MAX_LEN {
        return Err(Invalid::new(
            "name",
            format!(
                "must be 1 to {MAX_LEN} characters, the first a letter or digit, \
                 the others letters, digits, `_`, `.` or `-`"
            ),
        ));
    }
    if Uuid::parse_str(name).is_ok() {
        return Err(Invalid::new(
            "name",
            "must not have the form of a UUID, which would stand for an id",
        ));
    }
    Ok(())
}

const HOW: [&str; 32] = [
    "amber", "brave", "brisk", "calm", "clear", "clever", "coral", "crisp", "eager", "early",
    "fair", "fleet", "gentle", "glad", "golden", "keen", "kind", "lively", "lucid", "mellow",
    "merry", "neat", "noble", "plain", "quick", "quiet", "ready", "sharp", "silver", "steady",
    "swift", "warm",
];

const WHAT: [&str; 32] = [
    "acorn", "aspen", "badger", "beacon", "birch", "brook", "cedar", "comet", "crane", "falcon",
    "fern", "finch", "harbor", "heron", "island", "juniper", "lantern", "maple", "meadow", "otter",
    "pebble", "pine", "raven", "reef", "river", "robin", "sparrow", "spruce", "stone", "thistle",
    "willow", "wren",
];

/// A readable name such as `brisk-heron-4f2a`.
pub(super) fn random() -> Result<String, RuntimeError> {
    let bits = getrandom::u32().map_err(RuntimeError::Random)?;
    let (how, what) = (HOW[(bits & 31) as usize], WHAT[(bits >> 5 & 31) as usize]);
    Ok(format!("{how}-{what}-{:04x}", bits >> 16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_name_is_refused() {
        for name in [
            "",
            "-a",
            ".a",
            "_a",
            "a b",
            "a/b",
            "ä",
            "a\0",
            "a\n",
            &"a".repeat(64),
        ] {
            assert!(check(name).is_err(), "{name:?}");
        }
        let uuid = Uuid::now_v7();
        for name in [
            uuid.to_string(),
            uuid.simple().to_string(),
            uuid.to_string().to_uppercase(),
        ] {
            assert!(check(&name).unwrap_err().problem.contains("UUID"), "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_the_documentation_allows_is_accepted(name in "[A-Za-z0-9][A-Za-z0-9_.-]{0,30}") {
            prop_assert_eq!(check(&name), Ok(()));
        }
    }

    #[test]
    fn random_names_are_names() {
        for _ in 0..1000 {
            check(&random().unwrap()).unwrap();
        }
    }
}
