//! The default policy against Docker's default, call by call: equal, or stricter with a reason.

use super::bpf::{AUDIT_ARCH_ARM, AUDIT_ARCH_I386};
use super::*;
use cellblock::profile::seccomp::syscalls;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Calls that Docker allows in more cases than the default policy does, and why this is stricter.
const STRICTER: [(&str, &str); 16] = [
    ("epoll_ctl_old", "no kernel has it any more"),
    ("epoll_wait_old", "no kernel has it any more"),
    (
        "get_thread_area",
        "64-bit kernels answer it for 32-bit programs only",
    ),
    (
        "set_thread_area",
        "64-bit kernels answer it for 32-bit programs only",
    ),
    (
        "fanotify_mark",
        "useless without fanotify_init, which Docker refuses as well",
    ),
    (
        "modify_ldt",
        "for 16-bit code; a part of the kernel with a history of holes",
    ),
    (
        "ioctl",
        "TIOCSTI, TIOCLINUX and TIOCSETD reach the terminal or load kernel code; FS_IOC_GETFSUUID and its like name the \
         machine's disk",
    ),
    (
        "setsockopt",
        "programs on sockets share one pool of the whole machine's, and keep sockets alive",
    ),
    (
        "socket",
        "only families and protocols that a cell has a use for",
    ),
    (
        "socketpair",
        "only AF_UNIX; the kernel makes pairs of hardly anything else",
    ),
    ("io_setup", AIO),
    ("io_submit", AIO),
    ("io_cancel", AIO),
    ("io_getevents", AIO),
    ("io_pgetevents", AIO),
    ("io_destroy", AIO),
];

/// These answer ENOSYS, so that programs do without.
const AIO: &str = "one quota for the whole host, fs.aio-max-nr";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Docker {
    Allow,
    Conditional,
    Enosys,
    Deny,
}

fn docker_table() -> BTreeMap<&'static str, Docker> {
    let mut table = BTreeMap::new();
    let mut verdict = None;
    let lines = include_str!("docker_verdicts.txt").lines();
    for line in lines.filter(|line| !line.starts_with('#')) {
        verdict = match line {
            "allow:" => Some(Docker::Allow),
            "conditional:" => Some(Docker::Conditional),
            "enosys:" => Some(Docker::Enosys),
            "deny:" => Some(Docker::Deny),
            _ => verdict,
        };
        for name in line.split_ascii_whitespace().filter(|w| !w.ends_with(':')) {
            let earlier = table.insert(name, verdict.expect("a heading comes first"));
            assert_eq!(earlier, None, "{name} stands twice");
        }
    }
    table
}

fn docker_allows(verdict: Docker, name: &str, args: &[u64; 6]) -> bool {
    match (verdict, name) {
        (Docker::Allow, _) => true,
        (Docker::Enosys | Docker::Deny, _) => false,
        (Docker::Conditional, "clone") => args[0] & 0x7E02_0000 == 0,
        (Docker::Conditional, "personality") => {
            [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff].contains(&args[0])
        }
        (Docker::Conditional, "socket") => args[0] < 38 || args[0] == 39 || args[0] > 40,
        (Docker::Conditional, other) => panic!("no condition is known for {other}"),
    }
}

/// Arguments that conditions could be about, and others.
fn argument_samples() -> Vec<[u64; 6]> {
    let words = [
        0,
        1,
        2,
        3,
        6,
        8,
        10,
        16,
        17,
        26,
        38,
        39,
        40,
        41,
        58,
        0x5401,
        0x5412,
        0x541c,
        0x5423,
        0x2_0000,
        0x2_0008,
        0x003d_0f00,
        0x1000_0011,
        0x7E02_0000,
        0xffff_ffff,
        0x1_0000_0001,
        0x1_0000_5412,
        u64::MAX,
    ];
    let mut samples = Vec::new();
    for first in words {
        for second in words {
            samples.push([first, second, 0, 0, 0, 0]);
            samples.push([first, 0, second, first, second, first]);
            samples.push([0, first, second, 0, 0, 0]);
        }
    }
    samples
}

#[test]
fn dockers_table_covers_every_call() {
    let named: BTreeSet<&str> = docker_table().into_keys().collect();
    let all: BTreeSet<&str> = TARGETS
        .iter()
        .flat_map(|target| syscalls(target.arch))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(named, all);
}

#[test]
fn every_call_is_decided_as_by_docker_or_stricter_for_a_listed_reason() {
    let docker = docker_table();
    let samples = argument_samples();
    let mut stricter = BTreeSet::new();
    for (target, programs) in TARGETS.iter().zip(COMPILED.iter()) {
        for (name, number) in syscalls(target.arch) {
            for args in &samples {
                let ours = decide(programs, &Call::new(target.arch, number as u32, *args));
                match (ours, docker_allows(docker[name], name, args)) {
                    (Verdict::Allow, true) => {}
                    (Verdict::Allow, false) => panic!("{name} {args:x?}: Docker refuses it"),
                    (_, true) => {
                        stricter.insert(name);
                        let aio = STRICTER.contains(&(name, AIO));
                        assert_eq!(ours, if aio { ENOSYS } else { EPERM }, "{name}");
                    }
                    (_, false) if docker[name] == Docker::Enosys => assert_eq!(ours, ENOSYS),
                    (_, false) => assert_eq!(ours, EPERM, "{name} {args:x?}"),
                }
            }
        }
    }
    let listed: BTreeSet<&str> = STRICTER.iter().map(|(name, _)| *name).collect();
    assert_eq!(stricter, listed);
}

/// SECURITY.md lists the differences as rows `| calls | why |` of one table.
#[test]
fn the_differences_are_told_in_security_md() {
    let text = include_str!("../../SECURITY.md");
    let (_, section) = text
        .split_once("\n### Stricter than Docker\n")
        .expect("the section");
    let section = section.split("\n#").next().expect("a part");
    let mut told = BTreeSet::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [calls, why] = cells.as_slice() else {
            panic!("{row}");
        };
        for name in calls.split('`').skip(1).step_by(2) {
            assert!(told.insert((name, *why)), "{name} stands twice");
        }
    }
    assert_eq!(told, BTreeSet::from(STRICTER));
}

/// Numbers that no kernel has given to a call of the architecture, below the newest one.
fn gaps(arch: Arch) -> BTreeSet<u32> {
    match arch {
        // To 423: kept free when both began to share one numbering; from 512 on it is x32's.
        Arch::X86_64 => (337..=423).collect(),
        // For calls of single architectures, of 32-bit ones, and as above.
        Arch::Aarch64 => (244..=259).chain(295..=423).collect(),
    }
}

#[test]
fn every_number_up_to_the_newest_is_known() {
    for target in &TARGETS {
        let known: BTreeSet<u32> = syscalls(target.arch).map(|(_, n)| n as u32).collect();
        let newest = *known.last().expect("there are some");
        assert!(newest >= 470, "{newest}");
        let unknown: BTreeSet<u32> = (0..=newest).filter(|n| !known.contains(n)).collect();
        assert_eq!(unknown, gaps(target.arch), "{:?}", target.arch);
    }
}

/// The names of the headers of the machine that runs this, where it has them, are known too.
#[test]
fn the_tables_know_what_this_machines_headers_know() {
    for place in [
        "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
        "/usr/include/asm/unistd_64.h",
    ] {
        let text = std::fs::read_to_string(place).unwrap_or_default();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("#define __NR_") else {
                continue;
            };
            let (name, number) = rest.split_once(' ').expect("a number");
            let ours = syscall_number(name, Arch::X86_64);
            assert_eq!(ours, number.trim().parse().ok(), "{name}");
        }
    }
}

#[test]
fn numbers_without_a_call_and_x32_calls_are_refused() {
    for (target, programs) in TARGETS.iter().zip(COMPILED.iter()) {
        let known: BTreeSet<u32> = syscalls(target.arch).map(|(_, n)| n as u32).collect();
        let newest = *known.last().expect("there are some");
        for args in [[0; 6], [1; 6], [u64::MAX; 6]] {
            for number in 0..=600 {
                let ask = |number| decide(programs, &Call::new(target.arch, number, args));
                if !known.contains(&number) {
                    // What is newer than the policy looks missing, as on an older kernel.
                    let answer = if number > newest { ENOSYS } else { EPERM };
                    assert_eq!(ask(number), answer, "{:?} {number}", target.arch);
                }
                assert_eq!(ask(number | 0x4000_0000), EPERM, "x32 {number}");
            }
            let call = Call::new(target.arch, 0x3fff_ffff, args);
            assert_eq!(decide(programs, &call), ENOSYS);
            for number in [u32::MAX, 0x8000_0000, 0x7fff_ffff] {
                let call = Call::new(target.arch, number, args);
                assert_eq!(decide(programs, &call), EPERM, "{number:#x}");
            }
        }
    }
}

#[test]
fn calls_of_another_architecture_kill_the_process() {
    for programs in COMPILED.iter() {
        for audit_arch in [AUDIT_ARCH_I386, AUDIT_ARCH_ARM, 0] {
            for number in 0..=600 {
                let args = [0; 6];
                let call = Call {
                    audit_arch,
                    number,
                    args,
                };
                assert_eq!(decide(programs, &call), Verdict::KillProcess, "{call:x?}");
            }
        }
    }
}

#[test]
fn the_default_policy_names_no_unknown_call() {
    let set = ProfileSet::load(None).expect("the embedded profiles are good");
    for profile in set.iter() {
        assert_eq!(
            profile.unknown_syscalls(),
            Vec::<String>::new(),
            "{}",
            profile.name
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_arguments_nothing_is_allowed_that_docker_refuses(args: [u64; 6]) {
        let docker = docker_table();
        for (target, programs) in TARGETS.iter().zip(COMPILED.iter()) {
            for (name, number) in syscalls(target.arch) {
                let ours = decide(programs, &Call::new(target.arch, number as u32, args));
                if ours == Verdict::Allow {
                    prop_assert!(docker_allows(docker[name], name, &args), "{} {:x?}", name, args);
                }
            }
        }
    }
}
