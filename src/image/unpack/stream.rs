//! The uncompressed bytes of an archive: told by its first bytes, uncompressed, counted, hashed.

use super::Bounds;
use super::trouble::Trouble;
use super::zstd::Zstd;
use crate::image::digest::Digest;
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Chain, Cursor, Read};
use std::rc::Rc;

/// Unpacked bytes from which on the ratio to the packed ones counts: a small archive of zeros harms nobody.
const RATIO_FROM: u64 = 64 << 20;
/// What is read of the source at once.
const PIECE: usize = 256 << 10;
/// Longest magic number.
const MAGIC: usize = 6;

/// The packed bytes, counted.
struct Packed {
    source: File,
    left: u64,
    read: Rc<Cell<u64>>,
    progress: Box<dyn FnMut(u64)>,
}

impl Read for Packed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self
            .source
            .read(&mut buffer[..most])
            .map_err(|error| io::Error::new(error.kind(), format!("can't be read: {error}")))?;
        self.left -= count as u64;
        self.read.set(self.read.get() + count as u64);
        (self.progress)(self.read.get());
        Ok(count)
    }
}

type Source = BufReader<Chain<Cursor<Vec<u8>>, Packed>>;

enum Decoder {
    Plain(Source),
    Gzip(Box<MultiGzDecoder<Source>>),
    Zstd(Box<Zstd<Source>>),
}

/// See the module.
pub struct Stream {
    decoder: Decoder,
    packed: Rc<Cell<u64>>,
    unpacked: u64,
    most: u64,
    ratio: u64,
    hash: Sha256,
}

impl Stream {
    /// Of at most `length` bytes of `source`, that may come to `most` bytes. `progress` hears of the packed bytes read.
    pub fn open(
        source: File,
        length: Option<u64>,
        most: u64,
        bounds: &Bounds,
        progress: impl FnMut(u64) + 'static,
    ) -> Result<Stream, Trouble> {
        let read = Rc::new(Cell::new(0));
        let mut packed = Packed {
            source,
            left: length.unwrap_or(u64::MAX),
            read: read.clone(),
            progress: Box::new(progress),
        };
        let mut magic = Vec::new();
        packed.by_ref().take(MAGIC as u64).read_to_end(&mut magic)?;
        let source = |magic| BufReader::with_capacity(PIECE, Cursor::new(magic).chain(packed));
        let refuse = |name: &str| {
            let text = format!("is compressed with {name}; only gzip and zstd are understood");
            Err(Trouble::Refused(text))
        };
        let decoder = match &magic[..] {
            [] => return Err(Trouble::refused("is empty")),
            [0x1f, 0x8b, ..] => Decoder::Gzip(Box::new(MultiGzDecoder::new(source(magic)))),
            // A frame, or a frame to be skipped (RFC 8878, 3.1).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Decoder::Zstd(Box::new(Zstd::new(source(magic))))
            }
            b"\xfd7zXZ\0" => return refuse("xz"),
            [b'B', b'Z', b'h', ..] => return refuse("bzip2"),
            _ => Decoder::Plain(source(magic)),
        };
        Ok(Stream {
            decoder,
            packed: read,
            unpacked: 0,
            most,
            ratio: bounds.ratio,
            hash: Sha256::new(),
        })
    }

    /// Reads what is left, and tells the digest and the number of all bytes. What was made of them holds so many bytes of
    /// nothing beside, which are unpacked ones too.
    pub fn finish(mut self, holes: u64) -> io::Result<(Digest, u64)> {
        let mut buffer = vec![0; PIECE];
        while self.read(&mut buffer)? > 0 {}
        self.unpacked = self.unpacked.saturating_add(holes);
        self.check()?;
        Ok((Digest::finish(self.hash), self.unpacked))
    }

    fn check(&self) -> io::Result<()> {
        let refuse = |text: String| Err(io::Error::new(io::ErrorKind::InvalidData, text));
        if self.unpacked > self.most {
            return refuse(format!("unpacks to more than {} bytes", self.most));
        }
        let allowed = self.packed.get().saturating_mul(self.ratio);
        if self.unpacked > RATIO_FROM && self.unpacked > allowed {
            let ratio = self.ratio;
            return refuse(format!(
                "unpacks to more than {ratio} times its packed size"
            ));
        }
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.decoder {
            Decoder::Plain(source) => source.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer).map_err(damaged("gzip")),
            Decoder::Zstd(decoder) => decoder.read(buffer).map_err(damaged("zstd")),
        }?;
        self.unpacked += count as u64;
        self.hash.update(&buffer[..count]);
        self.check()?;
        Ok(count)
    }
}

fn damaged(format: &str) -> impl Fn(io::Error) -> io::Error {
    move |error| match error.kind() {
        io::ErrorKind::Interrupted => error,
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "ends early"),
        kind => io::Error::new(
            kind,
            format!("is damaged or ends early ({format}: {error})"),
        ),
    }
}
