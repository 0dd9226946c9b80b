//! One BPF program out of many rules, searched by halves instead of from the top.
//!
//! seccompiler compares the call's number with each rule in turn. The kernel runs a new program
//! once for every number there is, to remember which are always allowed (seccomp_cache_prepare,
//! Linux 5.11), so a list of 300 rules makes the installation the dearest step of starting a
//! command. Here seccompiler compiles small groups of rules, and jumps on the number lead to the
//! group that could hold it.

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch, sock_filter,
};
use std::collections::BTreeMap;

/// Calls in one group; from there on comparing them in turn is as quick as another jump.
const GROUP: usize = 8;

/// What each of seccompiler's programs starts with: the check of the architecture (load, compare,
/// kill) and the load of the call's number.
const HEAD: usize = 4;

/// The longest program that the kernel takes (BPF_MAXINSNS in linux/bpf_common.h), less what
/// [`refuse_as_missing_above`] adds.
const MAX_LEN: usize = 4096 - 3;

/// Compiles rules to one program that decides as `SeccompFilter` alone would.
pub(super) fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    mismatch: SeccompAction,
    matched: SeccompAction,
    arch: TargetArch,
) -> Result<BpfProgram, BackendError> {
    let compile =
        |rules| SeccompFilter::new(rules, mismatch.clone(), matched.clone(), arch)?.try_into();
    let mut groups: Vec<(u32, BpfProgram)> = Vec::new();
    let mut rest = rules.clone().into_iter().peekable();
    while let Some((first, _)) = rest.peek() {
        let first = *first as u32;
        groups.push((first, compile(rest.by_ref().take(GROUP).collect())?));
    }
    let Some(head) = common_head(&groups) else {
        return compile(rules);
    };
    for (_, program) in &mut groups {
        program.drain(..HEAD);
    }
    let mut program = head;
    program.extend(search(&groups));
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

/// The head that all programs share. None when there is no program, or when a later seccompiler
/// begins its programs in another way: then they are not taken apart.
fn common_head(groups: &[(u32, BpfProgram)]) -> Option<Vec<sock_filter>> {
    let head = groups.first()?.1.get(..HEAD)?;
    let shared = groups.iter().all(|(_, program)| program.starts_with(head));
    (shared && head[HEAD - 1] == load_number()).then(|| head.to_vec())
}

/// The groups behind jumps on the number, which is loaded. Each group ends in a return, so none
/// runs into the next.
fn search(groups: &[(u32, BpfProgram)]) -> Vec<sock_filter> {
    let (left, right) = match groups {
        [] => return Vec::new(),
        [(_, only)] => return only.clone(),
        several => several.split_at(several.len() / 2),
    };
    let (first, left, right) = (right[0].0, search(left), search(right));
    // A conditional jump reaches 255 instructions, so it only chooses whether to take the far one.
    let mut program = vec![
        instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, first),
        instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, left.len() as u32),
    ];
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
            let far = instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, 152);
            assert_eq!(program[HEAD], far, "{arch:?}");
        }
    }
}
