//! A cell: what one exec lives in. Fresh namespaces and its own cgroup, used once, then destroyed.
//!
//! The recipe in order; each line is a step of the file it names:
//!
//! | who | file | does |
//! |---|---|---|
//! | warden | `terminal` | where asked for, makes the terminal and the instance that becomes `/dev/pts` |
//! | | `open` (here) | clones the child into pid and time namespaces and the v2 cgroup |
//! | child, host root | `child` | joins the v1 cgroups; cgroup, net, ipc and uts namespaces; copies the runtime's mount namespace |
//! | | `rootfs`, `devices` | ephemeral only: overlay over a fresh tmpfs, pivot_root; `/dev`, which others have in their template |
//! | | `procfs`, `devices` | `/proc`, `/dev/pts`, `/dev/shm`, perhaps `/tmp` |
//! | | `landlock` | makes the domain that the payload will enter |
//! | | `child` | loopback up, host name, *then* its user namespace: all others belong to the host's |
//! | warden | `userns` | writes the uid and gid maps |
//! | child, now init | `init` | forks the payload, gives up every right but to signal it, reaps, reports |
//! | | `netlink` | lets the payload have a few netlink sockets |
//! | payload | `payload`, `identity` | ids, capabilities, rlimits, Landlock, then waits for its order |
//! | warden | | sends the order: the command and its streams; perhaps long after all the rest |
//! | payload | `payload` | either: cwd, look-up, seccomp, execve |
//! | | `file` | or: seccomp, and one file is read or written |
//!
//! Because the user namespace comes last, the payload has no power over the other namespaces even if it had
//! capabilities: mount and umount are EPERM.

pub mod child;
pub mod command;
pub mod devices;
pub mod error;
pub mod file;
pub mod identity;
pub mod init;
pub mod landlock;
pub mod lookup;
pub mod mounts;
pub mod netlink;
pub mod payload;
pub mod procfs;
pub mod report;
pub mod rootfs;
pub mod terminal;
pub mod userns;

use crate::landlock::Abi;
use crate::sys::{self, Cloned, packet};
use error::{Result, Step};
use identity::Ids;
use nix::sys::resource::Resource;
use nix::unistd::Pid;
use seccompiler::BpfProgram;
use std::os::fd::{BorrowedFd, OwnedFd};

/// The part of a cell that its profile decides; made once per profile.
#[derive(Debug)]
pub struct Sandbox {
    /// Size of `/dev/shm` in bytes.
    pub shm_bytes: u64,
    /// Size of a fresh `/tmp` in bytes.
    pub tmp_bytes: u64,
    /// Paths below `/proc` that are covered.
    pub masked_paths: Vec<String>,
    /// Paths below `/proc` that can't be written.
    pub readonly_paths: Vec<String>,
    /// Options of the proc file system.
    pub proc_options: Vec<(&'static str, &'static str)>,
    /// (resource, soft, hard).
    pub rlimits: Vec<(Resource, u64, u64)>,
    /// File mode creation mask.
    pub umask: u32,
    /// The profile's filter.
    pub seccomp: BpfProgram,
    /// It allows all of [`payload::CALLS_AFTER_ORDER`].
    pub seccomp_early: bool,
    /// The kernel's Landlock ABI.
    pub landlock: Abi,
    /// Whether Landlock is to deny TCP.
    pub deny_tcp: bool,
}

/// All that a cell is opened with.
#[derive(Debug)]
pub struct Spec<'a> {
    /// The runtime's template mount namespace.
    pub template: BorrowedFd<'a>,
    /// Set for an ephemeral runtime: the layers to assemble, and the bytes of the fresh tmpfs above them.
    pub fresh: Option<(&'a rootfs::Layers, u64)>,
    /// Whether nothing but the cell's own mounts is to be written to.
    pub read_only: bool,
    /// Whether `/tmp` is a tmpfs of the cell.
    pub fresh_tmp: bool,
    /// The devpts instance with the command's terminal, where it has one.
    pub pts: Option<BorrowedFd<'a>>,
    /// The v2 cgroup to be born in.
    pub clone_into: Option<BorrowedFd<'a>>,
    /// `tasks` files of the v1 groups to join.
    pub attach: &'a [OwnedFd],
    /// Host name inside.
    pub hostname: &'a str,
    /// First host uid of the runtime's range.
    pub uid_base: u32,
    /// Who the command is inside.
    pub ids: Ids,
    /// What the profile decides.
    pub sandbox: &'a Sandbox,
}

/// A cell whose child runs.
#[derive(Debug)]
pub struct Open {
    /// The child, later the cell's init.
    pub pid: Pid,
    /// Becomes readable when it and with it every process of the cell is gone.
    pub pidfd: OwnedFd,
    /// The warden's end of the control socket.
    pub control: OwnedFd,
    /// The warden's end of the socket that the payload's order comes from; it may be sent at any time.
    pub order: OwnedFd,
}

/// Clones the cell's first process. It answers on the control socket, see [`report`].
pub fn open(spec: &Spec<'_>) -> Result<Open> {
    let (ours, theirs) = packet::pair().step("make the control socket")?;
    let (order, awaited) = packet::pair().step("make the order's socket")?;
    /// linux/sched.h, Linux 5.6; libc has it for other targets only.
    const CLONE_NEWTIME: libc::c_int = 0x80;
    // The others the child makes itself: a network namespace takes longer than all else together, and the warden's time is
    // everybody's.
    let flags = libc::CLONE_NEWPID | CLONE_NEWTIME;
    match sys::clone3(flags, spec.clone_into).step("clone the cell")? {
        Cloned::Child => {
            drop((ours, order));
            child::run(spec, theirs, awaited)
        }
        Cloned::Parent { pid, pidfd } => Ok(Open {
            pid,
            pidfd,
            control: ours,
            order,
        }),
    }
}
