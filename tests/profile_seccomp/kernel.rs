//! The running kernel's own verdicts. Needs no privilege: a filter holds for the thread that
//! installs it, so each test gives a thread of its own to it.

use super::*;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket, socketpair};
use nix::unistd::{getpgid, getsid};
use seccompiler::{SeccompAction, SeccompFilter};
use std::process::Command;
use std::thread;

/// Runs `check` in a thread under the programs.
fn under<T: Send>(programs: &[BpfProgram], check: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let confined = scope.spawn(|| {
            for program in programs {
                seccompiler::apply_filter(program).expect("the kernel takes the program");
            }
            check()
        });
        confined.join().expect("the confined thread ends by itself")
    })
}

fn running_default() -> [BpfProgram; 1] {
    let set = ProfileSet::load(None).expect("the embedded profiles are good");
    let profile = set.get("default").expect("there is a default");
    [profile.compile_seccomp().expect("it compiles here")]
}

/// A program that answers one call and allows all others.
fn answer(name: &str, errno: u32) -> BpfProgram {
    let target = Target::running().expect("a supported machine");
    let number = syscall_number(name, target.arch).expect(name);
    let (allow, refuse) = (SeccompAction::Allow, SeccompAction::Errno(errno));
    let rules = [(number, vec![])].into_iter().collect();
    let arch = std::env::consts::ARCH
        .try_into()
        .expect("a supported machine");
    let filter = SeccompFilter::new(rules, allow, refuse, arch).expect("sound");
    filter.try_into().expect("small")
}

#[test]
fn of_two_errnos_the_kernel_takes_the_last_installed() {
    for (first, second, expected) in [(38, 1, Errno::EPERM), (1, 38, Errno::ENOSYS)] {
        let stack = [answer("getpgid", first), answer("getpgid", second)];
        assert_eq!(under(&stack, || getpgid(None)), Err(expected));
        let target = Target::running().expect("a supported machine");
        let modelled = ask(&stack, &target, "getpgid", [0; 6]);
        assert_eq!(
            modelled,
            Verdict::Errno(expected as u32),
            "the model agrees"
        );
    }
}

#[test]
fn a_rules_errno_reaches_the_caller_over_the_defaults() {
    let text = include_str!("../../sandbox-profiles/seccomp/default.json");
    let mut tree: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let rules = tree["syscalls"].as_array_mut().expect("a list");
    rules.push(serde_json::json!(
        { "names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }
    ));
    rules.push(serde_json::json!(
        { "names": ["getsid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13 }
    ));
    let policy = SeccompPolicy::parse("test.json", &tree.to_string()).expect("well-formed");
    let program = policy.compile(&Target::running().expect("a supported machine"));
    let answers = under(&[program.expect("it compiles")], || {
        (getpgid(None), getsid(None))
    });
    assert_eq!(answers, (Err(Errno::ENOSYS), Err(Errno::EACCES)));
}

#[test]
fn a_policy_may_refuse_the_calls_that_install_policies() {
    let refused = r#"{"names": ["prctl", "seccomp"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        {"names": ["exit", "futex", "madvise", "munmap", "rt_sigprocmask", "sigaltstack"],
         "action": "SCMP_ACT_ALLOW"}"#;
    let program = policy(refused).compile(&Target::running().expect("a supported machine"));
    let answer = under(&[program.expect("it compiles")], || {
        nix::sys::prctl::get_dumpable()
    });
    assert_eq!(answer, Err(Errno::ENOSYS));
}

/// Without the filter the answer is EINVAL: a process with several threads can't unshare its user
/// namespace, whoever it is.
#[test]
fn no_user_namespace_can_be_made() {
    let flags = CloneFlags::CLONE_NEWUSER;
    assert_eq!(
        unshare(flags),
        Err(Errno::EINVAL),
        "the test would prove nothing"
    );
    assert_eq!(
        under(&running_default(), || unshare(flags)),
        Err(Errno::EPERM)
    );
}

#[test]
fn threads_and_processes_can_be_started() {
    under(&running_default(), || {
        let doubled = thread::spawn(|| 21 * 2).join().expect("a thread");
        assert_eq!(doubled, 42);
        let status = Command::new("true").status().expect("a process");
        assert!(status.success(), "{status}");
    });
}

#[test]
fn only_listed_socket_families_open() {
    let open = |family, kind| socket(family, kind, SockFlag::SOCK_CLOEXEC, None).map(drop);
    under(&running_default(), || {
        for family in [
            AddressFamily::Unix,
            AddressFamily::Inet,
            AddressFamily::Inet6,
        ] {
            assert_eq!(open(family, SockType::Stream), Ok(()), "{family:?}");
        }
        assert_eq!(open(AddressFamily::Netlink, SockType::Raw), Ok(()));
        for (family, kind) in [
            (AddressFamily::Alg, SockType::SeqPacket),
            (AddressFamily::Vsock, SockType::Stream),
            (AddressFamily::Packet, SockType::Raw),
            (AddressFamily::Bluetooth, SockType::Raw),
        ] {
            assert_eq!(open(family, kind), Err(Errno::EPERM), "{family:?}");
        }
        let pair = |family| {
            let flags = SockFlag::SOCK_CLOEXEC;
            socketpair(family, SockType::Stream, None, flags).map(drop)
        };
        assert_eq!(pair(AddressFamily::Unix), Ok(()));
        assert_eq!(pair(AddressFamily::Inet), Err(Errno::EPERM));
    });
}
