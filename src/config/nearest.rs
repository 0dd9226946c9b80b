//! Finds what somebody probably meant when they wrote a name that does not exist: an unknown key of the configuration
//! file, an unknown field of a request.

/// The name among `names` that is nearest to `typed`, or none when nothing is near.
///
/// A name that starts with what was typed (`timeout` → `timeout_secs`), or the other way round, counts as near; else at
/// most a third of the letters may differ.
pub fn nearest<'a>(typed: &str, names: &[&'a str]) -> Option<&'a str> {
    // The comparison is quadratic and `typed` comes from outside; no real name is this long.
    if typed.is_empty() || typed.len() > 64 {
        return None;
    }
    let typed = typed.to_ascii_lowercase().replace('-', "_");
    let prefix = names
        .iter()
        .filter(|name| typed.len() >= 3 && (name.starts_with(&typed) || typed.starts_with(**name)))
        .min_by_key(|name| name.len().abs_diff(typed.len()));
    if let Some(name) = prefix {
        return Some(name);
    }
    names
        .iter()
        .map(|name| (distance(&typed, name), *name))
        .filter(|(distance, name)| *distance * 3 <= name.len().max(typed.len()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Levenshtein distance over characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAMES: &[&str] = &["command", "args", "timeout_secs", "max_output_bytes", "env"];

    #[test]
    fn a_prefix_or_a_slip_finds_the_name() {
        assert_eq!(nearest("timeout", NAMES), Some("timeout_secs"));
        assert_eq!(nearest("comand", NAMES), Some("command"));
        assert_eq!(nearest("max-output-bytes", NAMES), Some("max_output_bytes"));
        assert_eq!(nearest("ENV", NAMES), Some("env"));
    }

    #[test]
    fn something_else_finds_nothing() {
        assert_eq!(nearest("colour", NAMES), None);
        assert_eq!(nearest("", NAMES), None);
        assert_eq!(nearest(&"x".repeat(10_000), NAMES), None);
    }

    proptest! {
        #[test]
        fn distance_is_zero_only_for_equals_and_symmetric(a in "[a-d]{0,6}", b in "[a-d]{0,6}") {
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
        }
    }
}
