//! A layer: every entry of the archive is checked, then put in its place.

use super::names::{self, Meaning};
use super::place::{self, Attributes};
use super::stream::Stream;
use super::tar::{Archive, Entry, Kind, Named};
use super::tree::{Found, Tree};
use super::trouble::{Result, Trouble};
use super::{Bounds, IDS, Unpacked};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};

/// What headers may add to the bytes of files: twelve blocks for each entry.
const HEADERS: u64 = 6 << 10;
/// What may be remembered of names in bytes, beside what a tree of them costs.
const REMEMBERED: usize = 64 << 20;
/// Directories of the root that a cell mounts over.
const MOUNT_POINTS: [&[u8]; 3] = [b"dev", b"proc", b"tmp"];

/// How far the stream of a layer may go.
pub fn most(bounds: &Bounds) -> u64 {
    let headers = bounds.entries.saturating_add(1).saturating_mul(HEADERS);
    bounds.bytes.saturating_add(headers)
}

/// What is done so far.
struct Layer<'a> {
    bounds: &'a Bounds,
    tree: Tree,
    bytes: u64,
    /// Those of them that are the holes of sparse files.
    holes: u64,
    entries: u64,
    /// Times of directories, which are set when nothing more is put into them.
    times: BTreeMap<names::Path, (i64, u32)>,
    /// Directories that hide those below them.
    opaque: BTreeSet<names::Path>,
    /// Directories that no entry named.
    implied: BTreeSet<names::Path>,
    remembered: usize,
}

/// Unpacks the whole archive into `root`. Also tells which directories hide those of lower layers.
pub fn unpack(
    stream: Stream,
    root: OwnedFd,
    bounds: &Bounds,
) -> Named<(Unpacked, BTreeSet<names::Path>)> {
    let mut layer = Layer {
        bounds,
        tree: Tree::new(root),
        bytes: 0,
        holes: 0,
        entries: 0,
        times: BTreeMap::new(),
        opaque: BTreeSet::new(),
        implied: BTreeSet::new(),
        remembered: 0,
    };
    let mut archive = Archive::new(stream);
    let mut current: Option<Vec<u8>> = None;
    layer.begin().map_err(|trouble| (None, trouble))?;
    loop {
        // What fails between two entries is told with the earlier one.
        let next = archive.next();
        let Some(entry) = next.map_err(|(name, trouble)| (name.or(current.take()), trouble))?
        else {
            break;
        };
        let done = layer.take(&entry, &mut archive);
        done.map_err(|trouble| (Some(entry.name.clone()), trouble))?;
        current = Some(entry.name);
    }
    let after = |trouble| (None, trouble);
    layer.set_times().map_err(after)?;
    let (diff_id, _) = archive
        .into_stream()
        .finish(layer.holes)
        .map_err(|e| after(e.into()))?;
    let Layer {
        tree,
        mut opaque,
        implied,
        bytes,
        entries,
        ..
    } = layer;
    opaque.retain(|path| tree.readable(path).is_ok());
    let unpacked = Unpacked {
        diff_id,
        bytes,
        entries,
        implied,
    };
    Ok((unpacked, opaque))
}

impl Layer<'_> {
    /// Where an archive says nothing of its root, that is anybody's to enter.
    fn begin(&mut self) -> Result<()> {
        let root = self.tree.readable(b"");
        let root = root.map_err(|errno| Trouble::placing("open the root", errno))?;
        place::attributes(root.as_fd(), &Attributes::of_root())
    }

    fn take(&mut self, entry: &Entry, archive: &mut Archive<Stream>) -> Result<()> {
        self.count()?;
        let path = names::check(&entry.name, self.bounds)?;
        match names::meaning(path)? {
            Meaning::Nothing => Ok(()),
            Meaning::Whiteout(path) => self.whiteout(&path),
            Meaning::Opaque(path) if path.is_empty() => Err(Trouble::refused(
                "hides all of the lower layers, which is not supported",
            )),
            Meaning::Opaque(path) => {
                self.make_parents(&names::join(&path, b"x"))?;
                self.remember_opaque(&path)
            }
            Meaning::Entry(path) => self.entry(&path, entry, archive),
        }
    }

    fn entry(&mut self, path: &[u8], entry: &Entry, archive: &mut Archive<Stream>) -> Result<()> {
        if entry.kind != Kind::Directory && MOUNT_POINTS.contains(&path) {
            return Err(Trouble::refused(
                "has to be a directory: a cell mounts there",
            ));
        }
        if path.is_empty() && entry.kind != Kind::Directory {
            return Err(Trouble::refused("is the root and no directory"));
        }
        let attributes = Attributes::of(entry, ids(entry)?);
        match entry.kind {
            Kind::Device => {
                let reason = "is a device, which no image can have; leave it out (a command finds its own /dev)";
                return Err(Trouble::refused(reason));
            }
            Kind::Fifo => {
                let reason = "is a named pipe, which no image can have; leave it out";
                return Err(Trouble::refused(reason));
            }
            Kind::Unknown(flag) => {
                let flag = flag.escape_ascii();
                return Err(Trouble::refused(format!("is of the unknown type '{flag}'")));
            }
            Kind::Directory => return self.directory(path, &attributes),
            Kind::HardLink => return self.hard_link(path, &entry.link),
            Kind::Symlink => place::check_target(&entry.link)?,
            Kind::File => {}
        }
        self.add_bytes(entry.size)?;
        self.holes += entry.holes();
        self.add_bytes(attributes.xattr_bytes())?;
        self.make_parents(path)?;
        self.make_room(path)?;
        let (parent, name) = names::split(path);
        let parent = self.tree.directory(parent);
        let parent = parent.map_err(|errno| Trouble::placing("open its directory", errno))?;
        match entry.kind {
            Kind::Symlink => place::symlink(parent, name, &entry.link, &attributes),
            _ => place::file(parent, name, entry, archive, &attributes),
        }
    }

    fn directory(&mut self, path: &[u8], attributes: &Attributes<'_>) -> Result<()> {
        self.add_bytes(attributes.xattr_bytes())?;
        if !path.is_empty() {
            self.make_parents(path)?;
            self.ensure_directory(path, 0o755)?;
        }
        self.implied.remove(path);
        self.remember(path)?;
        self.times.insert(path.to_vec(), attributes.mtime);
        let opened = self.tree.readable(path);
        let opened = opened.map_err(|errno| Trouble::placing("open the directory", errno))?;
        place::attributes(opened.as_fd(), attributes)
    }

    /// What takes the place of something else of this layer takes that of a directory below, too.
    fn ensure_directory(&mut self, path: &[u8], mode: u32) -> Result<()> {
        match self.tree.look(path)? {
            Found::Directory => return Ok(()),
            Found::Nothing => {}
            Found::Whiteout | Found::Other => {
                self.tree.remove(path)?;
                self.remember_opaque(path)?;
            }
        }
        self.tree.make_directory(path, mode)
    }

    fn hard_link(&mut self, path: &[u8], raw: &[u8]) -> Result<()> {
        let shown = names::show(raw);
        let refuse = |why: &str| {
            Err(Trouble::refused(format!(
                "is a hard link to {shown}, {why}"
            )))
        };
        let target = match names::check(raw, self.bounds) {
            Ok(target) => target,
            Err(_) => return refuse("which is no name inside the layer"),
        };
        if target == path {
            return refuse("which is itself");
        }
        let missing = "which is no earlier file of this layer";
        let (target_parent, target_name) = names::split(&target);
        match self.tree.directory(target_parent) {
            Err(nix::errno::Errno::ELOOP) => return refuse("which goes through a symbolic link"),
            Err(_) => return refuse(missing),
            Ok(_) => {}
        }
        if self.tree.look(&target)? != Found::Other {
            return refuse(missing);
        }
        self.make_parents(path)?;
        self.make_room(path)?;
        let Ok(from) = self.tree.readable(target_parent) else {
            return refuse(missing);
        };
        let (parent, name) = names::split(path);
        let to = self.tree.directory(parent);
        let to = to.map_err(|errno| Trouble::placing("open its directory", errno))?;
        match place::hard_link(&from, target_name, to, name) {
            Err(nix::errno::Errno::ENOENT) => refuse(missing),
            other => other.map_err(|errno| Trouble::placing("link it", errno)),
        }
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        self.make_parents(path)?;
        match self.tree.look(path)? {
            // Of this layer: it stays, and takes the place of what is below.
            Found::Directory => self.remember_opaque(path),
            Found::Other | Found::Whiteout => Ok(()),
            Found::Nothing if MOUNT_POINTS.contains(&path) => {
                let mode = place::implied_mode(path);
                self.tree.make_directory(path, mode)?;
                self.remember_opaque(path)
            }
            Found::Nothing => self.tree.make_whiteout(path),
        }
    }

    /// Makes the directories above a path that no entry told of. Nothing but directories may be there.
    fn make_parents(&mut self, path: &[u8]) -> Result<()> {
        let (parent, _) = names::split(path);
        if self.tree.directory(parent).is_ok() {
            return Ok(());
        }
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let above = &path[..at];
            match self.tree.look(above)? {
                Found::Directory => continue,
                Found::Nothing => {
                    self.remember(above)?;
                    self.implied.insert(above.to_vec());
                }
                // That of a lower layer is gone, and this is another one.
                Found::Whiteout => {
                    self.tree.remove(above)?;
                    self.remember_opaque(above)?;
                }
                // The next step tells a link from a file.
                Found::Other => {
                    let opened = self.tree.directory(above).map(drop);
                    return opened.map_err(|errno| Trouble::placing("open its directory", errno));
                }
            }
            self.count()?;
            let mode = place::implied_mode(above);
            self.tree.make_directory(above, mode)?;
        }
        Ok(())
    }

    /// Takes an earlier entry of the same name away, and what is remembered of it.
    fn make_room(&mut self, path: &[u8]) -> Result<()> {
        if self.tree.look(path)? == Found::Nothing {
            return Ok(());
        }
        self.tree.remove(path)?;
        let (first, after) = ([path, b"/"].concat(), [path, b"0"].concat());
        self.times.remove(path);
        let below = self.times.range(first.clone()..after.clone());
        for path in below.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.times.remove(&path);
        }
        for names in [&mut self.opaque, &mut self.implied] {
            names.remove(path);
            let below = names.range(first.clone()..after.clone());
            for path in below.cloned().collect::<Vec<_>>() {
                names.remove(&path);
            }
        }
        Ok(())
    }

    fn set_times(&mut self) -> Result<()> {
        for (path, mtime) in std::mem::take(&mut self.times) {
            let opened = self.tree.readable(&path);
            let set = opened.and_then(|dir| place::set_time(&dir, mtime));
            set.map_err(|errno| Trouble::placing("set the time of a directory", errno))?;
        }
        Ok(())
    }

    fn remember_opaque(&mut self, path: &[u8]) -> Result<()> {
        self.remember(path)?;
        self.opaque.insert(path.to_vec());
        Ok(())
    }

    fn remember(&mut self, path: &[u8]) -> Result<()> {
        self.remembered += path.len();
        match self.remembered > REMEMBERED {
            true => Err(Trouble::refused(
                "has too many long names of directories before it",
            )),
            false => Ok(()),
        }
    }

    fn count(&mut self) -> Result<()> {
        self.entries += 1;
        let most = self.bounds.entries;
        match self.entries > most {
            true => Err(Trouble::refused(format!(
                "is one more than the {most} entries allowed"
            ))),
            false => Ok(()),
        }
    }

    fn add_bytes(&mut self, bytes: u64) -> Result<()> {
        let most = self.bounds.bytes;
        self.bytes = self.bytes.saturating_add(bytes);
        match self.bytes > most {
            true => Err(Trouble::refused(format!(
                "brings the files to more than {most} bytes"
            ))),
            false => Ok(()),
        }
    }
}

/// Owner and group, which have to be among those that an image may use.
pub(super) fn ids(entry: &Entry) -> Result<(u32, u32)> {
    let check = |id: i64, what: &str| {
        let known = u32::try_from(id).ok().filter(|id| *id < IDS);
        known.ok_or_else(|| {
            let last = IDS - 1;
            Trouble::refused(format!("belongs to {what} {id}; 0 to {last} are allowed"))
        })
    };
    Ok((check(entry.uid, "uid")?, check(entry.gid, "gid")?))
}
