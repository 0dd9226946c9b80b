//! Fetching one blob into a file: counted and digested while it comes, taken up again where it broke.

use super::client::Answer;
use super::fault::Fault;
use super::registry::Registry;
use crate::image::digest::Digest;
use crate::image::import::manifest::Descriptor;
use crate::image::progress::{Progress, Step};
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

/// How often a transfer is begun or taken up again without any progress between.
const TRIES: u32 = 4;

/// What counts as progress between two breaks, and so allows for further tries.
const PROGRESS: u64 = 1 << 20;

/// Fewer bytes within the patience are no progress, however steadily they trickle.
const LEAST: u64 = 1 << 10;

/// Bytes that are read at once.
const PIECE: usize = 128 << 10;

/// A blob under way.
struct Fetch<'a> {
    wanted: &'a Descriptor,
    path: &'a Path,
    file: File,
    hash: Sha256,
    got: u64,
    step: Box<dyn Step + 'a>,
}

/// Puts a blob into a new file; `what` it is, for who watches. When this fails the file holds nothing that is of use.
pub(super) fn fetch(
    registry: &mut Registry,
    wanted: &Descriptor,
    path: &Path,
    what: &str,
    progress: &dyn Progress,
) -> Result<(), Fault> {
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(path);
    let mut fetch = Fetch {
        wanted,
        path,
        file: made.map_err(|source| write_fault(path, source))?,
        hash: Sha256::new(),
        got: 0,
        step: progress.begin(what, Some(wanted.size)),
    };
    let blob = format!("blobs/{}", wanted.digest);
    let (mut tries, mut mark) = (0, 0);
    while let Err(fault) = fetch.attempt(registry, &blob, progress) {
        if fetch.got >= mark + PROGRESS {
            tries = 0;
        }
        // Of the furthest that it came: to begin again and to break again is no progress.
        mark = mark.max(fetch.got);
        tries += 1;
        if !fault.is_passing() || tries == TRIES {
            return Err(fault);
        }
        registry
            .client
            .pause(None, tries, &fault.to_string(), progress);
    }
    let got = Digest::finish(fetch.hash);
    if got != wanted.digest {
        let host = registry.origin.to_string();
        return Err(Fault::Digest { host, got });
    }
    Ok(())
}

impl Fetch<'_> {
    /// One answer's worth: the rest of the blob, or the whole where the server can't give the rest.
    fn attempt(
        &mut self,
        registry: &mut Registry,
        blob: &str,
        progress: &dyn Progress,
    ) -> Result<(), Fault> {
        if self.got == self.wanted.size && self.got > 0 {
            return Ok(());
        }
        let range = format!("bytes={}-", self.got);
        let headers = [("range", range.as_str())];
        let asked = if self.got > 0 { &headers[..] } else { &[] };
        let answer = match registry.get(blob, asked, progress) {
            // It knows ranges, but not this one.
            Err(Fault::Status { status: 416, .. }) if self.got > 0 => {
                self.restart()?;
                registry.get(blob, &[], progress)?
            }
            answer => answer?,
        };
        if answer.response.status() != 206 {
            self.restart()?;
        } else if answer.range_start() != Some(self.got) {
            let host = answer.from.to_string();
            let text = format!("{host} sends another part of the blob than was asked for");
            return Err(Fault::Document(text));
        }
        self.receive(registry, answer)
    }

    fn restart(&mut self) -> Result<(), Fault> {
        if self.got > 0 {
            let emptied = self.file.set_len(0);
            let emptied = emptied.and_then(|()| self.file.seek(SeekFrom::Start(0)));
            emptied.map_err(|source| write_fault(self.path, source))?;
            self.hash = Sha256::new();
            self.got = 0;
            self.step.at(0);
        }
        Ok(())
    }

    fn receive(&mut self, registry: &Registry, answer: Answer) -> Result<(), Fault> {
        let client = &registry.client;
        let (from, promised) = (answer.from, self.wanted.size);
        let host = from.to_string();
        let left = promised - self.got;
        let body = answer.response.into_body();
        if let Some(sent) = body.content_length().filter(|length| *length != left) {
            let sent = (self.got + sent).to_string();
            return Err(Fault::Size {
                host,
                promised,
                sent,
            });
        }
        let mut body = body.into_reader();
        let mut piece = vec![0; PIECE];
        let (mut since, mut lately) = (Instant::now(), 0);
        loop {
            let read = body.read(&mut piece);
            let count = read.map_err(|error| client.fault(error.into(), &from))?;
            if count == 0 {
                break;
            }
            let count = count as u64;
            if count > promised - self.got {
                let sent = format!("more than {promised}");
                return Err(Fault::Size {
                    host,
                    promised,
                    sent,
                });
            }
            let bytes = &piece[..count as usize];
            let written = self.file.write_all(bytes);
            written.map_err(|source| write_fault(self.path, source))?;
            self.hash.update(bytes);
            self.got += count;
            self.step.at(self.got);
            lately += count;
            if since.elapsed() > client.patience {
                if lately < LEAST {
                    let (least, patience) = (LEAST, client.patience);
                    return Err(Fault::Trickle {
                        host,
                        least,
                        patience,
                    });
                }
                (since, lately) = (Instant::now(), 0);
            }
        }
        if self.got < promised {
            // A body without a length ends where the connection does.
            let early = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(client.fault(ureq::Error::Io(early), &from));
        }
        Ok(())
    }
}

impl Answer {
    /// Where the part of a blob begins that this is.
    fn range_start(&self) -> Option<u64> {
        let range = self.header("content-range")?;
        let (start, _) = range.strip_prefix("bytes ")?.split_once('-')?;
        start.parse().ok()
    }
}

fn write_fault(path: &Path, source: io::Error) -> Fault {
    Fault::Write {
        path: path.display().to_string(),
        source,
    }
}
