//! One BPF program out of many rules, searched by halves instead of from the top.
//!
//! seccompiler compares the call's number with each rule in turn. The kernel translates a program's
//! every instruction when it is installed, and runs it once for every number there is, to remember
//! which are always allowed (seccomp_cache_prepare, Linux 5.11), so a list of 300 rules makes the
//! installation the dearest step of starting a command. Most rules have no condition, and lie side
//! by side: here the numbers are cut into ranges that end alike, seccompiler compiles the few rules
//! with conditions, and jumps on the number lead to the range that it lies in.

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch, sock_filter,
};
use std::collections::BTreeMap;

/// What each of seccompiler's programs starts with: the check of the architecture (load, compare,
/// kill) and the load of the call's number.
const HEAD: usize = 4;

/// The longest program that the kernel takes (BPF_MAXINSNS in linux/bpf_common.h), less what
/// [`refuse_as_missing_above`] adds.
const MAX_LEN: usize = 4096 - 3;

/// Numbers from `first` up to the next range's first, and what the program does there; it ends in a
/// return.
#[derive(Debug)]
struct Range {
    first: u32,
    program: BpfProgram,
}

/// Compiles rules to one program that decides as `SeccompFilter` alone would.
pub(super) fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    mismatch: SeccompAction,
    matched: SeccompAction,
    arch: TargetArch,
) -> Result<BpfProgram, BackendError> {
    let compile = |rules| -> Result<BpfProgram, BackendError> {
        SeccompFilter::new(rules, mismatch.clone(), matched.clone(), arch)?.try_into()
    };
    let Some(number) = rules.keys().next() else {
        return compile(rules);
    };
    let head = compile(BTreeMap::from([(*number, Vec::new())]))?;
    let Some(head) = head
        .get(..HEAD)
        .filter(|head| head.last() == Some(&load_number()))
    else {
        // A later seccompiler begins its programs in another way: then they are not taken apart.
        return compile(rules);
    };
    let end = |action: &SeccompAction| {
        vec![instruction(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            action.clone().into(),
        )]
    };
    let mut ranges: Vec<Range> = Vec::new();
    let mut add = |first: u32, program: BpfProgram| {
        if ranges.last().is_none_or(|last| last.program != program) {
            ranges.push(Range { first, program });
        }
    };
    let mut next = 0;
    for (number, conditions) in &rules {
        let first = *number as u32;
        if first > next {
            add(next, end(&mismatch));
        }
        let program = match conditions.is_empty() {
            true => end(&matched),
            false => {
                let program = compile(BTreeMap::from([(*number, conditions.clone())]))?;
                if !program.starts_with(head) {
                    return compile(rules);
                }
                program[HEAD..].to_vec()
            }
        };
        add(first, program);
        next = first + 1;
    }
    add(next, end(&mismatch));
    let program = [head, &search(&ranges)].concat();
    match program.len() {
        0..=MAX_LEN => Ok(program),
        len => Err(BackendError::FilterTooLarge(len)),
    }
}

/// Makes a program answer ENOSYS for numbers above `newest`: calls that came later than the policy, whose callers have a
/// way to do without them and look for that answer, as runc does. The numbers of x32 calls, which have a bit of their own,
/// are left to the program.
pub(super) fn refuse_as_missing_above(newest: u32, program: &mut BpfProgram) {
    const X32: u32 = 0x4000_0000;
    let jump = |how, jt, jf, k| instruction(libc::BPF_JMP | how | libc::BPF_K, jt, jf, k);
    if program.get(HEAD - 1) == Some(&load_number()) {
        let enosys = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        let check = [
            jump(libc::BPF_JGE, 2, 0, X32),
            jump(libc::BPF_JGT, 0, 1, newest),
            instruction(libc::BPF_RET | libc::BPF_K, 0, 0, enosys),
        ];
        program.splice(HEAD..HEAD, check);
    }
}

fn load_number() -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)
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

    /// A program that is not taken apart is right but slow, and no test of verdicts would notice.
    #[test]
    fn seccompilers_programs_begin_as_expected() {
        let rules: BTreeMap<i64, Vec<SeccompRule>> = (0..304).map(|n| (n, vec![])).collect();
        let (eperm, allow) = (SeccompAction::Errno(1), SeccompAction::Allow);
        for arch in [TargetArch::x86_64, TargetArch::aarch64] {
            let program =
                compile(rules.clone(), eperm.clone(), allow.clone(), arch).expect("small");
            let far = instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, 0, 304);
            assert_eq!(program[HEAD], far, "{arch:?}");
            assert_eq!(program.len(), HEAD + 3, "{arch:?}: two ranges");
        }
    }
}
