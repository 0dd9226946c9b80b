//! See [`crate::fuzzing`]. Nothing is unpacked to a disk: a layer's entries are read and checked as [`super::layer`] does,
//! and their bytes thrown away.

use super::names::{self, Meaning};
use super::stream::Stream;
use super::tar::{Archive, Entry, Kind, Named};
use super::trouble::Trouble;
use super::{Bounds, IDS, layer, pax, place, user};
use crate::fuzzing::{file, with_checksums};
use std::io::{self, Read};

/// Small, so that a bomb goes off early.
const BOUNDS: Bounds = Bounds {
    bytes: 1 << 20,
    entries: 1000,
    ratio: 200,
    path: 4095,
    component: 255,
};

/// A layer, packed or not; and the same bytes as a PAX header, and as a user and the files it is looked up in.
pub fn unpack(data: &[u8]) {
    if let Err(trouble) = pax::parse(data) {
        check(&trouble);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        who(text);
    }
    if let Err((name, trouble)) = read(&with_checksums(data)) {
        check(&trouble);
        if let Some(name) = name {
            let shown = names::show(&name);
            assert!(!shown.contains(char::is_control), "{shown:?}");
        }
    }
}

fn check(trouble: &Trouble) {
    match trouble {
        Trouble::Refused(reason) => assert!(!reason.is_empty() && reason.len() < 1 << 10),
        Trouble::Failed(reason) => panic!("not the archive's fault: {reason}"),
    }
}

fn read(data: &[u8]) -> Named<()> {
    let none = |trouble| (None, trouble);
    let most = layer::most(&BOUNDS);
    let length = Some(data.len() as u64);
    let stream = Stream::open(file(data), length, most, &BOUNDS, |_| {}).map_err(none)?;
    let mut archive = Archive::new(stream);
    let (mut count, mut bytes, mut holes) = (0, 0u64, 0u64);
    while let Some(entry) = archive.next()? {
        let named = |trouble| (Some(entry.name.clone()), trouble);
        count += 1;
        if count > BOUNDS.entries {
            return Ok(());
        }
        check_entry(&entry);
        let path = names::check(&entry.name, &BOUNDS).map_err(named)?;
        check_path(&path, true);
        match names::meaning(path).map_err(named)? {
            Meaning::Nothing => continue,
            Meaning::Opaque(path) => {
                check_path(&path, true);
                continue;
            }
            Meaning::Whiteout(path) => {
                check_path(&path, false);
                continue;
            }
            Meaning::Entry(path) => check_path(&path, true),
        }
        let (uid, gid) = layer::ids(&entry).map_err(named)?;
        assert!(uid < IDS && gid < IDS);
        match entry.kind {
            Kind::Symlink => place::check_target(&entry.link).map_err(named)?,
            Kind::HardLink => drop(names::check(&entry.link, &BOUNDS).map_err(named)?),
            Kind::File => {
                bytes = bytes.saturating_add(entry.size);
                if bytes > BOUNDS.bytes {
                    return Ok(());
                }
                holes += entry.holes();
                let read = io::copy(&mut archive.by_ref(), &mut io::sink());
                let read = read.map_err(|error| named(error.into()))?;
                assert_eq!(read, entry.size - entry.holes());
            }
            _ => {}
        }
    }
    let finished = archive.into_stream().finish(holes);
    let (_, unpacked) = finished.map_err(|error| none(error.into()))?;
    assert!(unpacked <= most);
    Ok(())
}

fn check_entry(entry: &Entry) {
    assert!(entry.mode <= 0o7777 && entry.mtime.1 < 1_000_000_000);
    let mut end = 0;
    for (offset, length) in entry.pieces.iter().flatten() {
        assert!(*offset >= end);
        end = offset + length;
        assert!(end <= entry.size);
    }
    assert!(entry.holes() <= entry.size);
}

/// It leads nowhere but down, and one path has one writing.
fn check_path(path: &[u8], root: bool) {
    assert!(!path.contains(&0) && path.len() <= BOUNDS.path);
    if path.is_empty() {
        return assert!(root);
    }
    for part in path.split(|byte| *byte == b'/') {
        assert!(
            !matches!(part, b"" | b"." | b".."),
            "{}",
            path.escape_ascii()
        );
        assert!(part.len() <= BOUNDS.component);
    }
    assert_eq!(names::check(path, &BOUNDS).as_deref(), Ok(path));
}

/// The user is the first line, `/etc/passwd` and `/etc/group` are all lines.
fn who(text: &str) {
    let user = text.lines().next().unwrap_or_default();
    match user::resolve(user, text, text) {
        Ok(user) => {
            assert!(user.uid < IDS && user.gid < IDS && user.home.starts_with('/'));
            assert!(!user.name.contains(char::is_control) && !user.name.contains(':'));
            assert!(!user.home.contains(char::is_control));
        }
        Err(trouble) => check(&trouble),
    }
}
