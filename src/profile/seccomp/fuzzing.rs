//! See [`crate::fuzzing`]. What the program decides is held against what the rules say, read one by one.

use super::policy::{Condition, Rule, SeccompPolicy};
use super::syscalls::syscalls;
use super::target::{Arch, KernelVersion, Target};
use bpf::{Call, Verdict, decide};
use seccompiler::{SeccompAction, SeccompCmpOp};

#[allow(dead_code)]
#[path = "../../../tests/profile_seccomp/bpf.rs"]
mod bpf;

/// Rules that are looked into; each is tried with several calls.
const RULES: usize = 24;

/// A seccomp policy in the OCI's JSON.
pub fn seccomp(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let policy = match SeccompPolicy::parse("f.json", text) {
        Ok(policy) => policy,
        Err(error) => {
            let said = error.to_string();
            assert!(said.starts_with("f.json: "), "{said}");
            return;
        }
    };
    policy.unknown_syscalls();
    for arch in [Arch::X86_64, Arch::Aarch64] {
        for kernel in [KernelVersion(4, 14), KernelVersion(6, 12)] {
            let target = Target { arch, kernel };
            if let Ok(program) = policy.compile(&target) {
                let programs = [program];
                // The machine takes no longer program than the kernel, and no instruction that it would not.
                for call in calls(&policy, &target) {
                    let expected = expected(&policy, &target, &call);
                    assert_eq!(decide(&programs, &call), expected, "{target:?} {call:?}");
                }
                let foreign = Call {
                    audit_arch: bpf::AUDIT_ARCH_I386,
                    ..Call::new(arch, 0, [0; 6])
                };
                assert_eq!(decide(&programs, &foreign), Verdict::KillProcess);
            }
        }
    }
}

/// Calls on both sides of the conditions of the rules, and some that no rule names.
fn calls(policy: &SeccompPolicy, target: &Target) -> Vec<Call> {
    let call = |number: i64, args| Call::new(target.arch, number as u32, args);
    let newest = newest(target);
    let mut calls: Vec<Call> = [0, 59, 221, newest, newest + 1, 0x3fff_ffff, 0x4000_003b]
        .map(|number| call(number, [0; 6]))
        .into();
    for (rule, number) in policy.rules_for(target, |_| true).take(RULES) {
        for step in [0, 1, u64::MAX, 1 << 32] {
            let mut args = [step; 6];
            for condition in &rule.conditions {
                args[usize::from(condition.index)] = condition.value.wrapping_add(step);
            }
            calls.push(call(number, args));
        }
        calls.push(call(number, [0; 6]));
    }
    calls
}

fn expected(policy: &SeccompPolicy, target: &Target, call: &Call) -> Verdict {
    let number = i64::from(call.number);
    let rules: Vec<&Rule> = policy
        .rules_for(target, |_| true)
        .filter(|(_, of)| *of == number)
        .map(|(rule, _)| rule)
        .collect();
    let allowing = |rule: &&&Rule| rule.action == SeccompAction::Allow;
    let named = rules.iter().any(|rule| allowing(&rule));
    let refused = rules.iter().find(|rule| {
        // Nothing allows the call, and its refusal is the default's: as good as no rule.
        let idle = rule.action == policy.default && !named;
        !allowing(rule) && !idle && matches(rule, call)
    });
    let allowed = || {
        rules
            .iter()
            .filter(allowing)
            .any(|rule| matches(rule, call))
    };
    match refused {
        Some(rule) => verdict(&rule.action),
        None if allowed() => Verdict::Allow,
        None if (newest(target) + 1..0x4000_0000).contains(&number) => {
            Verdict::Errno(libc::ENOSYS as u32)
        }
        None => verdict(&policy.default),
    }
}

fn newest(target: &Target) -> i64 {
    let numbers = syscalls(target.arch).map(|(_, number)| number);
    numbers.max().expect("some")
}

fn matches(rule: &Rule, call: &Call) -> bool {
    rule.conditions.iter().all(|condition| {
        let Condition { index, op, value } = condition;
        let argument = call.args[usize::from(*index)];
        match op {
            SeccompCmpOp::Eq => argument == *value,
            SeccompCmpOp::Ne => argument != *value,
            SeccompCmpOp::Lt => argument < *value,
            SeccompCmpOp::Le => argument <= *value,
            SeccompCmpOp::Gt => argument > *value,
            SeccompCmpOp::Ge => argument >= *value,
            SeccompCmpOp::MaskedEq(mask) => argument & mask == *value,
        }
    })
}

fn verdict(action: &SeccompAction) -> Verdict {
    match action {
        SeccompAction::Allow => Verdict::Allow,
        SeccompAction::Log => Verdict::Log,
        SeccompAction::Errno(errno) => Verdict::Errno(*errno),
        SeccompAction::Trap => Verdict::Trap,
        SeccompAction::KillThread => Verdict::KillThread,
        SeccompAction::KillProcess => Verdict::KillProcess,
        SeccompAction::Trace(_) => panic!("no policy traces"),
    }
}
