//! The entries of a tar archive, one after another, while it is read.
//!
//! The `tar` crate is not used: it reads long names and PAX headers whole, however long they say they are, and splits PAX
//! records at newlines, which names and attributes may hold. Where archives mean two things, this follows Go's
//! `archive/tar`, which docker and containerd read layers with.

use super::header::{BLOCK, Header, Piece, sparse_more};
use super::pax::{self, Pax};
use super::trouble::{Result, Trouble};
use std::io::{self, Read};

/// Longest PAX header or GNU long name.
const MAX_EXTENSION: u64 = 1 << 20;
/// Most pieces of a sparse file.
const MAX_PIECES: usize = 1 << 16;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of an earlier one.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A character or block device.
    Device,
    /// A named pipe.
    Fifo,
    /// Something else, with its flag.
    Unknown(u8),
}

/// An entry as the archive writes it: nothing but its own consistency is checked.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// What a link leads to.
    pub link: Vec<u8>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of the file, holes included.
    pub size: u64,
    /// Of a sparse file: what the archive holds of it, in order.
    pub pieces: Option<Vec<Piece>>,
}

impl Entry {
    /// Bytes of the file that the archive does not hold.
    pub fn holes(&self) -> u64 {
        let pieces = self.pieces.iter().flatten();
        let held: u64 = pieces.map(|(_, length)| length).sum();
        match self.pieces {
            Some(_) => self.size.saturating_sub(held),
            None => 0,
        }
    }
}

/// A failure, and the entry that it belongs to where one had begun.
pub type Named<T> = std::result::Result<T, (Option<Vec<u8>>, Trouble)>;

/// Reads entries off a stream; as a reader, gives the bytes of the current one.
pub struct Archive<R> {
    stream: R,
    /// Bytes of the current entry that are not read yet.
    left: u64,
    /// What follows them up to a whole block.
    padding: u64,
    begun: bool,
}

impl<R: Read> Archive<R> {
    /// Nothing is read yet.
    pub fn new(stream: R) -> Archive<R> {
        Archive {
            stream,
            left: 0,
            padding: 0,
            begun: false,
        }
    }

    /// The next entry; none at the end of the archive. Skips what is unread of the current one.
    pub fn next(&mut self) -> Named<Option<Entry>> {
        let mut pax = Pax::default();
        let (mut long_name, mut long_link) = (None, None);
        self.skip().map_err(|trouble| (None, trouble))?;
        loop {
            let mut block = [0; BLOCK];
            let read = self.block(&mut block).map_err(|trouble| (None, trouble))?;
            let header = match read {
                true => Header::read(&block).map_err(|trouble| (None, trouble))?,
                false => None,
            };
            let Some(header) = header else {
                if pax != Pax::default() || long_name.is_some() || long_link.is_some() {
                    return Err((None, Trouble::refused("ends before an entry it announces")));
                }
                return self.end(read).map_err(|trouble| (None, trouble));
            };
            self.begun = true;
            let named = |trouble| (Some(header.name()), trouble);
            match header.flag() {
                b'x' => {
                    pax = pax::parse(&self.extension(&header).map_err(named)?).map_err(named)?
                }
                // Read over, as Go does: it is about the whole archive.
                b'g' => drop(self.extension(&header).map_err(named)?),
                b'L' => long_name = Some(c_string(self.extension(&header).map_err(named)?)),
                b'K' => long_link = Some(c_string(self.extension(&header).map_err(named)?)),
                _ => {
                    let name = pax.path.take().or(long_name).unwrap_or(header.name());
                    let link = pax.link.take().or(long_link).unwrap_or(header.link());
                    return match self.entry(&header, &name, link, pax) {
                        Ok(entry) => Ok(Some(entry)),
                        Err(trouble) => Err((Some(name), trouble)),
                    };
                }
            }
        }
    }

    /// The stream, wherever it is.
    pub fn into_stream(self) -> R {
        self.stream
    }

    fn entry(
        &mut self,
        header: &Header<'_>,
        name: &[u8],
        link: Vec<u8>,
        pax: Pax,
    ) -> Result<Entry> {
        let kind = match header.flag() {
            // Before there was a flag for directories, a slash said it.
            b'0' | 0 | b'7' if name.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => Kind::Unknown(other),
        };
        if pax.sparse {
            return Err(Trouble::refused(
                "is a sparse file in a PAX writing, which is not supported",
            ));
        }
        let stored = match kind {
            // Whatever size they claim, nothing follows.
            Kind::HardLink | Kind::Symlink | Kind::Device | Kind::Directory | Kind::Fifo => 0,
            Kind::File | Kind::Unknown(_) => match pax.size {
                Some(size) => size,
                None => header.size()?,
            },
        };
        // As Go: a file's size is a signed number. A larger one would not even add up to whole blocks.
        if i64::try_from(stored).is_err() {
            return Err(Trouble::refused("has a size that no file can have"));
        }
        let (size, pieces) = match header.flag() {
            b'S' => {
                let (size, pieces) = self.sparse(header, stored)?;
                (size, Some(pieces))
            }
            _ => (stored, None),
        };
        self.left = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;
        Ok(Entry {
            name: name.to_vec(),
            kind,
            mode: header.mode()?,
            uid: pax.uid.map_or_else(|| header.uid(), Ok)?,
            gid: pax.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: match pax.mtime {
                Some(mtime) => mtime,
                None => (header.mtime()?, 0),
            },
            link,
            xattrs: pax.xattrs,
            size,
            pieces,
        })
    }

    /// The size and the map of a GNU sparse file, which goes on in the blocks after its header.
    fn sparse(&mut self, header: &Header<'_>, stored: u64) -> Result<(u64, Vec<Piece>)> {
        let refuse = |reason: &str| Err(Trouble::refused(reason));
        if !header.is_gnu() {
            return refuse("is a sparse file without GNU's header");
        }
        let (mut pieces, mut more, size) = header.sparse()?;
        while more {
            let mut block = [0; BLOCK];
            self.stream.read_exact(&mut block).map_err(early)?;
            let (further, goes_on) = sparse_more(&block)?;
            pieces.extend(further);
            more = goes_on;
            if pieces.len() > MAX_PIECES {
                return refuse("is a sparse file of too many pieces");
            }
        }
        let (mut end, mut sum) = (0u64, 0u64);
        for (offset, length) in &pieces {
            let until = offset.checked_add(*length).filter(|until| *until <= size);
            match until {
                Some(until) if *offset >= end => end = until,
                _ => return refuse("is a sparse file whose map makes no sense"),
            }
            sum += length;
        }
        if sum != stored {
            return refuse("is a sparse file whose map makes no sense");
        }
        Ok((size, pieces))
    }

    /// The body of an entry that only describes the next one.
    fn extension(&mut self, header: &Header<'_>) -> Result<Vec<u8>> {
        let size = header.size()?;
        if size > MAX_EXTENSION {
            return Err(Trouble::refused(format!(
                "has an extended header of {size} bytes; {MAX_EXTENSION} are allowed"
            )));
        }
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        let mut body = vec![0; size as usize];
        self.read_exact(&mut body).map_err(early)?;
        self.skip()?;
        Ok(body)
    }

    /// Reads a whole block; false at the end of the stream.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.stream.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(early(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// The archive ends with a block of zeros and another one, or, as some writers leave them out, with the stream.
    fn end(&mut self, zeros: bool) -> Result<Option<Entry>> {
        if !self.begun && !zeros {
            return Err(Trouble::refused("is empty"));
        }
        let mut block = [0; BLOCK];
        if zeros && self.block(&mut block)? && block.iter().any(|byte| *byte != 0) {
            return Err(Trouble::refused("goes on after a block that ends it"));
        }
        Ok(None)
    }

    fn skip(&mut self) -> Result<()> {
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut self.stream.by_ref().take(rest), &mut io::sink())?;
        match skipped == rest {
            true => Ok(()),
            false => Err(early(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 {
            return Ok(0);
        }
        match self.stream.read(&mut buffer[..most])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.left -= count as u64;
                Ok(count)
            }
        }
    }
}

/// Names the end of a stream that comes too early.
pub fn early(error: io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Trouble::refused("ends early"),
        _ => error.into(),
    }
}

fn c_string(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With its padding the size would be 0: what stands in the entry would be read as further entries, and by other
    /// programs not.
    #[test]
    fn a_size_beyond_all_files_is_refused() {
        let bytes = include_bytes!("../../../fuzz/seeds/unpack/skipped_size.tar");
        let (name, trouble) = Archive::new(&bytes[..]).next().unwrap_err();
        assert_eq!(name.unwrap(), b".wh..wh.plnk");
        assert_eq!(
            trouble,
            Trouble::refused("has a size that no file can have")
        );
    }
}
