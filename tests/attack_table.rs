//! The table of attacks in SECURITY.md names tests that are there, and leaves out none that tries to escape. Needs neither root
//! nor a server.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The tests that the table names, as `PROGRAM::MODULE::NAME`.
fn named() -> BTreeSet<String> {
    let text = fs::read_to_string(Path::new(ROOT).join("SECURITY.md")).expect("read SECURITY.md");
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.trim_end_matches('|').rsplit(" | ").next());
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|name| name.contains("::"))
        .map(str::to_owned)
        .collect()
}

/// All tests of the sources below a directory, their names beginning with `program`.
fn tests_of(program: &str, directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).expect("list the sources") {
        let path = entry.expect("an entry").path();
        let stem = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        let stem = stem.expect("a name");
        if path.is_dir() {
            found.extend(tests_of(&format!("{program}::{stem}"), &path));
            continue;
        }
        let module = match stem.as_str() {
            "main" | "mod" | "lib" => program.to_owned(),
            _ => format!("{program}::{stem}"),
        };
        let text = fs::read_to_string(&path).expect("read a source file");
        let (mut inner, mut test) = (String::new(), false);
        for line in text.lines().map(str::trim) {
            if line.starts_with("mod tests {") {
                inner = "::tests".to_owned();
            } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                test = true;
            } else if let (true, Some((head, _))) = (test, line.split_once('('))
                && let Some((_, name)) = head.split_once("fn ")
            {
                found.insert(format!("{module}{inner}::{name}"));
                test = false;
            }
        }
    }
    found
}

#[test]
fn every_test_that_the_table_names_is_there() {
    let named = named();
    assert!(named.len() > 100, "only {} names found", named.len());
    let programs: BTreeSet<&str> = named
        .iter()
        .filter_map(|name| name.split("::").next())
        .collect();
    let mut there = BTreeSet::new();
    for program in programs {
        let directory = match program {
            "lib" => Path::new(ROOT).join("src"),
            _ => Path::new(ROOT).join("tests").join(program),
        };
        there.extend(tests_of(program, &directory));
    }
    // Modules of the library's tests that are files of their own: `records_tests.rs` is `records::tests`.
    let there: BTreeSet<String> = there
        .iter()
        .map(|name| name.replace("_tests::", "::tests::"))
        .collect();
    let missing: Vec<_> = named.difference(&there).collect();
    assert!(missing.is_empty(), "there are no such tests: {missing:#?}");
}

#[test]
fn every_attempt_to_escape_is_in_the_table() {
    for (program, least) in [("escape", 60), ("warden", 30)] {
        let there = tests_of(program, &Path::new(ROOT).join("tests").join(program));
        assert!(there.len() > least, "only {} tests found", there.len());
        let named = named();
        let left_out: Vec<_> = there.difference(&named).collect();
        assert!(
            left_out.is_empty(),
            "SECURITY.md does not name: {left_out:#?}"
        );
    }
}
