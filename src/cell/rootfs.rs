//! A runtime's root file system, in two steps.
//!
//! [`scaffold`] gathers its pieces in a private mount namespace whose root is nothing but them: the image layers,
//! idmapped to the runtime's uid range, the host directories it shows, and its disk. [`assemble`] stacks them into the
//! root a command sees and pivots into it. A persistent or read-only runtime does both once, in its *template*
//! namespace, which every cell copies; an ephemeral one assembles in each cell, over a fresh tmpfs.
//!
//! Nothing of the host's own tree is left in the namespace after the first pivot.

use crate::cell::error::{Result, Step};
use crate::cell::mounts::{self, NOSUID_NODEV, READ_ONLY};
use crate::sys;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, setfsgid, setfsuid, unlinkat};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A host directory that is shown read-only inside, not idmapped: root-only files in it stay unreadable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// On the host.
    pub source: PathBuf,
    /// One path component below the cell's root.
    pub target: &'static str,
}

/// What a root file system is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// Read-only directories of root's, the uppermost first, none of them twice (the kernel refuses that).
    pub lower: Vec<PathBuf>,
    /// Host directories on top of the stack.
    pub binds: Vec<Bind>,
}

/// Where writes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writable {
    /// To the runtime's own disk in the scaffold, which holds `upper` and `work`.
    Disk,
    /// To a tmpfs of this many bytes, made in each cell.
    Fresh(u64),
    /// Nowhere.
    None,
}

/// Makes the private namespace and gathers the pieces in it; the caller's root is then the scaffold. `anchor` is any
/// directory: the scaffold needs a place to be attached to for the moment before it becomes the root. Returns a descriptor
/// of the namespace, which keeps it alive.
pub fn scaffold(
    layers: &Layers,
    disk: Option<OwnedFd>,
    base: u32,
    anchor: &Path,
) -> Result<OwnedFd> {
    let userns = crate::cell::userns::mapped(base)?;
    unshare(CloneFlags::CLONE_NEWNS).step("unshare the mount namespace")?;
    let namespace = std::fs::File::open("/proc/self/ns/mnt").step("open the mount namespace")?;
    let root = mounts::root()?;
    sys::mount::mount_setattr(root.as_fd(), 0, None, true).step("make all mounts private")?;

    let mut pieces: Vec<(CString, OwnedFd)> = Vec::new();
    for (index, path) in layers.lower.iter().enumerate() {
        let step = format!("idmap {}", path.display());
        let dir = mounts::host_dir(path)?;
        let piece = sys::mount::open_tree_clone(dir.as_fd(), c"", false).step(&step)?;
        sys::mount::mount_setattr(piece.as_fd(), READ_ONLY, Some(userns.as_fd()), false)
            .step(&step)?;
        pieces.push((lower_name(index), piece));
    }
    for bind in &layers.binds {
        let step = format!("bind {}", bind.source.display());
        let dir = mounts::host_dir(&bind.source)?;
        let piece = sys::mount::open_tree_clone(dir.as_fd(), c"", true).step(&step)?;
        sys::mount::mount_setattr(piece.as_fd(), READ_ONLY, None, true).step(&step)?;
        pieces.push((bind_name(bind), piece));
    }
    pieces.extend(disk.map(|disk| (c"disk".to_owned(), disk)));

    let scaffold = mounts::tmpfs(65536, PLACES, 0, "700", NOSUID_NODEV)?;
    for name in pieces
        .iter()
        .map(|(name, _)| name.as_c_str())
        .chain([c"rootfs", c"fresh"])
    {
        mkdirat(&scaffold, name, Mode::S_IRWXU).step("make a place in the scaffold")?;
    }
    give(&scaffold, TOP, base)?;
    let anchor = mounts::host_dir(anchor)?;
    sys::mount::move_mount(scaffold.as_fd(), anchor.as_fd()).step("attach the scaffold")?;
    mounts::pivot(scaffold.as_fd())?;
    for (name, piece) in &pieces {
        mounts::attach(piece.as_fd(), scaffold.as_fd(), name)?;
    }
    Ok(namespace.into())
}

/// Stacks the pieces of the caller's scaffold and makes the result the root; the scaffold is gone afterwards.
pub fn assemble(layers: &Layers, writable: &Writable, base: u32) -> Result<()> {
    let scaffold = mounts::root()?;
    let lower = (0..layers.lower.len()).map(|i| lower_name(i).to_string_lossy().into_owned());
    let upper = match writable {
        Writable::None => None,
        Writable::Disk => Some("disk"),
        Writable::Fresh(bytes) => {
            let inodes = mounts::inodes_for(*bytes);
            let fresh = mounts::tmpfs(*bytes, inodes, 0, "700", NOSUID_NODEV)?;
            prepare_upper(&fresh, base)?;
            mounts::attach(fresh.as_fd(), scaffold.as_fd(), c"fresh")?;
            Some("fresh")
        }
    };
    // Without an upper layer the root directory itself would be that of the uppermost image layer, whose owner and mode
    // are nobody's choice: then an empty one of ours is on top.
    let top = upper.is_none().then(|| TOP.to_owned());
    let lower: Vec<String> = top
        .into_iter()
        .chain(lower)
        .map(|n| format!("/{n}"))
        .collect();
    let mut options = format!("lowerdir={}", lower.join(":"));
    if let Some(name) = upper {
        options += &format!(",upperdir=/{name}/upper,workdir=/{name}/work");
    }
    let merged = mounts::overlay(&options, c"/rootfs", upper.is_none())?;
    for bind in &layers.binds {
        let step = format!("show {}", bind.source.display());
        let piece =
            sys::mount::open_tree_clone(scaffold.as_fd(), &bind_name(bind), true).step(&step)?;
        let target = CString::new(bind.target).expect("a constant without NUL");
        mounts::attach(piece.as_fd(), merged.as_fd(), &target)?;
    }
    mounts::pivot(merged.as_fd())
}

/// Lets the files that belong to the range `from` on a disk that is not attached yet belong to the range `base`.
///
/// # Errors
/// EINVAL where the kernel can't: overlays take idmapped layers from Linux 5.19 on.
pub fn shift(disk: &OwnedFd, from: u32, base: u32) -> Result<()> {
    let userns = crate::cell::userns::shifted(from, base)?;
    sys::mount::mount_setattr(disk.as_fd(), NOSUID_NODEV, Some(userns.as_fd()), false)
        .step("idmap the disk")
}

/// Inodes of a scaffold: a directory for each of at most 127 layers of an image and what is below them, and a few more.
const PLACES: u64 = 256;

/// An empty layer.
const TOP: &str = "top";

/// Directory of the files that only keep inodes taken.
const SPARE: &str = "spare";

/// Overlayfs makes up to three inodes while it is mounted, to see what the layer can (ovl_make_workdir).
const SPARES: u32 = 8;

/// Sets inodes aside on a layer, and gives them free again for a mount (`keep` is false): a tenant who used up all others
/// would else have a disk that can't be mounted any more. In vain where there are none left.
///
/// Done as the range's root, whose files they are: through the idmapped mount of a copied disk nobody else has a right.
pub fn keep_spares(layer: BorrowedFd<'_>, base: u32, keep: bool) {
    setfsgid(Gid::from_raw(base));
    setfsuid(Uid::from_raw(base));
    if let Ok(spare) = mounts::beneath(layer, c"spare") {
        for number in 0..SPARES {
            let name = number.to_string();
            let done = if keep {
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                openat(&spare, name.as_str(), flags, Mode::empty()).map(drop)
            } else {
                unlinkat(&spare, name.as_str(), UnlinkatFlags::NoRemoveDir)
            };
            if done.is_err() {
                break;
            }
        }
    }
    setfsuid(Uid::from_raw(0));
    setfsgid(Gid::from_raw(0));
}

/// Makes the overlay's `upper` (the later root directory, so it belongs to the range's root), `work` and what holds the
/// spare inodes on a writable layer; existing ones stay as they are.
pub fn prepare_upper(layer: &OwnedFd, base: u32) -> Result<()> {
    for name in ["upper", "work", SPARE] {
        give(layer, name, base)?;
    }
    Ok(())
}

/// Makes a directory that belongs to the range's root and that all may enter; an existing one stays as it is.
fn give(parent: &OwnedFd, name: &str, base: u32) -> Result<()> {
    match mkdirat(parent, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) => {
            let owner = (Some(Uid::from_raw(base)), Some(Gid::from_raw(base)));
            fchownat(parent, name, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW)
                .step("give the layer to the range")
        }
        Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno).step(&format!("make {name} on the layer")),
    }
}

fn lower_name(index: usize) -> CString {
    CString::new(format!("lower{index}")).expect("digits hold no NUL")
}

fn bind_name(bind: &Bind) -> CString {
    CString::new(format!("bind-{}", bind.target)).expect("a constant without NUL")
}
