//! The filters of the service's own processes: what they refuse, asked of the programs and of the running kernel.

use super::bpf::AUDIT_ARCH_I386;
use super::*;
use cellblock::profile::seccomp::syscalls;
use cellblock::roles::filters;
use std::collections::BTreeSet;
use std::ffi::c_long;

/// CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SIGHAND, CLONE_THREAD and what else a C library starts threads with.
const THREAD: u64 = 0x3d_0f00;
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// Calls that end the api process.
const NEVER: [&str; 20] = [
    "execve",
    "execveat",
    "unshare",
    "setns",
    "mount",
    "move_mount",
    "open_tree",
    "fsopen",
    "pivot_root",
    "chroot",
    "ptrace",
    "process_vm_writev",
    "bpf",
    "io_uring_setup",
    "userfaultfd",
    "perf_event_open",
    "keyctl",
    "init_module",
    "kexec_load",
    "reboot",
];

fn running() -> Target {
    Target::running().expect("a supported machine")
}

fn api() -> [BpfProgram; 1] {
    [filters::api().expect("the embedded filter is good")]
}

fn warden() -> [BpfProgram; 1] {
    let set = ProfileSet::load(None).expect("the embedded profiles are good");
    [filters::warden(&set).expect("the embedded filter is good")]
}

/// Everything that is let through with some arguments that are all zero, or for which no argument matters.
fn allowed(programs: &[BpfProgram]) -> BTreeSet<&'static str> {
    let target = running();
    syscalls(target.arch)
        .filter(|(_, number)| {
            let call = Call::new(target.arch, *number as u32, [0; 6]);
            decide(programs, &call) == Verdict::Allow
        })
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn the_api_process_ends_where_only_an_intruder_would_go() {
    let (programs, target) = (api(), running());
    for name in NEVER {
        assert_eq!(
            ask(&programs, &target, name, [0; 6]),
            Verdict::KillProcess,
            "{name}"
        );
    }
    let clone = |flags| ask(&programs, &target, "clone", [flags, 0, 0, 0, 0, 0]);
    assert_eq!(clone(THREAD), Verdict::Allow);
    assert_eq!(clone(libc::SIGCHLD as u64), Verdict::KillProcess);
    // What vfork(3) and posix_spawn(3) ask for.
    assert_eq!(clone(0x4111), Verdict::KillProcess);
    for flag in NAMESPACES {
        assert_eq!(clone(flag as u32 as u64), Verdict::KillProcess, "{flag:#x}");
        assert_eq!(clone(THREAD | flag as u32 as u64), ENOSYS, "{flag:#x}");
    }
    assert_eq!(ask(&programs, &target, "clone3", [0; 6]), ENOSYS);
}

#[test]
fn the_api_process_opens_no_socket_and_no_memory_that_runs() {
    let (programs, target) = (api(), running());
    let ask = |name, args| ask(&programs, &target, name, args);
    for family in 0..46 {
        assert_eq!(ask("socket", [family, 1, 0, 0, 0, 0]), ENOSYS, "{family}");
    }
    for name in ["bind", "listen", "connect"] {
        assert_eq!(ask(name, [3, 0, 0, 0, 0, 0]), ENOSYS, "{name}");
    }
    assert_eq!(ask("socketpair", [1, 1, 0, 0, 0, 0]), Verdict::Allow);
    assert_eq!(ask("socketpair", [2, 1, 0, 0, 0, 0]), ENOSYS);
    for (level, option, verdict) in [
        (libc::SOL_SOCKET, libc::SO_LINGER, ENOSYS),
        (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, ENOSYS),
        (libc::IPPROTO_TCP, libc::TCP_NODELAY, Verdict::Allow),
    ] {
        let args = [3, level as u64, option as u64, 0, 0, 0];
        assert_eq!(ask("setsockopt", args), verdict, "{level} {option}");
    }
    for name in ["mmap", "mprotect"] {
        for (protection, verdict) in [
            (0, Verdict::Allow),
            (3, Verdict::Allow),
            (4, ENOSYS),
            (7, ENOSYS),
        ] {
            assert_eq!(
                ask(name, [0, 4096, protection, 0, 0, 0]),
                verdict,
                "{name} {protection}"
            );
        }
    }
    assert_eq!(
        ask("prctl", [libc::PR_SET_NAME as u64, 0, 0, 0, 0, 0]),
        Verdict::Allow
    );
    assert_eq!(
        ask("prctl", [libc::PR_SET_DUMPABLE as u64, 1, 0, 0, 0, 0]),
        ENOSYS
    );
    for (request, verdict) in [
        (libc::FIONREAD, Verdict::Allow),
        (libc::TIOCSTI, ENOSYS),
        (libc::SIOCSIFFLAGS, ENOSYS),
    ] {
        assert_eq!(
            ask("ioctl", [0, request, 0, 0, 0, 0]),
            verdict,
            "{request:#x}"
        );
    }
}

/// The list grows knowingly.
#[test]
fn the_api_process_has_few_calls() {
    let names = allowed(&api());
    assert!(names.len() < 100, "{}: {names:?}", names.len());
}

#[test]
fn the_warden_keeps_what_makes_cells_and_never_what_acts_on_the_machine() {
    let (programs, target) = (warden(), running());
    for name in [
        "clone3",
        "unshare",
        "setns",
        "fsopen",
        "move_mount",
        "execve",
        "seccomp",
    ] {
        assert_eq!(
            ask(&programs, &target, name, [0; 6]),
            Verdict::Allow,
            "{name}"
        );
    }
    for name in [
        "bpf",
        "io_uring_setup",
        "userfaultfd",
        "perf_event_open",
        "keyctl",
        "add_key",
        "init_module",
        "finit_module",
        "kexec_load",
        "reboot",
        "swapon",
        "iopl",
        "acct",
        "settimeofday",
        "clock_settime",
        "quotactl",
        "open_by_handle_at",
        "syslog",
        "chroot",
        "pidfd_getfd",
        "process_madvise",
        "kcmp",
        "fanotify_init",
        "setdomainname",
        "fspick",
    ] {
        if syscall_number(name, target.arch).is_some() {
            assert_eq!(ask(&programs, &target, name, [0; 6]), ENOSYS, "{name}");
        }
    }
    let socket = |family| ask(&programs, &target, "socket", [family, 1, 0, 0, 0, 0]);
    for family in 0..46 {
        let verdict = match family as i32 {
            libc::AF_UNIX | libc::AF_INET | libc::AF_INET6 | libc::AF_NETLINK => Verdict::Allow,
            _ => ENOSYS,
        };
        assert_eq!(socket(family), verdict, "{family}");
    }
}

#[test]
fn other_architectures_end_both_and_other_numbers_are_missing() {
    let target = running();
    for programs in [api(), warden()] {
        let foreign = Call {
            audit_arch: AUDIT_ARCH_I386,
            ..Call::new(target.arch, 1, [0; 6])
        };
        assert_eq!(decide(&programs, &foreign), Verdict::KillProcess);
        for number in [360, 400, 1000, 0x4000_0000, 0x4000_0027, u32::MAX] {
            let call = Call::new(target.arch, number, [0; 6]);
            assert_eq!(decide(&programs, &call), ENOSYS, "{number:#x}");
        }
    }
}

/// The warden's filter is below a command's: with it every call is decided as without it.
#[test]
fn a_command_is_decided_by_its_profile_alone() {
    let (target, below) = (running(), warden());
    let set = ProfileSet::load(None).expect("the embedded profiles are good");
    for profile in set.iter() {
        let alone = [profile.compile_seccomp().expect("it compiles")];
        let stack = [below.clone(), alone.clone()].concat();
        let numbers = (0..600).chain([0x4000_0000, 0x4000_003b, u32::MAX]);
        for number in numbers {
            for first in [
                0,
                1,
                2,
                3,
                8,
                10,
                16,
                17,
                0x11,
                0x5412,
                0x2_0000,
                THREAD,
                u64::MAX,
            ] {
                for third in [0, 1, 6, 17, 58, 255] {
                    let call = Call::new(target.arch, number, [first, first, third, 0, 0, 0]);
                    assert_eq!(decide(&stack, &call), decide(&alone, &call), "{call:?}");
                }
            }
        }
    }
}

/// A profile of the operator's that allows more gets it, but for what no command may do.
#[test]
fn what_an_operators_profile_allows_reaches_the_command() {
    let dir = tempfile::tempdir().expect("a directory");
    let profile = include_str!("../../sandbox-profiles/default.toml");
    let wide = profile.replace("default.json", "wide.json");
    std::fs::create_dir(dir.path().join("seccomp")).expect("a directory");
    std::fs::write(dir.path().join("wide.toml"), wide).expect("write");
    let policy = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["execve", "io_uring_setup", "keyctl", "bpf", "reboot"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 0, "value": 17, "op": "SCMP_CMP_EQ"}]},
        {"names": ["syslog"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYSLOG"]}},
        {"names": ["userfaultfd"], "action": "SCMP_ACT_LOG"}]}"#;
    std::fs::write(dir.path().join("seccomp/wide.json"), policy).expect("write");
    let set = ProfileSet::load(Some(dir.path())).expect("good profiles");
    let (programs, target) = ([filters::warden(&set).expect("it compiles")], running());
    let ask = |name| ask(&programs, &target, name, [17, 0, 0, 0, 0, 0]);
    for name in ["io_uring_setup", "keyctl", "socket", "userfaultfd"] {
        assert_eq!(ask(name), Verdict::Allow, "{name}");
    }
    for name in ["bpf", "reboot", "syslog"] {
        assert_eq!(ask(name), ENOSYS, "{name}");
    }
}

/// What a child that installs the programs and makes one call ends with: its errno (0 for none), or the signal as a
/// negative number.
fn end_of(programs: &[BpfProgram], name: &str, args: [u64; 3]) -> i32 {
    let number = syscall_number(name, running().arch).expect(name) as c_long;
    // SAFETY: the child of a process with several threads makes system calls only, and ends without running anything else;
    // the arguments are numbers and null pointers.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0, "fork");
        if child == 0 {
            for program in programs {
                if seccompiler::apply_filter(program).is_err() {
                    libc::_exit(200);
                }
            }
            let [a, b, c] = args;
            let failed = libc::syscall(number, a, b, c, 0, 0, 0) < 0;
            let errno = if failed { *libc::__errno_location() } else { 0 };
            libc::_exit(errno);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        match libc::WIFSIGNALED(status) {
            true => -libc::WTERMSIG(status),
            false => libc::WEXITSTATUS(status),
        }
    }
}

#[test]
fn the_kernel_ends_who_tries_in_the_api_process() {
    let programs = api();
    for name in [
        "io_uring_setup",
        "bpf",
        "ptrace",
        "mount",
        "execve",
        "unshare",
    ] {
        assert_eq!(end_of(&programs, name, [0; 3]), -libc::SIGSYS, "{name}");
    }
    assert_eq!(
        end_of(&programs, "clone", [0; 3]),
        -libc::SIGSYS,
        "a process"
    );
    let thread_elsewhere = THREAD | libc::CLONE_NEWUSER as u64;
    assert_eq!(
        end_of(&programs, "clone", [thread_elsewhere, 0, 0]),
        libc::ENOSYS
    );
    for family in [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_ALG,
        libc::AF_VSOCK,
        libc::AF_PACKET,
    ] {
        let args = [family as u64, libc::SOCK_STREAM as u64, 0];
        assert_eq!(end_of(&programs, "socket", args), libc::ENOSYS, "{family}");
    }
    assert_eq!(end_of(&programs, "getpid", [0; 3]), 0);
}

#[test]
fn the_kernel_refuses_the_warden_what_it_never_needs() {
    let programs = warden();
    for name in [
        "io_uring_setup",
        "bpf",
        "keyctl",
        "perf_event_open",
        "userfaultfd",
        "init_module",
        "reboot",
    ] {
        assert_eq!(end_of(&programs, name, [0; 3]), libc::ENOSYS, "{name}");
    }
    for family in [libc::AF_ALG, libc::AF_VSOCK, libc::AF_PACKET] {
        let args = [family as u64, libc::SOCK_STREAM as u64, 0];
        assert_eq!(end_of(&programs, "socket", args), libc::ENOSYS, "{family}");
    }
    assert_eq!(
        end_of(
            &programs,
            "socket",
            [libc::AF_INET as u64, libc::SOCK_DGRAM as u64, 0]
        ),
        0
    );
    assert_eq!(end_of(&programs, "mount", [0; 3]), libc::EFAULT);
}
