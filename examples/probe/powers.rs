//! Everything that needs a right a command does not have, asked for with arguments that the kernel would take, so that only
//! a refusal gives an error. What would change the host is asked to be as it is.

use std::ffi::{CStr, c_long};
use std::io::Error;
use std::mem::{size_of, zeroed};
use std::os::fd::AsRawFd;

const HERE: c_long = libc::AT_FDCWD as c_long;

/// Prints `name errno`.
fn say(name: &str, result: c_long) {
    let errno = if result < 0 {
        Error::last_os_error().raw_os_error().unwrap_or(-1)
    } else {
        0
    };
    println!("{name}\t{errno}");
}

/// A raw call; pointers are passed as they are, numbers as `c_long`.
macro_rules! call {
    ($name:literal, $number:expr $(, $argument:expr)* $(,)?) => {
        // SAFETY: each pointer below is to a C string or to a value that lives until the call returns, of the size that the
        // call takes; none is kept by the kernel.
        say($name, unsafe { libc::syscall($number as c_long $(, $argument)*) })
    };
}

/// Asks for all of it.
pub fn powers() {
    mounts();
    modules_and_machine();
    clocks();
    ids();
    schedule_and_limits();
    namespaces();
    odd_interfaces();
    #[cfg(target_arch = "x86_64")]
    ports_and_segments();
}

fn mounts() {
    let (root, proc, tmpfs) = (c"/".as_ptr(), c"/proc".as_ptr(), c"tmpfs".as_ptr());
    let none = std::ptr::null::<u8>();
    call!("mount tmpfs", libc::SYS_mount, tmpfs, root, tmpfs, 0, none);
    let bind = libc::MS_BIND as c_long;
    call!("mount bind", libc::SYS_mount, proc, root, none, bind, none);
    let knobs = c"/proc/sys".as_ptr();
    let remount = (libc::MS_REMOUNT | libc::MS_BIND) as c_long;
    call!(
        "mount remount",
        libc::SYS_mount,
        none,
        knobs,
        none,
        remount,
        none
    );
    let detach = libc::MNT_DETACH as c_long;
    call!("umount2 /proc", libc::SYS_umount2, proc, detach);
    call!("pivot_root", libc::SYS_pivot_root, root, root);
    call!("chroot", libc::SYS_chroot, root);
    call!("fsopen", libc::SYS_fsopen, tmpfs, 0);
    call!("fspick", libc::SYS_fspick, HERE, proc, 0);
    call!("open_tree", libc::SYS_open_tree, HERE, root, 1);
    call!(
        "move_mount",
        libc::SYS_move_mount,
        HERE,
        proc,
        HERE,
        root,
        0
    );
    // Clears MOUNT_ATTR_RDONLY.
    let attr: [u64; 4] = [0, 1, 0, 0];
    call!(
        "mount_setattr",
        libc::SYS_mount_setattr,
        HERE,
        knobs,
        0,
        &attr,
        32
    );
    call!("swapon", libc::SYS_swapon, c"/proc/self/exe".as_ptr(), 0);
    // Q_SYNC of everything, which anybody may ask of an unfiltered kernel.
    let sync = 0x80_0001_u64 << 8;
    call!("quotactl", libc::SYS_quotactl, sync, none, 0, none);
    // The first inode of an ext4 file system, as `shocker` asked for it.
    let mut handle = [0u32; 4];
    handle[..3].copy_from_slice(&[8, 1, 2]);
    if let Ok(root) = std::fs::File::open("/") {
        let fd = root.as_raw_fd();
        call!(
            "open_by_handle_at",
            libc::SYS_open_by_handle_at,
            fd,
            &handle,
            0
        );
    }
    for (name, mode, device) in [
        ("mknod /dev/mem", libc::S_IFCHR, libc::makedev(1, 1)),
        ("mknod a disk", libc::S_IFBLK, libc::makedev(8, 0)),
    ] {
        // SAFETY: the path is a C string.
        let made = unsafe { libc::mknod(c"/probe-node".as_ptr(), mode | 0o600, device) };
        say(name, c_long::from(made));
    }
}

fn modules_and_machine() {
    let none = std::ptr::null::<u8>();
    let empty = c"".as_ptr();
    call!("init_module", libc::SYS_init_module, empty, 1, empty);
    call!("finit_module", libc::SYS_finit_module, 0, empty, 0);
    call!(
        "delete_module",
        libc::SYS_delete_module,
        c"none-such".as_ptr(),
        0
    );
    call!("kexec_load", libc::SYS_kexec_load, 0, 0, none, 0);
    // "Enable Ctrl-Alt-Del", which is how most machines are; in a PID namespace nothing at all.
    call!(
        "reboot",
        libc::SYS_reboot,
        0xfee1_dead_u32,
        672_274_793,
        0x89ab_cdef_u32,
        none
    );
    call!("sethostname", libc::SYS_sethostname, c"x".as_ptr(), 1);
    call!("setdomainname", libc::SYS_setdomainname, c"x".as_ptr(), 1);
    let mut log = [0u8; 64];
    call!("syslog", libc::SYS_syslog, 3, log.as_mut_ptr(), log.len());
    call!("acct", libc::SYS_acct, none);
}

fn clocks() {
    // SAFETY: plain data, for which all zero is valid.
    let (mut now, mut day): (libc::timespec, libc::timeval) = unsafe { (zeroed(), zeroed()) };
    // SAFETY: both calls fill what they are given.
    unsafe {
        libc::clock_gettime(libc::CLOCK_REALTIME, &mut now);
        libc::gettimeofday(&mut day, std::ptr::null_mut());
    }
    call!(
        "clock_settime",
        libc::SYS_clock_settime,
        libc::CLOCK_REALTIME,
        &now
    );
    call!(
        "settimeofday",
        libc::SYS_settimeofday,
        &day,
        std::ptr::null::<u8>()
    );
    // SAFETY: plain data; with no mode set adjtimex(2) only reads.
    let mut timex: libc::timex = unsafe { zeroed() };
    // SAFETY: it fills the structure.
    unsafe { libc::adjtimex(&mut timex) };
    timex.modes = libc::ADJ_STATUS;
    call!("adjtimex", libc::SYS_adjtimex, &mut timex);
    timex.modes = libc::ADJ_STATUS;
    call!(
        "clock_adjtime",
        libc::SYS_clock_adjtime,
        libc::CLOCK_REALTIME,
        &mut timex
    );
}

fn ids() {
    // SAFETY: it takes nothing.
    let other = if unsafe { libc::getuid() } == 0 { 1 } else { 0 };
    call!("setuid", libc::SYS_setuid, other);
    call!("setgid", libc::SYS_setgid, other);
    call!("setreuid", libc::SYS_setreuid, other, other);
    call!("setregid", libc::SYS_setregid, other, other);
    call!("setresuid", libc::SYS_setresuid, other, other, other);
    call!("setresgid", libc::SYS_setresgid, other, other, other);
    let group: u32 = other as u32;
    call!("setgroups", libc::SYS_setgroups, 1, &group);
    // These two give the id that was, never an error.
    for (name, number) in [
        ("setfsuid", libc::SYS_setfsuid),
        ("setfsgid", libc::SYS_setfsgid),
    ] {
        // SAFETY: numbers only.
        let changed = unsafe {
            libc::syscall(number, other);
            libc::syscall(number, -1) == c_long::from(other)
        };
        println!("{name}\t{}", if changed { 0 } else { libc::EPERM });
    }
    // _LINUX_CAPABILITY_VERSION_3, this process; every capability in all three sets.
    let (header, data) = ([0x2008_0522u32, 0], [u32::MAX; 6]);
    call!("capset", libc::SYS_capset, &header, &data);
    let ambient = libc::PR_CAP_AMBIENT;
    call!(
        "ambient capability",
        libc::SYS_prctl,
        ambient,
        libc::PR_CAP_AMBIENT_RAISE,
        21,
        0,
        0
    );
    call!(
        "securebits",
        libc::SYS_prctl,
        libc::PR_SET_SECUREBITS,
        0,
        0,
        0,
        0
    );
}

fn schedule_and_limits() {
    let one = 1i32;
    call!(
        "real-time FIFO",
        libc::SYS_sched_setscheduler,
        0,
        libc::SCHED_FIFO,
        &one
    );
    call!(
        "real-time RR",
        libc::SYS_sched_setscheduler,
        0,
        libc::SCHED_RR,
        &one
    );
    // struct sched_attr: size, SCHED_DEADLINE, flags, nice, priority, runtime, deadline, period.
    let deadline: [u64; 6] = [6 << 32 | 48, 0, 0, 1_000_000, 10_000_000, 10_000_000];
    call!(
        "real-time deadline",
        libc::SYS_sched_setattr,
        0,
        &deadline,
        0
    );
    call!(
        "setpriority",
        libc::SYS_setpriority,
        libc::PRIO_PROCESS,
        0,
        -5
    );
    // IOPRIO_WHO_PROCESS, class 1 (real-time), level 0.
    call!("ioprio_set", libc::SYS_ioprio_set, 1, 0, 1 << 13);
    for resource in 0..16u32 {
        let mut limit = [0u64; 2];
        let none = std::ptr::null::<u64>();
        // SAFETY: it fills the two numbers.
        unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, none, limit.as_mut_ptr()) };
        if limit[1] != u64::MAX {
            limit[1] += 1;
            print!("{resource} ");
            call!(
                "prlimit64",
                libc::SYS_prlimit64,
                0,
                resource,
                limit.as_ptr(),
                none
            );
        }
    }
    for (name, persona) in [
        ("personality ADDR_NO_RANDOMIZE", 0x004_0000),
        ("personality READ_IMPLIES_EXEC", 0x040_0000),
        ("personality MMAP_PAGE_ZERO", 0x010_0000),
    ] {
        print!("{name} ");
        call!("", libc::SYS_personality, persona);
    }
}

/// Every kind, with its file in /proc/self/ns.
const NAMESPACES: [(&CStr, c_long); 8] = [
    (c"/proc/self/ns/user", libc::CLONE_NEWUSER as c_long),
    (c"/proc/self/ns/mnt", libc::CLONE_NEWNS as c_long),
    (c"/proc/self/ns/net", libc::CLONE_NEWNET as c_long),
    (c"/proc/self/ns/pid", libc::CLONE_NEWPID as c_long),
    (c"/proc/self/ns/ipc", libc::CLONE_NEWIPC as c_long),
    (c"/proc/self/ns/uts", libc::CLONE_NEWUTS as c_long),
    (c"/proc/self/ns/cgroup", libc::CLONE_NEWCGROUP as c_long),
    (c"/proc/self/ns/time", 0x80),
];

fn namespaces() {
    for (path, flag) in NAMESPACES {
        let kind = path.to_string_lossy();
        let kind = kind.rsplit('/').next().unwrap_or_default();
        print!("{kind} ");
        call!("unshare", libc::SYS_unshare, flag);
        // SAFETY: the path is a C string.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY) };
        print!("{kind} ");
        call!("setns", libc::SYS_setns, fd, flag);
        if flag != 0x80 {
            print!("{kind} ");
            let flags = flag | c_long::from(libc::SIGCHLD);
            // SAFETY: with a null stack the child goes on with a copy of ours, as after fork(2), and only calls _exit.
            let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
            if pid == 0 {
                // SAFETY: _exit(2) is always allowed.
                unsafe { libc::_exit(0) };
            }
            say("clone", pid);
        }
    }
    let args: [u64; 8] = [
        libc::CLONE_NEWUSER as u64,
        0,
        0,
        0,
        libc::SIGCHLD as u64,
        0,
        0,
        0,
    ];
    // SAFETY: as above; the arguments are the 64 bytes that the first version of the call takes.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, 64) };
    if pid == 0 {
        // SAFETY: _exit(2) is always allowed.
        unsafe { libc::_exit(0) };
    }
    say("clone3", pid);
}

fn odd_interfaces() {
    let (user, x) = (c"user".as_ptr(), c"x".as_ptr());
    let none = std::ptr::null::<u8>();
    // The process's and the session's keyring.
    call!("add_key", libc::SYS_add_key, user, x, x, 1, -2);
    call!("request_key", libc::SYS_request_key, user, x, none, 0);
    call!("keyctl", libc::SYS_keyctl, 0, -3, 1);
    // BPF_MAP_CREATE of an array: type 2, key of 4 bytes, value of 4 bytes, one entry.
    let map: [u32; 16] = [2, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    call!("bpf", libc::SYS_bpf, 0, &map, size_of::<[u32; 16]>());
    // UFFD_USER_MODE_ONLY, which takes no right.
    call!("userfaultfd", libc::SYS_userfaultfd, 1);
    // struct perf_event_attr: a software event, its size, excluding the kernel.
    let mut perf = [0u64; 16];
    perf[0] = 128 << 32 | 1;
    perf[5] = 1 << 5 | 1 << 6;
    call!(
        "perf_event_open",
        libc::SYS_perf_event_open,
        &perf,
        0,
        -1,
        -1,
        0
    );
    let ring = [0u32; 30];
    call!("io_uring_setup", libc::SYS_io_uring_setup, 1, &ring);
    // FAN_REPORT_FID, which takes no right from 5.13 on.
    call!("fanotify_init", libc::SYS_fanotify_init, 0x200, 0);
    // SAFETY: it takes nothing.
    let own = c_long::from(unsafe { libc::getpid() });
    // KCMP_FILE of descriptors 0 and 1.
    call!("kcmp", libc::SYS_kcmp, own, own, 0, 0, 1);
    // SAFETY: numbers only.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, own, 0) };
    call!("pidfd_getfd", libc::SYS_pidfd_getfd, pidfd, 0, 0);
    let mut context = 0u64;
    call!("io_setup", libc::SYS_io_setup, 1, &mut context);
    call!(
        "raw socket",
        libc::SYS_socket,
        libc::AF_INET,
        libc::SOCK_RAW,
        1
    );
}

#[cfg(target_arch = "x86_64")]
fn ports_and_segments() {
    call!("iopl", libc::SYS_iopl, 3);
    call!("ioperm", libc::SYS_ioperm, 0x80, 1, 1);
    let mut table = [0u8; 64];
    call!(
        "modify_ldt",
        libc::SYS_modify_ldt,
        0,
        table.as_mut_ptr(),
        table.len()
    );
}
