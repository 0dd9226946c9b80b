//! The outer tar of an archive of images: where its files lie. Only headers are read, and nothing is believed of them but
//! what the archive's own length bears out; what is in the files is for others.

use crate::image::import::error::{ImportError, io_error, shown};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const BLOCK: u64 = 512;
/// Most files of an archive of images. What has more is taken for a root file system.
const MAX_FILES: usize = 65_536;
/// Longest name that is remembered, and longest target of a link: a document that names a file says less. Else an archive
/// of a few packed MiB would be gigabytes of names in memory.
const MAX_NAME: usize = 1024;
/// Most bytes of a header that goes before another one: a long name, attributes.
const MAX_EXTENSION: u64 = 1 << 20;
/// How many links may lead to a file.
const MAX_LINKS: usize = 8;

/// Where an entry's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From the archive's beginning.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

#[derive(Debug)]
enum Entry {
    File(Place),
    /// Old archives have layers that stand in them twice as links to the first.
    Link(String),
}

/// The files of an archive, by name.
#[derive(Debug, Default)]
pub struct Index(HashMap<String, Entry>);

/// What an archive turned out to be.
#[derive(Debug)]
pub enum Looked {
    /// It may be one of images: these are its files.
    Files(Index),
    /// It has what no archive of images has.
    Other,
}

/// Whether these are the first bytes of a tar archive.
pub fn is_tar(block: &[u8]) -> bool {
    block.len() as u64 == BLOCK && checksum_fits(block)
}

/// Looks through an archive.
pub fn look(file: &File, path: &Path) -> Result<Looked, ImportError> {
    let length = file.metadata().map_err(io_error("find", path))?.len();
    let malformed = |reason: &str| ImportError::Malformed {
        what: path.display().to_string(),
        reason: reason.to_owned(),
    };
    let mut index = HashMap::new();
    let mut offset = 0;
    let mut next = Extended::default();
    while offset + BLOCK <= length {
        let mut block = [0; BLOCK as usize];
        file.read_exact_at(&mut block, offset)
            .map_err(io_error("read", path))?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(Looked::Files(Index(index)));
        }
        if !checksum_fits(&block) {
            return Err(malformed(&format!(
                "is damaged: no tar header at byte {offset}"
            )));
        }
        let kind = block[156];
        let own =
            number(&block[124..136]).ok_or_else(|| malformed("has a header without a size"))?;
        let extension = matches!(kind, b'x' | b'g' | b'L' | b'K');
        let size = match kind {
            b'1'..=b'6' => 0,
            _ if extension => own,
            _ => next.size.unwrap_or(own),
        };
        let place = Place {
            offset: offset + BLOCK,
            length: size,
        };
        let end = place.offset.checked_add(size);
        if end.is_none_or(|end| end > length) {
            let name = shown(&next.name(&block));
            return Err(malformed(&format!(
                "is cut off: {name} reaches beyond its end"
            )));
        }
        if extension {
            if size > MAX_EXTENSION {
                return Err(malformed("has a header of more than 1 MiB"));
            }
            let mut bytes = vec![0; size as usize];
            file.read_exact_at(&mut bytes, place.offset)
                .map_err(io_error("read", path))?;
            next.take(kind, &bytes).map_err(malformed)?;
        } else {
            let name = plain(&next.name(&block));
            let target = next.target(&block);
            let entry = match kind {
                0 | b'0' | b'7' => Some(Entry::File(place)),
                b'1' => Some(Entry::Link(plain(&target))),
                b'2' => resolve(&name, &target).map(Entry::Link),
                b'5' => None,
                _ => return Ok(Looked::Other),
            };
            let fits = name.len() <= MAX_NAME && target.len() <= MAX_NAME;
            if let Some(entry) = entry.filter(|_| fits) {
                index.insert(name, entry);
            }
            if index.len() > MAX_FILES {
                return Ok(Looked::Other);
            }
            next = Extended::default();
        }
        offset = place.offset + size.next_multiple_of(BLOCK);
    }
    match index.is_empty() {
        true => Err(malformed("is cut off or empty")),
        false => Ok(Looked::Files(Index(index))),
    }
}

impl Index {
    /// Where a file is.
    pub fn place(&self, name: &str) -> Option<Place> {
        let mut name = name;
        for _ in 0..MAX_LINKS {
            match self.0.get(name)? {
                Entry::File(place) => return Some(*place),
                Entry::Link(target) => name = target,
            }
        }
        None
    }
}

/// What headers say of the entry that follows them.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    target: Option<String>,
    size: Option<u64>,
}

impl Extended {
    fn take(&mut self, kind: u8, bytes: &[u8]) -> Result<(), &'static str> {
        match kind {
            b'L' => self.name = Some(text(bytes)),
            b'K' => self.target = Some(text(bytes)),
            b'x' => {
                return self
                    .attributes(bytes)
                    .ok_or("has attributes that make no sense");
            }
            _ => {}
        }
        Ok(())
    }

    /// POSIX: lines of `LENGTH KEY=VALUE`, the length that of the line.
    fn attributes(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let space = bytes.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
            let line = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
            bytes = &bytes[length..];
            let equals = line.iter().position(|byte| *byte == b'=')?;
            let value = &line[equals + 1..];
            match &line[..equals] {
                b"path" => self.name = Some(text(value)),
                b"linkpath" => self.target = Some(text(value)),
                b"size" => self.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
                _ => {}
            }
        }
        Some(())
    }

    fn name(&self, block: &[u8]) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let (name, prefix) = (text(&block[..100]), text(&block[345..500]));
        // GNU's headers have other things there.
        match &block[257..263] == b"ustar\0" && !prefix.is_empty() {
            true => format!("{prefix}/{name}"),
            false => name,
        }
    }

    fn target(&self, block: &[u8]) -> String {
        self.target
            .clone()
            .unwrap_or_else(|| text(&block[157..257]))
    }
}

/// Up to the first NUL. Names that are no UTF-8 are none that a manifest can say.
fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// `./a//b/` is `a/b`.
fn plain(name: &str) -> String {
    let parts = name.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/")
}

/// Where a symbolic link leads that stays in the archive.
fn resolve(name: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    if target.starts_with('/') {
        return None;
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn checksum_fits(block: &[u8]) -> bool {
    let sum = |sign: fn(u8) -> i64| {
        let blank = |at: usize| (148..156).contains(&at);
        let bytes = block.iter().enumerate();
        bytes
            .map(|(at, byte)| if blank(at) { 32 } else { sign(*byte) })
            .sum::<i64>()
    };
    let Some(said) = number(&block[148..156]) else {
        return false;
    };
    // Old programs added up signed bytes.
    [sum(i64::from), sum(|byte| i64::from(byte as i8))].contains(&(said as i64))
}

/// Octal digits, or with the first bit set binary ones (GNU).
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let mut value = u64::from(field[0] & 0x7f);
        for byte in &field[1..] {
            value = value.checked_mul(256)?.checked_add(u64::from(*byte))?;
        }
        return Some(value);
    }
    let digits = text(field);
    let digits = digits.trim_matches(' ');
    match digits.is_empty() {
        true => Some(0),
        false => u64::from_str_radix(digits, 8).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::import::tar::{self, Kind, Meta};
    use std::io::Write;

    fn entry(out: &mut Vec<u8>, name: &str, kind: Kind<'_>) {
        let meta = Meta {
            name: name.into(),
            mode: 0o644,
            ..Meta::default()
        };
        tar::entry(out, &meta, kind).unwrap();
    }

    fn look_at(bytes: &[u8]) -> Result<Looked, ImportError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        look(&file, Path::new("test.tar"))
    }

    #[test]
    fn files_are_found_by_long_names_and_through_links_that_stay_inside() {
        let long = format!("blobs/{}", "n".repeat(300));
        let mut bytes = Vec::new();
        entry(&mut bytes, "./a/", Kind::Directory);
        entry(&mut bytes, "./a/file", Kind::File(3, &mut &b"abc"[..]));
        entry(&mut bytes, &long, Kind::File(1, &mut &b"x"[..]));
        for (name, target) in [
            ("b/near", "../a/file"),
            ("b/loop", "loop"),
            ("b/out", "../../a/file"),
            ("b/root", "/a/file"),
        ] {
            entry(&mut bytes, name, Kind::Symlink(target.as_bytes()));
        }
        entry(&mut bytes, "hard", Kind::Hardlink(b"a/file"));
        tar::end(&mut bytes).unwrap();
        let Looked::Files(index) = look_at(&bytes).unwrap() else {
            panic!("not taken for files")
        };
        let place = index.place("a/file").unwrap();
        assert_eq!(
            &bytes[place.offset as usize..][..place.length as usize],
            b"abc"
        );
        assert_eq!(index.place(&long).unwrap().length, 1);
        assert_eq!(index.place("b/near"), Some(place));
        assert_eq!(index.place("hard"), Some(place));
        for name in ["b/loop", "b/out", "b/root", "a", "nothing"] {
            assert_eq!(index.place(name), None, "{name}");
        }
    }

    #[test]
    fn names_that_no_document_says_are_not_remembered() {
        let long = "n".repeat(MAX_NAME + 1);
        let mut bytes = Vec::new();
        entry(&mut bytes, "a", Kind::File(1, &mut &b"x"[..]));
        entry(&mut bytes, &long, Kind::File(1, &mut &b"x"[..]));
        entry(&mut bytes, "link", Kind::Hardlink(long.as_bytes()));
        entry(&mut bytes, &long[1..], Kind::File(1, &mut &b"x"[..]));
        tar::end(&mut bytes).unwrap();
        let Looked::Files(index) = look_at(&bytes).unwrap() else {
            panic!("not taken for files")
        };
        assert_eq!(index.0.len(), 2);
        assert!(index.place(&long[1..]).is_some());
    }

    #[test]
    fn a_size_is_believed_as_far_as_the_archive_reaches() {
        let mut bytes = Vec::new();
        entry(&mut bytes, "file", Kind::File(3, &mut &b"abc"[..]));
        assert!(look_at(&bytes).is_ok());
        assert!(look_at(&bytes[..514]).is_err());
        assert!(look_at(&bytes[..100]).is_err());
        assert!(look_at(b"").is_err());
        // A header before others that would be read into memory.
        let mut zeros = std::io::repeat(0);
        let mut large = Vec::new();
        entry(&mut large, "file", Kind::File(2 << 20, &mut zeros));
        large[156] = b'L';
        let sum = large[156] as u32 - u32::from(b'0');
        let said = u32::from_str_radix(std::str::from_utf8(&large[148..154]).unwrap(), 8).unwrap();
        large[148..154].copy_from_slice(format!("{:06o}", said + sum).as_bytes());
        assert!(look_at(&large).unwrap_err().to_string().contains("1 MiB"));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(number(&[0xff; 12]), None);
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"nonsense"), None);
    }
}
