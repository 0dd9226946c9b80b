//! Names of entries: which are taken, what they mean, and how they are shown.

use super::Bounds;
use super::trouble::{Result, Trouble};

/// Begins the names that take away what a lower layer has (OCI image specification, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// Begins aufs's own names, of which the specification took one over.
const META: &[u8] = b".wh..wh.";
/// Makes its directory opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Longest shown name in characters.
const SHOWN: usize = 256;

/// A checked name: components without `.` and `..`, joined by single slashes; empty for the layer's root.
pub type Path = Vec<u8>;

/// What a name asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The entry itself, under this path.
    Entry(Path),
    /// This path is to be absent, whatever lower layers have.
    Whiteout(Path),
    /// This directory is to show nothing of lower layers.
    Opaque(Path),
    /// aufs's bookkeeping.
    Nothing,
}

/// Checks a name as the archive writes it.
pub fn check(raw: &[u8], bounds: &Bounds) -> Result<Path> {
    let refuse = |reason: &str| Err(Trouble::refused(reason));
    if raw.is_empty() {
        return refuse("has an empty name");
    }
    if raw.len() > bounds.path {
        return Err(Trouble::refused(format!(
            "has a name of {} bytes; {} are allowed",
            raw.len(),
            bounds.path
        )));
    }
    if raw.contains(&0) {
        return refuse("has a NUL byte in its name");
    }
    if raw[0] == b'/' {
        return refuse("has an absolute name");
    }
    let mut rest = raw;
    while let [before @ .., b'/'] = rest {
        rest = before;
    }
    let mut path = Path::new();
    for component in rest.split(|byte| *byte == b'/') {
        match component {
            b"" => return refuse("has an empty component in its name"),
            b".." => return refuse("has \"..\" in its name"),
            b"." => continue,
            _ if component.len() > bounds.component => {
                return Err(Trouble::refused(format!(
                    "has a component of {} bytes in its name; {} are allowed",
                    component.len(),
                    bounds.component
                )));
            }
            _ => {}
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    Ok(path)
}

/// What a checked name asks for.
pub fn meaning(path: Path) -> Result<Meaning> {
    let (parent, last) = split(&path);
    if parent
        .split(|byte| *byte == b'/')
        .any(|c| c.starts_with(META))
    {
        return Ok(Meaning::Nothing);
    }
    if parent
        .split(|byte| *byte == b'/')
        .any(|c| c.starts_with(WHITEOUT))
    {
        return Err(Trouble::refused("is below a whiteout"));
    }
    if last == OPAQUE {
        return Ok(Meaning::Opaque(parent.to_vec()));
    }
    if last.starts_with(META) {
        return Ok(Meaning::Nothing);
    }
    match last.strip_prefix(WHITEOUT) {
        None => Ok(Meaning::Entry(path)),
        Some(b"" | b"." | b"..") => Err(Trouble::refused("is a whiteout of nothing")),
        Some(name) => Ok(Meaning::Whiteout(join(parent, name))),
    }
}

/// A path's parent and its last component.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// A name in a directory.
pub fn join(parent: &[u8], name: &[u8]) -> Path {
    if parent.is_empty() {
        name.to_vec()
    } else {
        [parent, b"/", name].concat()
    }
}

/// For messages: whatever a terminal could take for a command is escaped, and long names are cut.
pub fn show(raw: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in raw[..raw.len().min(8 * SHOWN)].utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' => shown.push(c),
                _ => shown.extend(c.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    if shown.chars().count() > SHOWN {
        shown = shown.chars().take(SHOWN).collect::<String>() + "…";
    }
    format!("\"{shown}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(raw: &str) -> Result<Path> {
        check(raw.as_bytes(), &Bounds::default())
    }

    #[test]
    fn names_are_brought_into_one_form() {
        for (raw, path) in [
            ("a", "a"),
            ("./a/b/", "a/b"),
            ("a/./b", "a/b"),
            ("./", ""),
            (".", ""),
            ("a/...", "a/..."),
        ] {
            assert_eq!(checked(raw), Ok(path.as_bytes().to_vec()), "{raw}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_or_mean_two_things_are_refused() {
        let long = "n".repeat(256);
        let deep = "d/".repeat(2048) + "f";
        for raw in [
            "", "/", "/a", "//a", "..", "../a", "a/..", "a/../b", "./..", "a//b", "a\0b", &long,
            &deep,
        ] {
            assert!(checked(raw).is_err(), "{raw}");
        }
        assert!(checked(&"n".repeat(255)).is_ok());
        assert!(checked(&deep[4..]).is_ok());
    }

    #[test]
    fn whiteouts_are_told_from_entries() {
        let meaning = |raw: &str| meaning(checked(raw).unwrap());
        let path = |text: &str| text.as_bytes().to_vec();
        assert_eq!(meaning("a/.wh"), Ok(Meaning::Entry(path("a/.wh"))));
        assert_eq!(meaning("a/.wh.b"), Ok(Meaning::Whiteout(path("a/b"))));
        assert_eq!(meaning(".wh.b"), Ok(Meaning::Whiteout(path("b"))));
        assert_eq!(meaning("a/.wh..wh..opq"), Ok(Meaning::Opaque(path("a"))));
        assert_eq!(meaning(".wh..wh..opq"), Ok(Meaning::Opaque(path(""))));
        assert_eq!(meaning(".wh..wh.plnk/1.2"), Ok(Meaning::Nothing));
        assert_eq!(meaning(".wh..wh.aufs"), Ok(Meaning::Nothing));
        for refused in [".wh.", "a/.wh..", ".wh...", ".wh.a/b"] {
            assert!(meaning(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn shown_names_hold_nothing_that_a_terminal_obeys() {
        assert_eq!(show(b"a\x1b[2J\nb\xff'\""), "\"a\\u{1b}[2J\\nb\\xff'\\\"\"");
        assert!(!show("a\u{202e}b".as_bytes()).contains('\u{202e}'));
        let long = show(&[b'n'; 5000]);
        assert!(long.ends_with("…\"") && long.chars().count() < 300);
    }
}
