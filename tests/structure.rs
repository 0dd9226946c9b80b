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
