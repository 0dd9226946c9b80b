//! One BPF program out of many rules, searched by halves instead of from the top.
//!
//! seccompiler's own programs compare the call's number with each rule in turn, and know one action beside the default. The
//! kernel translates a program's every instruction when it is installed, and runs it once for every number there is, to
//! remember which are always allowed (seccomp_cache_prepare, Linux 5.11), so a list of 300 rules makes the installation the
//! dearest step of starting a command. Most rules have no condition, and lie side by side: here the numbers are cut into ranges
//! that end alike, seccompiler makes instructions of the few rules with conditions, and jumps on the number lead to the range
//! that it lies in.

use super::target::Arch;
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompRule, sock_filter};
use std::collections::BTreeMap;

/// The longest program that the kernel takes (BPF_MAXINSNS in linux/bpf_common.h).
const MAX_LEN: usize = 4096;

/// Numbers of x32 calls have this bit.
const X32: u32 = 0x4000_0000;

/// One action for a call, where it applies; else the next.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub action: SeccompAction,
    /// Whatever the arguments are.
    pub always: bool,
    /// Else, where one of these matches.
    pub rules: Vec<SeccompRule>,
}

impl Step {
    /// One that does not apply yet.
    pub fn new(action: SeccompAction) -> Self {
        Self {
            action,
            always: false,
            rules: Vec::new(),
        }
    }
}

/// Numbers from `first` up to the next range's first, and what the program does there; it ends in a
/// return.
#[derive(Debug)]
struct Range {
    first: u32,
    program: BpfProgram,
}

/// Makes the program. Numbers above `newest` get ENOSYS: calls that came later than the policy, whose callers have a way to do
/// without them and look for that answer, as runc does. Calls of another architecture end the process.
pub(super) fn compile(
    calls: &BTreeMap<u32, Vec<Step>>,
    default: &SeccompAction,
    newest: u32,
    arch: Arch,
) -> Result<BpfProgram, BackendError> {
    let mut ranges: Vec<Range> = Vec::new();
    let mut add = |first: u32, program: BpfProgram| {
        if ranges.last().is_none_or(|last| last.program != program) {
            ranges.push(Range { first, program });
        }
    };
    let mut next = 0;
    for (number, steps) in calls {
        if *number > next {
            add(next, vec![end(default)]);
        }
        add(*number, decide(steps, default));
        next = number + 1;
    }
    if next <= newest {
        add(next, vec![end(default)]);
    }
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    add(next.max(newest + 1), vec![end(&missing)]);
    add(X32, vec![end(default)]);
    // Offsets in struct seccomp_data (seccomp(2)): the number, and the architecture.
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let same = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut program = vec![
        load(4),
        instruction(same, 1, 0, arch.audit()),
        end(&SeccompAction::KillProcess),
        load(0),
    ];
    program.extend(search(&ranges));
    match program.len() {
        0..=MAX_LEN => Ok(program),
        len => Err(BackendError::FilterTooLarge(len)),
    }
}

/// The steps of one call, up to the first that always applies. seccompiler's instructions for a rule go on with what follows
/// them where it matches, and one further on where it does not.
fn decide(steps: &[Step], default: &SeccompAction) -> BpfProgram {
    let mut program = BpfProgram::new();
    for step in steps {
        if step.always {
            program.push(end(&step.action));
            return program;
        }
        for rule in &step.rules {
            program.extend(BpfProgram::from(rule.clone()));
            program.push(end(&step.action));
        }
    }
    program.push(end(default));
    program
}

fn end(action: &SeccompAction) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, action.clone().into())
}

/// The ranges behind jumps on the number, which is loaded. Each ends in a return, so none runs into
/// the next.
fn search(ranges: &[Range]) -> Vec<sock_filter> {
    let (left, right) = match ranges {
        [] => return Vec::new(),
        [only] => return only.program.clone(),
        several => several.split_at(several.len() / 2),
    };
    let (first, left, right) = (right[0].first, search(left), search(right));
    let jump = |jt, jf| instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, jt, jf, first);
    let mut program = match u8::try_from(left.len()) {
        Ok(far) => vec![jump(far, 0)],
        // A conditional jump reaches 255 instructions, so it only chooses whether to take the far one.
        Err(_) => vec![
            jump(0, 1),
            instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, left.len() as u32),
        ],
    };
    program.extend(left);
    program.extend(right);
    program
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    let code = code as u16;
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that is longer than it must be is right but slow, and no test of verdicts would notice.
    #[test]
    fn numbers_side_by_side_are_one_range() {
        let mut step = Step::new(SeccompAction::Allow);
        step.always = true;
        let calls: BTreeMap<u32, Vec<Step>> = (0..304).map(|n| (n, vec![step.clone()])).collect();
        let eperm = SeccompAction::Errno(1);
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let program = compile(&calls, &eperm, 303, arch).expect("small");
            // The head, then allowed, missing, and those of x32, with a jump between each two.
            assert_eq!(program.len(), 4 + 3 + 2, "{arch:?}");
        }
    }
}
