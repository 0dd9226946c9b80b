//! Every raw system call of the project, and with them every `unsafe`: wrappers that are safe to call, one per call,
//! for what `nix` does not offer. Errors are the kernel's errno; callers add the operation and the path.

pub mod freeze;
pub mod loopdev;
pub mod memory;
pub mod mount;
pub mod packet;
pub mod pages;
pub mod polled;
pub mod seccomp;
pub mod shared;
pub mod terminal;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigHandler, SigSet, Signal};
use nix::unistd::{ForkResult, Pid};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

type Result<T> = std::result::Result<T, Errno>;

/// Microseconds of CLOCK_MONOTONIC: the same for the warden and its cells, whose time namespaces have no offset.
pub fn monotonic_us() -> u64 {
    // Since Linux 2.6 there is this clock, so it can't fail.
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| {
        now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1000
    })
}

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

/// openat2(2) (Linux 5.6) with `resolve` RESOLVE_* flags; always O_CLOEXEC.
///
/// With RESOLVE_BENEATH or RESOLVE_IN_ROOT a ".." gives EAGAIN while anything on the machine is renamed or mounted
/// (openat2(2): "the caller may choose to retry"), so it is tried again; not for ever, as a tenant may rename all day.
pub fn openat2(dir: BorrowedFd<'_>, path: &CStr, flags: OFlag, resolve: u64) -> Result<OwnedFd> {
    const TRIES: usize = 1000;
    let scoped = resolve & (libc::RESOLVE_BENEATH | libc::RESOLVE_IN_ROOT) != 0;
    for _ in 1..TRIES {
        match openat2_once(dir, path, flags, resolve) {
            Err(Errno::EAGAIN) if scoped => {}
            result => return result,
        }
    }
    openat2_once(dir, path, flags, resolve)
}

fn openat2_once(dir: BorrowedFd<'_>, path: &CStr, flags: OFlag, resolve: u64) -> Result<OwnedFd> {
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

/// Closes every descriptor above the standard streams but `kept`, as [`close_range`] does.
pub fn close_all_but(kept: &[BorrowedFd<'_>]) -> Result<()> {
    let mut numbers: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    numbers.sort_unstable();
    let mut first = libc::STDERR_FILENO + 1;
    for number in numbers {
        if number > first {
            close_range(first, number as libc::c_uint - 1)?;
        }
        first = first.max(number + 1);
    }
    close_range(first, libc::c_uint::MAX)
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

/// Empties the capability bounding set: every capability that the kernel knows, also such as came after this was written
/// (PR_CAPBSET_DROP says EINVAL behind the last one, prctl(2)). Half the calls of asking for each whether it is there.
pub fn drop_bounding_set() -> Result<()> {
    for capability in 0.. {
        // SAFETY: integers only.
        let dropped = check(
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0) }
                .into(),
        );
        match dropped {
            Err(Errno::EINVAL) if capability > 0 => break,
            other => other?,
        };
    }
    Ok(())
}

/// Makes `kept`, a bit for each number, the effective and permitted capabilities of this thread, and empties the inheritable
/// and ambient sets (capset(2), PR_CAP_AMBIENT). All at once: set by set, and asking first what there is, it is a dozen calls.
///
/// # Errors
/// EPERM for one that is not permitted now.
pub fn keep_capabilities(kept: u64) -> Result<()> {
    /// _LINUX_CAPABILITY_VERSION_3 of linux/capability.h.
    const VERSION: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION, 0];
    let halves = [kept as u32, (kept >> 32) as u32];
    // struct __user_cap_data_struct for each half: effective, permitted, inheritable.
    let data = halves.map(|half| [half, half, 0]);
    // SAFETY: both outlive the call, which reads two words and, in this version, two structures of three.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })?;
    // SAFETY: integers only.
    check(
        unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_CLEAR_ALL,
                0,
                0,
                0,
            )
        }
        .into(),
    )
    .map(drop)
}

/// Ignores signals, until [`reset_signals`] in a child.
pub fn ignore_signals(signals: &[Signal]) -> Result<()> {
    for signal in signals {
        // SAFETY: SIG_IGN installs no handler code.
        unsafe { nix::sys::signal::signal(*signal, SigHandler::SigIgn) }?;
    }
    Ok(())
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildEnd {
    /// By exit with this code.
    Exited(u8),
    /// By a signal of this number, which may be a real-time one.
    Signaled(u8),
}

/// Reaps a child that has ended, if there is one: waitpid(2) with WNOHANG. (nix's own fails for a child that a real-time
/// signal ended.)
pub fn reap_any() -> Result<Option<(Pid, ChildEnd)>> {
    let mut status = 0;
    // SAFETY: status outlives the call.
    let pid = check(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) }.into())?;
    if pid == 0 {
        return Ok(None);
    }
    let end = if libc::WIFSIGNALED(status) {
        ChildEnd::Signaled(libc::WTERMSIG(status) as u8)
    } else {
        ChildEnd::Exited(libc::WEXITSTATUS(status) as u8)
    };
    Ok(Some((Pid::from_raw(pid as libc::pid_t), end)))
}

/// Waits for the end of any child and reaps it, as [`reap_any`] without a status.
///
/// # Errors
/// ECHILD where there is none.
pub fn wait_any() -> Result<()> {
    // SAFETY: no status is asked for.
    check(unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) }.into()).map(drop)
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

/// The Landlock ABI of the running kernel, 1 or more (landlock_create_ruleset(2)).
///
/// # Errors
/// ENOSYS where the kernel was built without it, EOPNOTSUPP where it is not enabled at boot.
pub fn landlock_abi() -> Result<i32> {
    const VERSION: libc::c_uint = 1;
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: to ask for the version, the attributes must be null and their size 0.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, VERSION) })
        .map(|abi| abi as i32)
}

/// The running kernel's release, such as `6.1.0-13-amd64`, and its version; zeros where it has none.
pub fn kernel() -> (String, (u32, u32)) {
    let release = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let version = kernel_version(&release).unwrap_or_default();
    (release, version)
}

/// The version in a kernel's release like `6.1.0-13-amd64`, or a plain `4.8`: the first two numbers.
pub fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.trim().splitn(3, '.');
    let major = numbers.next()?.parse().ok()?;
    let rest = numbers.next()?;
    let digits = rest.find(|c: char| !c.is_ascii_digit());
    let minor = rest[..digits.unwrap_or(rest.len())].parse().ok()?;
    Some((major, minor))
}

/// Takes as many descriptors as this process may have, and tells how many that are.
pub fn raise_descriptor_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    // Asking fails for no resource that exists; what POSIX guarantees is the cautious answer.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((20, 20));
    // It can only fail where it is not needed: at a limit that is as high already.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    hard
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_way_with_dots_is_found_while_others_rename() {
        let place = tempfile::tempdir().expect("a directory");
        fs::create_dir(place.path().join("inner")).expect("create");
        fs::write(place.path().join("file"), "").expect("write");
        let elsewhere = tempfile::tempdir().expect("a directory");
        fs::write(elsewhere.path().join("a"), "").expect("write");
        let root: OwnedFd = fs::File::open(place.path()).expect("open").into();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (a, b) = (elsewhere.path().join("a"), elsewhere.path().join("b"));
                while !done.load(Ordering::Relaxed) {
                    fs::rename(&a, &b).expect("rename");
                    fs::rename(&b, &a).expect("rename");
                }
            });
            let failed = (0..100_000)
                .map(|number| match number % 2 {
                    0 => libc::RESOLVE_BENEATH,
                    _ => libc::RESOLVE_IN_ROOT,
                })
                .filter_map(|resolve| {
                    openat2(root.as_fd(), c"inner/../file", OFlag::O_PATH, resolve).err()
                })
                .next();
            done.store(true, Ordering::Relaxed);
            assert_eq!(failed, None);
        });
    }
}
