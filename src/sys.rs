//! Every raw system call of the project, and with them every `unsafe`: wrappers that are safe to call, one per call,
//! for what `nix` does not offer. Errors are the kernel's errno; callers add the operation and the path.

pub mod packet;
pub mod polled;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::SigSet;
use nix::unistd::{ForkResult, Pid};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

type Result<T> = std::result::Result<T, Errno>;

/// Turns a raw syscall's return value into a number or errno.
fn check(value: libc::c_long) -> Result<libc::c_long> {
    if value < 0 {
        Err(Errno::last())
    } else {
        Ok(value)
    }
}

/// Takes ownership of a descriptor that a system call has just returned.
fn new_fd(value: libc::c_long) -> OwnedFd {
    // SAFETY: the caller passes the non-negative result of a call that returns a fresh descriptor; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(value as RawFd) }
}

/// What [`clone3`] returns in each of the two processes.
#[derive(Debug)]
pub enum Cloned {
    /// In the parent: the child's pid and a pidfd of it.
    Parent {
        /// Its pid in the caller's pid namespace.
        pid: Pid,
        /// Becomes readable when the child has exited.
        pidfd: OwnedFd,
    },
    /// In the child.
    Child,
}

/// clone3(2) without a new stack: like fork, into new namespaces (`flags`, CLONE_NEW*) and, where given, straight into a
/// v2 cgroup (CLONE_INTO_CGROUP, Linux 5.7), which unlike a write to cgroup.procs does not wait for an RCU grace period.
///
/// Only for a single-threaded caller: the child continues with a copy of the whole address space, locks included.
pub fn clone3(flags: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned> {
    /// linux/sched.h; libc's constant is too narrow for it.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain integers; all zero is its documented neutral value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags as u64 & 0xffff_ffff | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: args is initialised and outlives the call, its size is passed; without CLONE_VM the child has its own copy
    // of the stack, so returning twice is sound (as for fork). Callers are single-threaded by contract.
    let value = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            size_of::<libc::clone_args>(),
        )
    })?;
    if value == 0 {
        return Ok(Cloned::Child);
    }
    Ok(Cloned::Parent {
        pid: Pid::from_raw(value as libc::pid_t),
        pidfd: new_fd(pidfd.into()),
    })
}

/// fork(2). Only for a single-threaded caller, see [`clone3`].
pub fn fork() -> Result<ForkResult> {
    // SAFETY: callers are single-threaded by contract, so the child may do whatever the parent may.
    unsafe { nix::unistd::fork() }
}

/// Ends the process at once: no destructors, no atexit handlers of the copied address space.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// open_tree(2) with OPEN_TREE_CLONE (Linux 5.2): a detached copy of the mount at `path`, of all below it if `recursive`.
pub fn open_tree_clone(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    flags |= libc::AT_EMPTY_PATH as u32 | libc::AT_SYMLINK_NOFOLLOW as u32;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    // SAFETY: path is NUL-ended and outlives the call; the rest are integers.
    check(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) })
        .map(new_fd)
}

/// move_mount(2) (Linux 5.2): attaches the detached mount `from` on the very object that `to` refers to. Both are
/// descriptors, so no path is looked up again between check and use.
pub fn move_mount(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    const F_EMPTY_PATH: libc::c_uint = 0x4;
    const T_EMPTY_PATH: libc::c_uint = 0x40;
    // SAFETY: both paths are the static empty string; the rest are integers.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from.as_raw_fd(),
            c"".as_ptr(),
            to.as_raw_fd(),
            c"".as_ptr(),
            F_EMPTY_PATH | T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// fsopen(2) (Linux 5.2): a new, not yet configured file system of the given type.
pub fn fsopen(fstype: &CStr) -> Result<OwnedFd> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    // SAFETY: fstype is NUL-ended and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) }).map(new_fd)
}

/// fsconfig(2) FSCONFIG_SET_STRING, or FSCONFIG_SET_FLAG where there is no value.
pub fn fsconfig_set(fs: BorrowedFd<'_>, key: &CStr, value: Option<&CStr>) -> Result<()> {
    const SET_FLAG: libc::c_uint = 0;
    const SET_STRING: libc::c_uint = 1;
    let (command, value) = match value {
        Some(value) => (SET_STRING, value.as_ptr()),
        None => (SET_FLAG, std::ptr::null()),
    };
    // SAFETY: key and value are NUL-ended and outlive the call; a null value is what SET_FLAG wants.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            fs.as_raw_fd(),
            command,
            key.as_ptr(),
            value,
            0,
        )
    })
    .map(drop)
}

/// fsconfig(2) FSCONFIG_CMD_CREATE, then fsmount(2): the configured file system as a detached mount with MOUNT_ATTR_*.
pub fn fsmount(fs: BorrowedFd<'_>, attributes: u64) -> Result<OwnedFd> {
    const CMD_CREATE: libc::c_uint = 6;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: CMD_CREATE takes neither key nor value; both are null as fsconfig(2) demands.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            fs.as_raw_fd(),
            CMD_CREATE,
            null,
            null,
            0,
        )
    })?;
    // SAFETY: integers only.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            fs.as_raw_fd(),
            FSMOUNT_CLOEXEC,
            attributes,
        )
    })
    .map(new_fd)
}

/// mount_setattr(2) (Linux 5.12) on the mount that `mount` refers to: sets MOUNT_ATTR_* `attributes`, makes propagation
/// private, and with `idmap` maps owners by that user namespace (detached mounts only).
pub fn mount_setattr(
    mount: BorrowedFd<'_>,
    attributes: u64,
    idmap: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> Result<()> {
    let mut attr = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    if let Some(userns) = idmap {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = userns.as_raw_fd() as u64;
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: attr is initialised, outlives the call, and its size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// openat2(2) (Linux 5.6) with `resolve` RESOLVE_* flags; always O_CLOEXEC.
pub fn openat2(dir: BorrowedFd<'_>, path: &CStr, flags: OFlag, resolve: u64) -> Result<OwnedFd> {
    // SAFETY: open_how is plain integers; all zero is its documented neutral value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | OFlag::O_CLOEXEC).bits() as u64;
    how.resolve = resolve;
    // SAFETY: path is NUL-ended, how is initialised; both outlive the call and the size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            dir.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    })
    .map(new_fd)
}

/// close_range(2) (Linux 5.9): closes the descriptors from `first` to `last`, whoever opened them.
pub fn close_range(first: RawFd, last: libc::c_uint) -> Result<()> {
    // SAFETY: closing descriptors that an OwnedFd elsewhere still names is the purpose; the callers are children that
    // use none of them again and end by exec or `exit_now`, so no destructor closes a number twice.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// dup3(2) onto a fixed number, close-on-exec or not. What was open there is closed.
pub fn dup_onto(fd: BorrowedFd<'_>, onto: RawFd, close_on_exec: bool) -> Result<()> {
    if fd.as_raw_fd() == onto {
        let flags = if close_on_exec { libc::FD_CLOEXEC } else { 0 };
        // SAFETY: F_SETFD takes an integer.
        return check(unsafe { libc::fcntl(onto, libc::F_SETFD, flags) }.into()).map(drop);
    }
    let flags = if close_on_exec { libc::O_CLOEXEC } else { 0 };
    // SAFETY: integers only; callers choose `onto` among numbers that no OwnedFd of theirs holds.
    check(unsafe { libc::dup3(fd.as_raw_fd(), onto, flags) }.into()).map(drop)
}

/// fcntl(2) F_DUPFD_CLOEXEC: a copy whose number is at least `lowest`.
pub fn dup_above(fd: BorrowedFd<'_>, lowest: RawFd) -> Result<OwnedFd> {
    // SAFETY: integers only.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) }.into()).map(new_fd)
}

/// Takes over a descriptor that this process was started with.
///
/// # Errors
/// EBADF when nothing is open at that number.
pub fn inherited_fd(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: F_SETFD takes an integer; the call fails with EBADF where nothing is open.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: it is open (just checked); each role takes each of its fixed numbers once, at its start.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Brings the loopback interface of the caller's network namespace up (netdevice(7)).
pub fn loopback_up() -> Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is integers and arrays of them; all zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which is initialised and outlives the call.
    check(
        unsafe {
            libc::ioctl(
                socket.as_raw_fd(),
                libc::SIOCSIFFLAGS as _,
                &raw const request,
            )
        }
        .into(),
    )
    .map(drop)
}

/// Gives every signal its default disposition and blocks none, as a program expects at its start. All 64 of them: an
/// ignored one is inherited through execve(2), and libc's own wrapper refuses the two that threads use.
pub fn reset_signals() -> Result<()> {
    /// struct kernel_sigaction: handler, flags, restorer, mask; all zero is SIG_DFL.
    const DEFAULT: [libc::c_ulong; 4] = [0; 4];
    for signal in 1..=64 {
        if !matches!(signal, libc::SIGKILL | libc::SIGSTOP) {
            let (new, old) = (DEFAULT.as_ptr(), std::ptr::null::<libc::c_ulong>());
            // SAFETY: `new` is a whole struct kernel_sigaction of zeros, a null `old` is not written; SIG_DFL installs no
            // handler code.
            check(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, old, 8) })?;
        }
    }
    SigSet::empty().thread_set_mask()
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildEnd {
    /// By exit with this code.
    Exited(u8),
    /// By a signal of this number, which may be a real-time one.
    Signaled(u8),
}

/// waitpid(2) for the next child that ends. (nix's own fails for a child that a real-time signal ended.)
pub fn wait_any() -> Result<(Pid, ChildEnd)> {
    loop {
        let mut status = 0;
        // SAFETY: status outlives the call.
        match check(unsafe { libc::waitpid(-1, &raw mut status, 0) }.into()) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(pid) => {
                let end = if libc::WIFSIGNALED(status) {
                    ChildEnd::Signaled(libc::WTERMSIG(status) as u8)
                } else {
                    ChildEnd::Exited(libc::WEXITSTATUS(status) as u8)
                };
                return Ok((Pid::from_raw(pid as libc::pid_t), end));
            }
        }
    }
}

/// pidfd_send_signal(2) with SIGKILL. For the init of a pid namespace this ends every process in it.
pub fn pidfd_kill(pidfd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: a null siginfo is documented as "like kill(2)".
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// struct loop_config of linux/loop.h; only the fields that are set here are named.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names_and_keys: [u8; 64 + 64 + 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// Makes `backing` readable and writable as a block device that frees itself when its last user closes it
/// (loop(4); LOOP_CONFIGURE is Linux 5.8). Returns the device's path and an open handle on it: until something is
/// mounted from it, the handle is its last user.
pub fn loop_attach(backing: BorrowedFd<'_>) -> Result<(std::path::PathBuf, OwnedFd)> {
    const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
    const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
    const LO_FLAGS_AUTOCLEAR: u32 = 4;
    let open = |path: &std::path::Path| {
        let mut options = std::fs::OpenOptions::new();
        let opened = options
            .read(true)
            .write(true)
            .custom_flags(libc::O_CLOEXEC)
            .open(path);
        opened.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))
    };
    let control = open("/dev/loop-control".as_ref())?;
    // Another process may take the free number between the two calls: EBUSY, ask again.
    for _ in 0..64 {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument.
        let index =
            check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) }.into())?;
        let path = std::path::PathBuf::from(format!("/dev/loop{index}"));
        let device = open(&path)?;
        // SAFETY: LoopConfig is integers and arrays of them; all zero is valid.
        let mut config: LoopConfig = unsafe { std::mem::zeroed() };
        config.fd = backing.as_raw_fd() as u32;
        config.flags = LO_FLAGS_AUTOCLEAR;
        // SAFETY: LOOP_CONFIGURE reads one struct loop_config, which is initialised and has the kernel's layout.
        let done = check(
            unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) }
                .into(),
        );
        match done {
            Ok(_) => return Ok((path, device.into())),
            Err(Errno::EBUSY) => continue,
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EBUSY)
}

/// Takes as many descriptors as this process may have.
pub fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // It can only fail where it is not needed: at a limit that is as high already.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
