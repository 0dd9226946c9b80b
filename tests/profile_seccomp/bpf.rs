//! A classic BPF machine for seccomp programs, and the kernel's rule for a stack of them.
//!
//! It accepts only what the kernel's checker accepts (seccomp_check_filter, bpf_check_classic), so
//! a program that runs here would also be installed.

use cellblock::profile::seccomp::Arch;
use seccompiler::{BpfProgram, sock_filter};

/// linux/audit.h
pub const AUDIT_ARCH_X86_64: u32 = 0xC000_003E;
pub const AUDIT_ARCH_AARCH64: u32 = 0xC000_00B7;
pub const AUDIT_ARCH_I386: u32 = 0x4000_0003;
pub const AUDIT_ARCH_ARM: u32 = 0x4000_0028;

/// A system call as a program sees it (struct seccomp_data).
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub audit_arch: u32,
    pub number: u32,
    pub args: [u64; 6],
}

impl Call {
    pub fn new(arch: Arch, number: u32, args: [u64; 6]) -> Self {
        let audit_arch = match arch {
            Arch::X86_64 => AUDIT_ARCH_X86_64,
            Arch::Aarch64 => AUDIT_ARCH_AARCH64,
        };
        Self {
            audit_arch,
            number,
            args,
        }
    }

    /// The 32-bit word at an offset; both architectures are little-endian.
    fn word(&self, offset: u32) -> u32 {
        assert!(offset < 64 && offset.is_multiple_of(4), "load at {offset}");
        match offset {
            0 => self.number,
            4 => self.audit_arch,
            8 | 12 => panic!("a policy must not depend on the instruction pointer"),
            _ => {
                let argument = self.args[(offset as usize - 16) / 8];
                (if offset.is_multiple_of(8) {
                    argument
                } else {
                    argument >> 32
                }) as u32
            }
        }
    }
}

/// What a stack of programs decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Log,
    Errno(u32),
    Trap,
    KillThread,
    KillProcess,
}

/// As seccomp_run_filters does: the last installed first, and an older one only where its action is
/// strictly more restrictive. KILL_PROCESS is the smallest as a signed number.
pub fn decide(stack: &[BpfProgram], call: &Call) -> Verdict {
    let action = |value: u32| (value & 0xffff_0000) as i32;
    let mut decided = 0x7fff_0000;
    for program in stack.iter().rev() {
        let value = run(program, call);
        if action(value) < action(decided) {
            decided = value;
        }
    }
    match decided & 0xffff_0000 {
        0x7fff_0000 => Verdict::Allow,
        0x7ffc_0000 => Verdict::Log,
        0x0005_0000 => Verdict::Errno(decided & 0xffff),
        0x0003_0000 => Verdict::Trap,
        0x0000_0000 => Verdict::KillThread,
        0x8000_0000 => Verdict::KillProcess,
        _ => panic!("unexpected action {decided:#x}"),
    }
}

/// Runs one program to its return value.
fn run(program: &[sock_filter], call: &Call) -> u32 {
    assert!(
        !program.is_empty() && program.len() <= 4096,
        "{} long",
        program.len()
    );
    let mut accumulator: u32 = 0;
    let mut at = 0;
    loop {
        let sock_filter { code, jt, jf, k } = program[at].clone();
        let branch = |taken| {
            if taken {
                usize::from(jt)
            } else {
                usize::from(jf)
            }
        };
        at += 1 + match code {
            0x20 => {
                accumulator = call.word(k);
                0
            }
            0x54 => {
                accumulator &= k;
                0
            }
            0x05 => k as usize,
            0x15 => branch(accumulator == k),
            0x25 => branch(accumulator > k),
            0x35 => branch(accumulator >= k),
            0x06 => return k,
            _ => panic!("unexpected instruction {code:#x}"),
        };
    }
}

#[test]
fn the_machine_runs_each_instruction_as_the_kernel_does() {
    let op = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let program = [
        op(0x20, 0, 0, 20),   // A = high half of argument 0
        op(0x54, 0, 0, 0xf0), // A &= 0xf0
        op(0x15, 0, 1, 0x10), // A == 0x10 ? next : over one
        op(0x06, 0, 0, 1),    // return 1
        op(0x25, 1, 0, 0x20), // A > 0x20 ? over one : next
        op(0x05, 0, 0, 1),    // over one
        op(0x06, 0, 0, 2),    // return 2
        op(0x35, 0, 1, 0x20), // A >= 0x20 ? next : over one
        op(0x06, 0, 0, 3),    // return 3
        op(0x06, 0, 0, 4),    // return 4
    ];
    let run_with = |first| {
        run(
            &program,
            &Call::new(Arch::X86_64, 0, [first, 0, 0, 0, 0, 0]),
        )
    };
    assert_eq!(run_with(0x0000_001f_0000_0000), 1);
    assert_eq!(run_with(0x0000_0030_0000_0000), 2);
    assert_eq!(run_with(0x0000_0020_0000_0000), 3);
    assert_eq!(run_with(0x0000_0000_ffff_ffff), 4);
}

#[test]
fn of_two_errnos_the_last_installed_wins_and_a_kill_beats_both() {
    let always = |value| {
        vec![sock_filter {
            code: 6,
            jt: 0,
            jf: 0,
            k: value,
        }]
    };
    let call = Call::new(Arch::X86_64, 0, [0; 6]);
    let (enosys, eperm, kill, allow) = (0x5_0026, 0x5_0001, 0x8000_0000, 0x7fff_0000);
    let ask = |values: &[u32]| {
        decide(
            &values.iter().map(|v| always(*v)).collect::<Vec<_>>(),
            &call,
        )
    };
    assert_eq!(ask(&[enosys, eperm]), Verdict::Errno(1));
    assert_eq!(ask(&[eperm, enosys]), Verdict::Errno(38));
    assert_eq!(ask(&[enosys, allow]), Verdict::Errno(38));
    assert_eq!(ask(&[kill, eperm]), Verdict::KillProcess);
}
