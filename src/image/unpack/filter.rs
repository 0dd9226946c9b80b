//! The system calls of the confined process: files beneath its directories, memory, its socket.

use nix::errno::Errno;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;

/// Allowed whatever their arguments are.
const ALLOWED: &[libc::c_long] = &[
    // Memory, of the allocator's.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Descriptors that are open.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_sendmsg,
    // Files by name.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    // Attributes.
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fchmod,
    libc::SYS_utimensat,
    libc::SYS_fsetxattr,
    // The end, a panic's included.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
];

/// The program; everything that it does not allow fails with EPERM.
pub fn program() -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for number in ALLOWED {
        rules.insert(*number, Vec::new());
    }
    let is = |index, op, value| SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value);
    // No memory that runs: neither new nor changed.
    let exec = libc::PROT_EXEC as u64;
    for number in [libc::SYS_mmap, libc::SYS_mprotect] {
        let not_exec = is(2, SeccompCmpOp::MaskedEq(exec), 0)?;
        rules.insert(number, vec![SeccompRule::new(vec![not_exec])?]);
    }
    // Of all nodes a whiteout: a character device 0:0.
    let kind = SeccompCmpOp::MaskedEq(u64::from(libc::S_IFMT));
    let whiteout = vec![
        is(2, kind, u64::from(libc::S_IFCHR))?,
        is(3, SeccompCmpOp::Eq, 0)?,
    ];
    rules.insert(libc::SYS_mknodat, vec![SeccompRule::new(whiteout)?]);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(Errno::EPERM as u32),
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?;
    filter.try_into()
}
