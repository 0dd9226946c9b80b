//! Environment variables: the rules for their names and values, which runtimes and execs share.

use super::error::Invalid;
use std::collections::BTreeMap;

const MAX_NAME: usize = 128;
const MAX_VALUE: usize = 8192;
const MAX_ALL: usize = 64 * 1024;

/// Checks the names and values of `variables`, the value of the request field `field`.
pub fn check_variables(field: &str, variables: &BTreeMap<String, String>) -> Result<(), Invalid> {
    for (name, value) in variables {
        check_name(field, name)?;
        if value.len() > MAX_VALUE || value.contains(['\0', '\r', '\n']) {
            return Err(Invalid::new(
                format!("{field}.{name}"),
                format!("must be at most {MAX_VALUE} bytes without NUL, CR or LF"),
            ));
        }
    }
    let all: usize = variables
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if all > MAX_ALL {
        return Err(Invalid::new(
            field,
            format!("holds {all} bytes, but {MAX_ALL} is the most"),
        ));
    }
    Ok(())
}

fn check_name(field: &str, name: &str) -> Result<(), Invalid> {
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if first && name.len() <= MAX_NAME && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(());
    }
    Err(Invalid::new(
        field,
        format!(
            "has a name that is not 1 to {MAX_NAME} letters, digits and `_`, beginning with no digit: {}",
            name.chars().take(40).collect::<String>().escape_debug()
        ),
    ))
}

/// One environment out of several: a later map wins, what it leaves alone stays.
pub fn merged<'a>(
    maps: &[&'a BTreeMap<String, String>],
    base: &[(&'a str, &'a str)],
) -> Vec<(String, String)> {
    let mut all: BTreeMap<&str, &str> = base.iter().copied().collect();
    for map in maps {
        all.extend(
            map.iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
    }
    all.into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: &str) -> Result<(), Invalid> {
        check_variables(
            "env",
            &BTreeMap::from([(name.to_owned(), value.to_owned())]),
        )
    }

    #[test]
    fn names_follow_the_shell() {
        for name in ["A", "_", "a1_B"] {
            assert_eq!(check(name, ""), Ok(()));
        }
        for name in ["", "1A", "A-B", "A=B", "Ä", "A\0", &"A".repeat(129)] {
            assert_eq!(check(name, "x").unwrap_err().field, "env", "{name:?}");
        }
    }

    #[test]
    fn values_are_bounded_lines() {
        assert_eq!(check("A", &"x".repeat(8192)), Ok(()));
        for value in ["a\0", "a\n", "a\r", &"x".repeat(8193)] {
            assert_eq!(check("A", value).unwrap_err().field, "env.A");
        }
    }

    #[test]
    fn all_together_are_bounded() {
        let value = "x".repeat(8000);
        let many = (0..9).map(|i| (format!("A{i}"), value.clone())).collect();
        assert!(
            check_variables("env", &many)
                .unwrap_err()
                .problem
                .contains("bytes")
        );
    }

    #[test]
    fn the_last_one_to_name_a_variable_wins() {
        let runtime = BTreeMap::from([
            ("A".into(), "runtime".into()),
            ("B".into(), "runtime".into()),
        ]);
        let exec = BTreeMap::from([("B".into(), "exec".into()), ("HOME".into(), "/x".into())]);
        let all = merged(&[&runtime, &exec], &[("HOME", "/root"), ("LANG", "C")]);
        let all: Vec<(&str, &str)> = all.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(
            all,
            [
                ("A", "runtime"),
                ("B", "exec"),
                ("HOME", "/x"),
                ("LANG", "C")
            ]
        );
    }
}
