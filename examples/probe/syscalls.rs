//! Raw system calls with arguments that do no harm if they are let through.

use std::ffi::c_long;
use std::io::Error;

/// Calls and gives errno, 0 on success.
pub fn errno_of(nr: u64, args: &[u64]) -> i32 {
    let arg = |index: usize| args.get(index).copied().unwrap_or(0);
    // SAFETY: every pointer the tests pass is null or an address the kernel itself refuses; no memory of ours is named.
    let result =
        unsafe { libc::syscall(nr as c_long, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)) };
    errno_if(result < 0)
}

fn errno_if(failed: bool) -> i32 {
    if failed {
        Error::last_os_error().raw_os_error().unwrap_or(-1)
    } else {
        0
    }
}

const BAD: u64 = u64::MAX;

/// System calls that Docker's default profile refuses a process without capabilities on x86-64, with arguments that
/// would give another errno than EPERM where an unfiltered kernel allows it to anyone.
#[cfg(target_arch = "x86_64")]
const REFUSED: &[(&str, i64, [u64; 3])] = &[
    ("syslog", libc::SYS_syslog, [10, 0, 0]),
    ("uselib", 134, [0; 3]),
    ("ustat", 136, [BAD, 0, 0]),
    ("sysfs", 139, [3, 0, 0]),
    ("vhangup", libc::SYS_vhangup, [0; 3]),
    ("pivot_root", libc::SYS_pivot_root, [0; 3]),
    ("_sysctl", 156, [0; 3]),
    ("chroot", libc::SYS_chroot, [0; 3]),
    ("acct", libc::SYS_acct, [1, 0, 0]),
    ("settimeofday", libc::SYS_settimeofday, [1, 0, 0]),
    ("mount", libc::SYS_mount, [0; 3]),
    ("umount2", libc::SYS_umount2, [0; 3]),
    ("swapon", libc::SYS_swapon, [0; 3]),
    ("swapoff", libc::SYS_swapoff, [0; 3]),
    ("reboot", libc::SYS_reboot, [0; 3]),
    ("sethostname", libc::SYS_sethostname, [0; 3]),
    ("setdomainname", libc::SYS_setdomainname, [0; 3]),
    ("iopl", libc::SYS_iopl, [0; 3]),
    ("ioperm", libc::SYS_ioperm, [0; 3]),
    ("create_module", 174, [0; 3]),
    ("init_module", libc::SYS_init_module, [0; 3]),
    ("delete_module", libc::SYS_delete_module, [0; 3]),
    ("get_kernel_syms", 177, [0; 3]),
    ("query_module", 178, [0; 3]),
    ("quotactl", libc::SYS_quotactl, [0; 3]),
    ("nfsservctl", 180, [0; 3]),
    ("lookup_dcookie", 212, [0; 3]),
    ("clock_settime", libc::SYS_clock_settime, [0, 1, 0]),
    ("mbind", libc::SYS_mbind, [0; 3]),
    ("set_mempolicy", libc::SYS_set_mempolicy, [0; 3]),
    ("get_mempolicy", libc::SYS_get_mempolicy, [0; 3]),
    ("kexec_load", libc::SYS_kexec_load, [0; 3]),
    ("add_key", libc::SYS_add_key, [0; 3]),
    ("request_key", libc::SYS_request_key, [0; 3]),
    ("keyctl", libc::SYS_keyctl, [0, BAD - 2, 0]),
    ("migrate_pages", libc::SYS_migrate_pages, [0; 3]),
    ("unshare", libc::SYS_unshare, [0; 3]),
    ("move_pages", libc::SYS_move_pages, [0; 3]),
    ("perf_event_open", libc::SYS_perf_event_open, [0; 3]),
    ("fanotify_init", libc::SYS_fanotify_init, [BAD, 0, 0]),
    (
        "open_by_handle_at",
        libc::SYS_open_by_handle_at,
        [BAD, 0, 0],
    ),
    ("setns", libc::SYS_setns, [BAD, 0, 0]),
    ("kcmp", libc::SYS_kcmp, [0; 3]),
    ("finit_module", libc::SYS_finit_module, [BAD, 0, 0]),
    ("kexec_file_load", libc::SYS_kexec_file_load, [BAD, BAD, 0]),
    ("bpf", libc::SYS_bpf, [BAD, 0, 0]),
    ("userfaultfd", libc::SYS_userfaultfd, [1, 0, 0]),
    ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0]),
    ("io_uring_enter", libc::SYS_io_uring_enter, [BAD, 0, 0]),
    (
        "io_uring_register",
        libc::SYS_io_uring_register,
        [BAD, 0, 0],
    ),
    ("open_tree", libc::SYS_open_tree, [BAD, 0, 0]),
    ("move_mount", libc::SYS_move_mount, [BAD, 0, BAD]),
    ("fsopen", libc::SYS_fsopen, [0; 3]),
    ("fsconfig", libc::SYS_fsconfig, [BAD, 0, 0]),
    ("fsmount", libc::SYS_fsmount, [BAD, 0, 0]),
    ("fspick", libc::SYS_fspick, [BAD, 0, 0]),
    ("clone3", libc::SYS_clone3, [0; 3]),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, [BAD, 0, 0]),
    ("process_madvise", libc::SYS_process_madvise, [BAD, 0, 0]),
    ("mount_setattr", libc::SYS_mount_setattr, [BAD, 0, 0]),
    ("quotactl_fd", 443, [BAD, 0, 0]),
    ("set_mempolicy_home_node", 450, [0; 3]),
    ("open_tree_attr", 467, [BAD, 0, 0]),
    ("a number not given out yet", 1023, [0; 3]),
];

/// Prints `name errno` for every call that has to be refused.
pub fn refused() {
    #[cfg(target_arch = "x86_64")]
    for (name, nr, args) in REFUSED {
        println!("{}\t{}", name, errno_of(*nr as u64, args));
    }
}

/// Prints `family type errno` for every socket family, and for AF_ALG with a high bit set, which the kernel cuts off.
pub fn families() {
    for family in (0..=45).chain([1 << 32 | 38]) {
        for kind in [
            libc::SOCK_STREAM,
            libc::SOCK_DGRAM,
            libc::SOCK_RAW,
            libc::SOCK_SEQPACKET,
        ] {
            let args = [family, kind as u64, 0];
            println!(
                "{family} {kind} {}",
                errno_of(libc::SYS_socket as u64, &args)
            );
        }
    }
}

/// Prints `protocol errno` for the netlink protocols.
pub fn netlink() {
    for protocol in 0..=22 {
        let args = [libc::AF_NETLINK as u64, libc::SOCK_RAW as u64, protocol];
        println!("{protocol} {}", errno_of(libc::SYS_socket as u64, &args));
    }
}

/// ioctl(2) with a null argument, the request not cut to 32 bits on the way as the C library would.
pub fn ioctl(fd: u64, request: u64) -> i32 {
    errno_of(libc::SYS_ioctl as u64, &[fd, request, 0])
}

/// An ioctl with one byte as its argument, on a terminal that this process owns.
pub fn pty_ioctl(request: u64) -> i32 {
    let (mut main, mut terminal) = (0, 0);
    let none = std::ptr::null_mut();
    // SAFETY: openpty(3) writes two descriptors; name, termios and size may be null.
    let opened = unsafe { libc::openpty(&mut main, &mut terminal, none, none.cast(), none.cast()) };
    assert_eq!(opened, 0, "openpty: {}", Error::last_os_error());
    let byte = 3u8;
    // SAFETY: TIOCSTI and TIOCLINUX read one byte at the pointer, which lives until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_ioctl, terminal, request, &byte) };
    errno_if(result < 0)
}

/// getpid(2) through the 32-bit entry; a filter that checks the architecture kills this.
#[cfg(target_arch = "x86_64")]
pub fn i386_getpid() -> i64 {
    let result: i64;
    // SAFETY: system call 20 of i386 is getpid, which takes no argument; rax holds the result, r8–r11 are lost on the
    // way through the compatibility entry.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20i64 => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    result
}

/// There is no such entry elsewhere.
#[cfg(not(target_arch = "x86_64"))]
pub fn i386_getpid() -> i64 {
    -1
}

/// clone(2) into a new user namespace; the child, if there is one, ends at once.
pub fn clone_new_user() -> i32 {
    let flags = (libc::CLONE_NEWUSER | libc::SIGCHLD) as u64;
    // SAFETY: with a null stack the child goes on with a copy of ours, as after fork(2), and only calls _exit.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid == 0 {
        // SAFETY: _exit(2) is always allowed.
        unsafe { libc::_exit(0) };
    }
    errno_if(pid < 0)
}
