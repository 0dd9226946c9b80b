//! The records of a PAX header: what tar's own header has no room for.

use super::trouble::{Result, Trouble};

/// What one header changes of the entry after it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pax {
    /// Its name.
    pub path: Option<Vec<u8>>,
    /// What it links to.
    pub link: Option<Vec<u8>>,
    /// Bytes that follow it.
    pub size: Option<u64>,
    /// Owner.
    pub uid: Option<i64>,
    /// Group.
    pub gid: Option<i64>,
    /// Seconds and nanoseconds since 1970.
    pub mtime: Option<(i64, u32)>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether it is sparse in one of PAX's three ways.
    pub sparse: bool,
}

/// Reads the records: `LENGTH KEY=VALUE\n`, where LENGTH counts all of it. Values may hold any byte.
pub fn parse(mut body: &[u8]) -> Result<Pax> {
    let mut pax = Pax::default();
    // Some writers fill up with zeros.
    while !body.iter().all(|byte| *byte == 0) {
        let (key, value, rest) =
            record(body).ok_or_else(|| Trouble::refused("has a damaged PAX header"))?;
        pax.take(key, value)?;
        body = rest;
    }
    Ok(pax)
}

fn record(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = body.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = decimal(&body[..space])?.try_into().ok()?;
    let (record, rest) = body.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

impl Pax {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        if key.starts_with(b"GNU.sparse.") {
            self.sparse = true;
            return Ok(());
        }
        // An empty value takes an earlier one back: that of a global header, which is not used here.
        if value.is_empty() {
            return Ok(());
        }
        let bad = || Trouble::refused("has a PAX header with a value that is no number");
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value).ok_or_else(bad)?),
            b"uid" => self.uid = Some(id(value).ok_or_else(bad)?),
            b"gid" => self.gid = Some(id(value).ok_or_else(bad)?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(bad)?),
            _ => {}
        }
        Ok(())
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text)
        .ok()
        .filter(|_| digits)?
        .parse()
        .ok()
}

fn id(text: &[u8]) -> Option<i64> {
    match text.strip_prefix(b"-") {
        Some(digits) => decimal(digits)?.try_into().map(|id: i64| -id).ok(),
        None => decimal(text)?.try_into().ok(),
    }
}

/// A decimal fraction, as a count of seconds that is rounded down and the nanoseconds above it.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text.iter().position(|byte| *byte == b'.');
    let seconds: i64 = decimal(&text[..dot.unwrap_or(text.len())])?
        .try_into()
        .ok()?;
    let mut nanos = 0;
    if let Some(dot) = dot {
        let fraction = &text[dot + 1..];
        if !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
        nanos = digits.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    }
    Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_apart_by_their_length_alone() {
        let pax = parse(b"12 path=a\nb\n11 size=12\n27 SCHILY.xattr.user.a=\n\0=\n\0\0").unwrap();
        assert_eq!(pax.path.unwrap(), b"a\nb");
        assert_eq!(pax.size, Some(12));
        assert_eq!(pax.xattrs, [(b"user.a".to_vec(), b"\n\0=".to_vec())]);
    }

    #[test]
    fn damaged_records_are_refused() {
        for body in [
            &b"12 path=a\n"[..],
            b"8 path=a\n",
            b"x path=a\n",
            b"99999999999999999999 path=a\n",
            b"3 a",
            b"0 path=a\n",
            b"8 patha\n",
            b"10 size=x\n",
            b"11 size=-1\n",
            b"10 path=a\n10 path=",
        ] {
            assert!(parse(body).is_err(), "{}", body.escape_ascii());
        }
        assert!(parse(b"10 path=a\n").is_ok());
    }

    #[test]
    fn times_keep_their_fraction_on_both_sides_of_1970() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"12.0000000019"), Some((12, 1)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        assert_eq!(time(b"1."), Some((1, 0)));
        for wrong in [&b""[..], b"1.x", b".5", b"1e3", b"--1"] {
            assert_eq!(time(wrong), None);
        }
    }
}
