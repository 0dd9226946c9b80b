//! A header block of tar(5): its fields, in the old, POSIX and GNU forms.

use super::trouble::{Result, Trouble};

/// Everything in a tar archive is a multiple of this.
pub const BLOCK: usize = 512;

/// Offset and length of a part of a sparse file.
pub type Piece = (u64, u64);

/// A block whose checksum is right, or one of zeros, which ends an archive.
pub struct Header<'a>(&'a [u8; BLOCK]);

impl<'a> Header<'a> {
    /// Checks the block; none for one of zeros.
    pub fn read(block: &'a [u8; BLOCK]) -> Result<Option<Header<'a>>> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = |value: fn(u8) -> i64| {
            let counted = |(at, byte): (usize, &u8)| match at {
                148..156 => i64::from(b' '),
                _ => value(*byte),
            };
            block.iter().enumerate().map(counted).sum::<i64>()
        };
        // Some old writers summed signed bytes.
        let stored = number(&block[148..156]).unwrap_or(-1);
        if stored != sum(i64::from) && stored != sum(|byte| i64::from(byte as i8)) {
            return Err(Trouble::refused(
                "is no tar archive, or its headers are damaged",
            ));
        }
        Ok(Some(Header(block)))
    }

    /// The type flag; see `tar::Kind`.
    pub fn flag(&self) -> u8 {
        self.0[156]
    }

    /// The name, with POSIX's prefix.
    pub fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        match text(&self.0[345..500]) {
            prefix if self.is_posix() && !prefix.is_empty() => [prefix, b"/", name].concat(),
            _ => name.to_vec(),
        }
    }

    /// What a link leads to.
    pub fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    /// Permission bits.
    pub fn mode(&self) -> Result<u32> {
        Ok(field(&self.0[100..108], "mode")? as u32 & 0o7777)
    }

    /// Owner; negative where it can be none.
    pub fn uid(&self) -> Result<i64> {
        field(&self.0[108..116], "uid")
    }

    /// Group.
    pub fn gid(&self) -> Result<i64> {
        field(&self.0[116..124], "gid")
    }

    /// Bytes that follow the header.
    pub fn size(&self) -> Result<u64> {
        let size = field(&self.0[124..136], "size")?;
        u64::try_from(size).map_err(|_| Trouble::refused("has a negative size"))
    }

    /// Seconds since 1970.
    pub fn mtime(&self) -> Result<i64> {
        field(&self.0[136..148], "time")
    }

    /// GNU's own form, where sparse files have their map.
    pub fn is_gnu(&self) -> bool {
        &self.0[257..265] == b"ustar  \0"
    }

    fn is_posix(&self) -> bool {
        &self.0[257..263] == b"ustar\0"
    }

    /// The block of a GNU sparse file: its first part of the map, whether more follow, the file's size.
    pub fn sparse(&self) -> Result<(Vec<Piece>, bool, u64)> {
        let size = field(&self.0[483..495], "sparse size")?;
        let size = u64::try_from(size).map_err(|_| Trouble::refused("has a negative size"))?;
        Ok((map(&self.0[386..482])?, self.0[482] != 0, size))
    }
}

/// A block with nothing but a further part of a sparse file's map, and whether more follow.
pub fn sparse_more(block: &[u8; BLOCK]) -> Result<(Vec<Piece>, bool)> {
    Ok((map(&block[..504])?, block[504] != 0))
}

fn map(bytes: &[u8]) -> Result<Vec<Piece>> {
    let mut found = Vec::new();
    for pair in bytes.chunks_exact(24) {
        if pair[0] == 0 && pair[12] == 0 {
            break;
        }
        let part =
            |bytes| u64::try_from(field(bytes, "sparse map")?).map_err(|_| bad("sparse map"));
        found.push((part(&pair[..12])?, part(&pair[12..])?));
    }
    Ok(found)
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

fn bad(name: &str) -> Trouble {
    Trouble::refused(format!("has a {name} in its header that is no number"))
}

fn field(bytes: &[u8], name: &str) -> Result<i64> {
    number(bytes).ok_or_else(|| bad(name))
}

/// Octal digits between spaces and NULs, nothing for zero; or, with the first bit set, a big-endian number.
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 == 0 {
        let blank = |byte: &u8| matches!(byte, b' ' | 0);
        let digits = text(&field[field.iter().take_while(|byte| blank(byte)).count()..]);
        let digits = std::str::from_utf8(digits).ok()?.trim_end();
        let all = digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
        return match digits {
            "" => Some(0),
            _ if all => i64::from_str_radix(digits, 8).ok(),
            _ => None,
        };
    }
    // The second bit is the sign; the first one belongs to no number.
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = i128::from(field[0] & 0x3f) - if negative { 0x40 } else { 0 };
    for byte in &field[1..] {
        value = value * 256 + i128::from(*byte);
    }
    i64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_both_writings() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"        "), Some(0));
        assert_eq!(number(b"77777777"), Some(0o77_777_777));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 1, 0, 2]), Some(65538));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(b"-000001\0"), None);
        let mut huge = [0x7f; 12];
        huge[0] = 0x80;
        assert_eq!(number(&huge), None);
    }

    #[test]
    fn a_block_with_a_wrong_sum_is_no_header() {
        let mut block = [0; BLOCK];
        assert!(Header::read(&block).unwrap().is_none());
        block[0] = b'a';
        assert!(Header::read(&block).is_err());
        block[148..156].copy_from_slice(format!("{:06o}\0 ", 8 * 32 + 97).as_bytes());
        assert_eq!(Header::read(&block).unwrap().unwrap().name(), b"a");
        block[1] = b'b';
        assert!(Header::read(&block).is_err());
    }
}
