//! What the seccomp policies decide, evaluated without making the calls, and a few of them made.

mod arguments;
mod bpf;
mod kernel;
mod parser;
mod properties;
mod roles;
mod verdicts;

use bpf::{Call, Verdict, decide};
use cellblock::profile::ProfileSet;
use cellblock::profile::seccomp::{Arch, KernelVersion, SeccompPolicy, Target, syscall_number};
use seccompiler::BpfProgram;
use std::sync::LazyLock;

const EPERM: Verdict = Verdict::Errno(1);
const ENOSYS: Verdict = Verdict::Errno(38);

/// Both architectures, with a kernel that puts every rule of the default policy in force.
const TARGETS: [Target; 2] = [
    Target {
        arch: Arch::X86_64,
        kernel: KernelVersion(6, 1),
    },
    Target {
        arch: Arch::Aarch64,
        kernel: KernelVersion(6, 1),
    },
];

/// The default policy for each target, compiled once: some tests ask it thousands of times.
static COMPILED: LazyLock<[[BpfProgram; 1]; 2]> =
    LazyLock::new(|| TARGETS.map(|target| default_policy(&target)));

/// The default profile's policy, compiled.
fn default_policy(target: &Target) -> [BpfProgram; 1] {
    let set = ProfileSet::load(None).expect("the embedded profiles are good");
    let profile = set.get("default").expect("there is a default");
    let program = profile.seccomp_policy().compile(target);
    [program.expect("it compiles")]
}

/// A policy with these `syscalls` beside an allowed execve, everything else EPERM.
fn policy(syscalls: &str) -> SeccompPolicy {
    let text = format!(
        r#"{{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": [
            {{"names": ["execve"], "action": "SCMP_ACT_ALLOW"}}, {syscalls}]}}"#
    );
    SeccompPolicy::parse("test.json", &text).expect(&text)
}

/// The verdict on one call by name.
fn ask(programs: &[BpfProgram], target: &Target, name: &str, args: [u64; 6]) -> Verdict {
    let number = syscall_number(name, target.arch).expect(name);
    decide(programs, &Call::new(target.arch, number as u32, args))
}
