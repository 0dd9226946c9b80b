//! Crafted archives: a builder that writes whatever it is told to, and a place to unpack them in.

use crate::support::mounts::TestDir;
use cellblock::image::digest::Digest;
use cellblock::image::unpack::{Bounds, UnpackError, Unpacked, Unpacker};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A header's fields, as they are to be written.
#[derive(Debug, Clone)]
pub struct Head {
    pub name: Vec<u8>,
    pub flag: u8,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    pub size: u64,
    pub link: Vec<u8>,
}

impl Head {
    /// Of an entry without content.
    pub fn new(name: impl AsRef<[u8]>, flag: u8) -> Head {
        Head {
            name: name.as_ref().to_vec(),
            flag,
            mode: if flag == b'5' { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            mtime: 1_000_000_000,
            size: 0,
            link: Vec::new(),
        }
    }

    /// In GNU's form, with a right checksum.
    pub fn block(&self) -> [u8; 512] {
        let mut block = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(100)]);
        put(100, &number(u64::from(self.mode), 8));
        put(108, &number(self.uid, 8));
        put(116, &number(self.gid, 8));
        put(124, &number(self.size, 12));
        put(136, &number(self.mtime, 12));
        put(156, &[self.flag]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, b"ustar  \0");
        finish(&mut block);
        block
    }
}

/// Writes the checksum.
pub fn finish(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Octal where it fits, else GNU's binary form.
pub fn number(value: u64, width: usize) -> Vec<u8> {
    let octal = format!("{value:0width$o}\0", width = width - 1).into_bytes();
    if octal.len() == width {
        return octal;
    }
    let mut binary = vec![0; width];
    binary[width - 8..].copy_from_slice(&value.to_be_bytes());
    binary[0] |= 0x80;
    binary
}

/// An archive under construction.
#[derive(Default, Clone)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn new() -> Tar {
        Tar::default()
    }

    /// A header and the content it announces, or another one.
    pub fn entry(mut self, head: &Head, content: &[u8]) -> Tar {
        self.0.extend_from_slice(&head.block());
        self.0.extend_from_slice(content);
        let padding = content.len().wrapping_neg() % 512;
        self.0.extend(std::iter::repeat_n(0, padding));
        self
    }

    pub fn file(self, name: impl AsRef<[u8]>, content: &[u8]) -> Tar {
        let mut head = Head::new(name, b'0');
        head.size = content.len() as u64;
        self.entry(&head, content)
    }

    pub fn dir(self, name: impl AsRef<[u8]>) -> Tar {
        self.entry(&Head::new(name, b'5'), b"")
    }

    pub fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
        self.link(name, target, b'2')
    }

    pub fn hard_link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
        self.link(name, target, b'1')
    }

    fn link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>, flag: u8) -> Tar {
        let mut head = Head::new(name, flag);
        head.link = target.as_ref().to_vec();
        self.entry(&head, b"")
    }

    /// What comes before an entry and describes it: `x`, `g`, `L` or `K`.
    pub fn extension(self, flag: u8, body: &[u8]) -> Tar {
        let mut head = Head::new("././@LongLink", flag);
        head.size = body.len() as u64;
        self.entry(&head, body)
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.extension(b'x', &body)
    }

    /// A sparse file in GNU's writing: its size, and the pieces that are not holes.
    pub fn sparse(mut self, name: &str, size: u64, pieces: &[(u64, &[u8])]) -> Tar {
        let mut head = Head::new(name, b'S');
        head.size = pieces.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let mut block = head.block();
        let put = |block: &mut [u8; 512], at: usize, (offset, bytes): &(u64, &[u8])| {
            block[at..at + 12].copy_from_slice(&number(*offset, 12));
            block[at + 12..at + 24].copy_from_slice(&number(bytes.len() as u64, 12));
        };
        let (first, more) = pieces.split_at(pieces.len().min(4));
        for (index, piece) in first.iter().enumerate() {
            put(&mut block, 386 + 24 * index, piece);
        }
        block[482] = u8::from(!more.is_empty());
        block[483..495].copy_from_slice(&number(size, 12));
        finish(&mut block);
        self.0.extend_from_slice(&block);
        let parts: Vec<_> = more.chunks(21).collect();
        for (index, part) in parts.iter().enumerate() {
            let mut block = [0; 512];
            for (index, piece) in part.iter().enumerate() {
                put(&mut block, 24 * index, piece);
            }
            block[504] = u8::from(index + 1 < parts.len());
            self.0.extend_from_slice(&block);
        }
        for (_, bytes) in pieces {
            self.0.extend_from_slice(bytes);
        }
        let padding = head.size.wrapping_neg() % 512;
        self.0.extend(std::iter::repeat_n(0, padding as usize));
        self
    }

    /// The whole archive.
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// One gzip member; several in a row are a gzip file as well.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compress");
    encoder.finish().expect("compress")
}

/// One zstd frame.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// An open file with these bytes, at its start.
pub fn open(bytes: &[u8]) -> OwnedFd {
    let mut file = tempfile::tempfile().expect("make a file");
    file.write_all(bytes).expect("write the archive");
    file.rewind().expect("rewind");
    file.into()
}

/// The unpacker under test.
pub fn unpacker() -> Unpacker {
    let program = env!("CARGO_BIN_EXE_cellblock");
    Unpacker::of_program(program, cellblock::config::DEFAULT_UID_BASE)
}

/// A directory to unpack into, beside one that nothing may touch.
pub struct Place {
    dir: TestDir,
}

impl Place {
    pub fn new() -> Place {
        let dir = TestDir::new();
        fs::create_dir(dir.path().join("fs")).expect("make the target");
        fs::create_dir(dir.path().join("canary")).expect("make the canary");
        fs::write(dir.path().join("canary/file"), "untouched").expect("write the canary");
        Place { dir }
    }

    /// Where the layer goes.
    pub fn fs(&self) -> PathBuf {
        self.dir.path().join("fs")
    }

    /// A path in the layer.
    pub fn at(&self, name: &str) -> PathBuf {
        self.fs().join(name)
    }

    /// A file outside of it.
    pub fn canary(&self) -> PathBuf {
        self.dir.path().join("canary/file")
    }

    /// Unpacks, with the default bounds.
    pub fn unpack(&self, archive: &[u8]) -> Result<Unpacked, UnpackError> {
        self.unpack_within(archive, &Bounds::default())
    }

    /// Unpacks, and checks that nothing beside the layer changed and the digest is that of the whole archive.
    pub fn unpack_within(&self, archive: &[u8], bounds: &Bounds) -> Result<Unpacked, UnpackError> {
        let result = unpacker().layer(open(archive), None, &self.fs(), bounds, &mut |_| {});
        self.assert_untouched();
        result
    }

    pub fn assert_untouched(&self) {
        let names = |dir: &Path| -> Vec<_> {
            let entries = fs::read_dir(dir).expect("list");
            let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(self.dir.path()), ["canary", "fs"]);
        assert_eq!(names(&self.dir.path().join("canary")), ["file"]);
        let text = fs::read_to_string(self.canary()).expect("read the canary");
        assert_eq!(text, "untouched");
    }

    /// Names below the layer's root and what is there.
    pub fn tree(&self) -> BTreeMap<PathBuf, fs::Metadata> {
        let mut found = BTreeMap::new();
        let mut open = vec![self.fs()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).expect("list").flatten() {
                let status = fs::symlink_metadata(entry.path()).expect("look");
                if status.is_dir() {
                    open.push(entry.path());
                }
                let name = entry
                    .path()
                    .strip_prefix(self.fs())
                    .expect("below")
                    .to_owned();
                found.insert(name, status);
            }
        }
        found
    }
}

/// A fine archive is unpacked, its digest is that of all its bytes.
pub fn unpacked(archive: &[u8]) -> (Place, Unpacked) {
    let place = Place::new();
    let unpacked = place.unpack(archive).expect("the archive is fine");
    assert_eq!(unpacked.diff_id, Digest::of(archive));
    (place, unpacked)
}

/// The archive is refused, with this entry named and for a reason that holds these words.
pub fn assert_refused(archive: &[u8], entry: &str, words: &str) {
    let place = Place::new();
    match place.unpack(archive) {
        Err(UnpackError::Entry {
            entry: named,
            reason,
        }) => {
            assert!(
                named.contains(entry),
                "{entry:?} is not named but {named}: {reason}"
            );
            assert!(
                reason.contains(words),
                "{named}: {reason:?} does not say {words:?}"
            );
        }
        other => panic!("{entry}: expected a refusal that says {words:?}, got {other:?}"),
    }
}
