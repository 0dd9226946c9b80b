//! Writing of a tar stream (POSIX.1-2001, "pax") that follows from its entries alone: no times, names or ids of this machine
//! get into it but those of the entries.

use std::io::{self, Read, Write};

const BLOCK: usize = 512;

/// Names and values of extended attributes.
pub type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// What is written of an entry beside its content.
#[derive(Debug, Clone, Default)]
pub struct Meta {
    /// Relative; a directory's ends with a slash.
    pub name: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Extended attributes, in order.
    pub attributes: Attributes,
}

/// What an entry is.
pub enum Kind<'a> {
    /// A file of so many bytes.
    File(u64, &'a mut dyn Read),
    /// A directory.
    Directory,
    /// A symbolic link to this.
    Symlink(&'a [u8]),
    /// Another name of the file of this name, which was written before.
    Hardlink(&'a [u8]),
}

/// Writes an entry. A file that turns out to be shorter than was said is [`io::ErrorKind::UnexpectedEof`].
pub fn entry(out: &mut impl Write, meta: &Meta, kind: Kind<'_>) -> io::Result<()> {
    let (letter, size, target): (u8, u64, &[u8]) = match &kind {
        Kind::File(size, _) => (b'0', *size, b""),
        Kind::Directory => (b'5', 0, b""),
        Kind::Symlink(target) => (b'2', 0, target),
        Kind::Hardlink(target) => (b'1', 0, target),
    };
    let mut extended = Vec::new();
    if meta.name.len() > 100 {
        record(&mut extended, b"path", &meta.name);
    }
    if target.len() > 100 {
        record(&mut extended, b"linkpath", target);
    }
    let numbers: [(&[u8], u64, u64); 4] = [
        (b"uid", meta.uid.into(), 0o777_7777),
        (b"gid", meta.gid.into(), 0o777_7777),
        (b"mtime", meta.mtime, 0o777_7777_7777),
        (b"size", size, 0o777_7777_7777),
    ];
    for (key, value, most) in numbers {
        if value > most {
            record(&mut extended, key, value.to_string().as_bytes());
        }
    }
    for (name, value) in &meta.attributes {
        record(
            &mut extended,
            &[b"SCHILY.xattr.", &name[..]].concat(),
            value,
        );
    }
    if !extended.is_empty() {
        let plain = Meta {
            mode: 0o644,
            ..Meta::default()
        };
        out.write_all(&header(b"pax", b'x', extended.len() as u64, b"", &plain))?;
        out.write_all(&extended)?;
        pad(out, extended.len() as u64)?;
    }
    out.write_all(&header(&meta.name, letter, size, target, meta))?;
    if let Kind::File(size, content) = kind {
        if io::copy(&mut content.take(size), out)? < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        pad(out, size)?;
    }
    Ok(())
}

/// Ends the archive.
pub fn end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

fn pad(out: &mut impl Write, written: u64) -> io::Result<()> {
    let rest = (BLOCK - (written % BLOCK as u64) as usize) % BLOCK;
    out.write_all(&[0; BLOCK][..rest])
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    to.extend(length.to_string().as_bytes());
    to.extend([b" ", key, b"=", value, b"\n"].concat());
}

/// What does not fit stands in the record before.
fn header(name: &[u8], letter: u8, size: u64, target: &[u8], meta: &Meta) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, width: usize, bytes: &[u8]| {
        let bytes = &bytes[..bytes.len().min(width)];
        block[at..at + bytes.len()].copy_from_slice(bytes);
    };
    let octal = |value: u64, digits: usize| {
        let most = 8_u64.pow(digits as u32) - 1;
        format!("{:0digits$o}", value.min(most)).into_bytes()
    };
    put(0, 100, name);
    put(100, 7, &octal(meta.mode.into(), 7));
    put(108, 7, &octal(meta.uid.into(), 7));
    put(116, 7, &octal(meta.gid.into(), 7));
    put(124, 11, &octal(size, 11));
    put(136, 11, &octal(meta.mtime, 11));
    put(148, 8, b"        ");
    put(156, 1, &[letter]);
    put(157, 100, target);
    put(257, 8, b"ustar\x0000");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
