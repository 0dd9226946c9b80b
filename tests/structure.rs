//! The borders inside the source that the compiler does not check: what is privileged knows no HTTP, no async runtime and
//! no database, and unsafe code stands in one place. Needs neither root nor a server.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(below: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut open = vec![root.join(below), root.join(format!("{below}.rs"))];
    open.retain(|path| path.exists());
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                fs::read_dir(&path)
                    .expect("list")
                    .map(|entry| entry.expect("entry").path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("read a source file");
            found.push((
                path.strip_prefix(root).expect("below the root").to_owned(),
                text,
            ));
        }
    }
    found
}

/// Lines of code in which a word stands alone; comments don't count.
fn lines_with<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    // A hyphen as well: `unsafe-inline` is a word of another language.
    let part_of_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let code = |line: &'a str| line.split("//").next().unwrap_or(line);
    text.lines()
        .map(code)
        .filter(|line| line.split(|c| !part_of_name(c)).any(|w| w == word))
        .collect()
}

fn assert_absent(words: &[&str], places: &[&str], allowed: impl Fn(&Path) -> bool) {
    let mut wrong = Vec::new();
    for (path, text) in places.iter().flat_map(|place| sources(place)) {
        for word in words {
            for line in lines_with(&text, word) {
                if !allowed(&path) {
                    wrong.push(format!("{}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "these words don't belong there:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_search_sees_words_and_not_comments() {
    let text = "use tokio::net; // axum\nlet tokio_like = 1;\n";
    assert_eq!(lines_with(text, "tokio"), ["use tokio::net; "]);
    assert!(lines_with(text, "axum").is_empty());
    assert!(
        sources("src")
            .iter()
            .any(|(path, _)| path.ends_with("src/lib.rs"))
    );
}

#[test]
fn what_is_privileged_knows_no_http_no_async_and_no_database() {
    let places = [
        "src/cell",
        "src/cgroup",
        "src/profile",
        "src/image",
        "src/warden/server",
        "src/warden/protocol",
        "src/warden/memfd",
    ];
    for place in places {
        assert!(
            !sources(place).is_empty(),
            "{place} is gone: name its new place here"
        );
    }
    assert_absent(
        &["tokio", "axum", "hyper", "rusqlite", "tenant"],
        &places,
        |_| false,
    );
}

#[test]
fn only_the_edge_knows_axum_and_only_the_store_knows_sql() {
    let api = |path: &Path| path.starts_with("src/api") || path.starts_with("src/api.rs");
    assert_absent(&["axum"], &["src"], api);
    assert_absent(&["rusqlite"], &["src"], |path| {
        path.starts_with("src/store")
    });
}

#[test]
fn unsafe_code_stands_in_one_place() {
    assert_absent(&["unsafe"], &["src"], |path| {
        path.starts_with("src/sys") || path == Path::new("src/sys.rs")
    });
}

#[test]
fn the_unit_grants_the_capabilities_that_are_used() {
    use cellblock::roles::powers;
    use std::collections::BTreeSet;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let unit = fs::read_to_string(root.join("packaging/cellblock.service")).expect("the unit");
    let granted = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .expect("a line of capabilities");
    let granted: BTreeSet<String> = granted.split_whitespace().map(str::to_owned).collect();
    let used = powers::WARDEN.iter().chain(&powers::API_START);
    assert_eq!(granted, used.map(ToString::to_string).collect());
}

/// What runs with rights over the machine, or is run by something that does before it gives them up.
const PRIVILEGED: [&str; 34] = [
    "src/supervisor",
    "src/roles/api",
    "src/roles/jail",
    "src/roles/filters",
    "src/roles/powers",
    "src/roles/warden",
    "src/roles/mod",
    "src/warden/server",
    "src/warden/memfd",
    "src/warden/protocol",
    "src/cell",
    "src/cgroup",
    "src/config",
    "src/landlock",
    "src/log",
    "src/profile/mod",
    "src/profile/file",
    "src/profile/set",
    "src/profile/limits",
    "src/profile/proc",
    "src/profile/seccomp",
    "src/image/mod",
    "src/image/applied",
    "src/image/catalogue",
    "src/image/content",
    "src/image/digest",
    "src/image/error",
    "src/image/host",
    "src/image/listed",
    "src/image/names",
    "src/image/skeleton",
    "src/image/store",
    "src/resources",
    "src/sys",
];

/// Lines that are neither empty nor comments, up to the tests at a file's end.
fn lines_of_code(text: &str) -> usize {
    let code = text.lines().map(str::trim);
    code.take_while(|line| *line != "#[cfg(test)]")
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .count()
}

#[test]
fn the_privileged_part_does_not_grow_unnoticed() {
    /// Raise it knowingly, with the number in ARCHITECTURE.md.
    const MOST: usize = 13_500;
    let text = "//! Head.\n\nfn f() {} // said\n\n#[cfg(test)]\nmod tests {}\n";
    assert_eq!(lines_of_code(text), 1);
    let mut total = 0;
    for place in PRIVILEGED {
        let found = sources(place);
        assert!(
            !found.is_empty(),
            "{place} is gone: name its new place here"
        );
        let tests = |path: &Path| path.to_string_lossy().ends_with("tests.rs");
        let lines: usize = found
            .iter()
            .filter(|(path, _)| !tests(path))
            .map(|(_, text)| lines_of_code(text))
            .sum();
        println!("{lines:6} {place}");
        total += lines;
    }
    println!("{total:6} in all");
    assert!(
        total <= MOST,
        "{total} lines of code with rights, at most {MOST} expected"
    );
    assert!(total * 10 > MOST * 9, "{total} lines: lower the bound");
}
