//! `/proc` of a cell: a fresh instance for its pid namespace, with the host's secrets masked and its knobs read-only.

use crate::cell::Sandbox;
use crate::cell::error::{Result, Step};
use crate::cell::mounts::{self, NOSUID_NODEV, READ_ONLY};
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstatat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

/// Mounts `/proc`, then covers the masked paths (a file by `/dev/null`, a directory by an empty one) and makes the
/// read-only ones immutable. All are absolute paths below `/proc`; those that the kernel lacks are passed over.
/// `dev` is the cell's `/dev` with nothing mounted below it yet: its `null` and one of its directories are what covers.
pub fn mount_proc(root: BorrowedFd<'_>, dev: BorrowedFd<'_>, sandbox: &Sandbox) -> Result<()> {
    let names: Vec<CString> = sandbox
        .proc_options
        .iter()
        .map(|(name, _)| CString::new(*name).expect("a constant without NUL"))
        .collect();
    let options: Vec<_> = names
        .iter()
        .zip(&sandbox.proc_options)
        .map(|(n, (_, value))| (n.as_c_str(), *value))
        .collect();
    let proc = mounts::new(c"proc", &options, NOSUID_NODEV | libc::MOUNT_ATTR_NOEXEC)?;
    mounts::attach(proc.as_fd(), root, c"proc")?;
    give_up_orphans(proc.as_fd())?;

    let masked = match cfg!(cellblock_without = "masked-paths") {
        true => &[][..],
        false => &sandbox.masked_paths,
    };
    nix::unistd::fchdir(&proc).step("enter /proc")?;
    let (mut file, mut directory) = (Cover::new(c"null", 0), Cover::new(c"pts", READ_ONLY));
    for path in masked {
        let step = format!("mask {path}");
        let name = below_proc(path).step(&step)?;
        // Looked at first, for a cover that finds no place is dear: to close a mount that is attached nowhere waits for an RCU
        // grace period.
        let found = match fstatat(proc.as_fd(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => continue,
            other => SFlag::from_bits_truncate(other.step(&step)?.st_mode) & SFlag::S_IFMT,
        };
        let cover = if found == SFlag::S_IFDIR {
            &mut directory
        } else {
            &mut file
        };
        cover.put(dev, proc.as_fd(), name, found).step(&step)?;
    }
    for path in &sandbox.readonly_paths {
        let step = format!("make {path} read-only");
        let name = below_proc(path).step(&step)?;
        let same = match sys::mount::open_tree_clone(proc.as_fd(), &name, false) {
            Err(Errno::ENOENT) => continue,
            other => other.step(&step)?,
        };
        let attributes = READ_ONLY | libc::MOUNT_ATTR_NOEXEC;
        sys::mount::mount_setattr(same.as_fd(), attributes, None, false).step(&step)?;
        cover_up(same.as_fd(), proc.as_fd(), &name).step(&step)?;
    }
    Ok(())
}

/// What covers masked paths of one kind.
struct Cover {
    /// Below `/dev`.
    source: &'static CStr,
    /// MOUNT_ATTR_* beside those of `/dev`.
    attributes: u64,
    /// One that is covered already, from which others are: to bind it again takes one call, to clone the source and attach
    /// that takes four and is three times as dear.
    first: Option<CString>,
}

impl Cover {
    fn new(source: &'static CStr, attributes: u64) -> Self {
        Self {
            source,
            attributes,
            first: None,
        }
    }

    /// Covers `name`, which is of the kind `found`, below `proc`, which is the working directory too.
    fn put(
        &mut self,
        dev: BorrowedFd<'_>,
        proc: BorrowedFd<'_>,
        name: CString,
        found: SFlag,
    ) -> nix::Result<()> {
        // mount(2) looks both names up and follows links: only for what is neither one nor behind one.
        let plain = matches!(found, SFlag::S_IFREG | SFlag::S_IFDIR) && !is_path(&name);
        if let (true, Some(first)) = (plain, &self.first) {
            let none = None::<&CStr>;
            return mount(
                Some(first.as_c_str()),
                name.as_c_str(),
                none,
                MsFlags::MS_BIND,
                none,
            );
        }
        let cover = sys::mount::open_tree_clone(dev, self.source, false)?;
        sys::mount::mount_setattr(cover.as_fd(), self.attributes, None, false)?;
        cover_up(cover.as_fd(), proc, &name)?;
        if plain {
            self.first = Some(name);
        }
        Ok(())
    }
}

fn is_path(name: &CStr) -> bool {
    name.to_bytes().contains(&b'/')
}

/// An absolute path below `/proc` as it is seen from there.
fn below_proc(path: &str) -> nix::Result<CString> {
    let name = path.trim_start_matches('/').strip_prefix("proc/");
    CString::new(name.ok_or(Errno::EINVAL)?).map_err(|_| Errno::EINVAL)
}

/// Attaches a detached mount on what a path below `/proc` leads to. Links are not followed; where there is nothing on the
/// way, nobody needs to look for them.
fn cover_up(cover: BorrowedFd<'_>, proc: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    if is_path(name) {
        let target = mounts::beneath(proc, name)?;
        return sys::mount::move_mount(cover, target.as_fd());
    }
    sys::mount::move_mount_onto(cover, proc, name)
}

/// A TCP socket that its process has left with bytes to send outlives the cell, and the network namespace and the bytes with
/// it, until the kernel has sent them again often enough without an answer: eight times, which takes minutes. On a loopback
/// device the other end answers at once or is gone, so once is enough (tcp_orphan_retries in ip-sysctl.rst). Of the caller's
/// network namespace, and before `/proc/sys` is read-only.
fn give_up_orphans(proc: BorrowedFd<'_>) -> Result<()> {
    if cfg!(cellblock_without = "network-namespace") {
        // It would be the machine's own setting.
        return Ok(());
    }
    let step = "set tcp_orphan_retries";
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    match openat(
        proc,
        "sys/net/ipv4/tcp_orphan_retries",
        flags,
        Mode::empty(),
    ) {
        Ok(file) => nix::unistd::write(file, b"1").step(step).map(drop),
        // A kernel without IPv4 has no TCP.
        Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno).step(step),
    }
}
