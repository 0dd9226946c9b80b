//! Names and numbers of system calls, from `syscalls.txt` and `foreign_syscalls.txt` beside this
//! file.
//!
//! Tables of our own, not libc's constants: those stop at the release that the crate was made from,
//! and know only the architecture of the build, so that a policy could not be tested for the other
//! one.

use super::target::Arch;
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

/// One system call's number on each architecture that has it.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    x86_64: Option<i64>,
    aarch64: Option<i64>,
}

static NATIVE: LazyLock<HashMap<&'static str, Numbers>> = LazyLock::new(|| {
    lines(include_str!("syscalls.txt"))
        .filter_map(|line| {
            let mut columns = line.split_ascii_whitespace();
            let name = columns.next()?;
            let mut number = || columns.next().and_then(|text| text.parse().ok());
            let x86_64 = number();
            let aarch64 = number();
            Some((name, Numbers { x86_64, aarch64 }))
        })
        .collect()
});

static FOREIGN: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    lines(include_str!("foreign_syscalls.txt"))
        .flat_map(str::split_ascii_whitespace)
        .collect()
});

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.starts_with('#'))
}

/// The call's number on that architecture; none where it has no such call.
pub fn syscall_number(name: &str, arch: Arch) -> Option<i64> {
    let numbers = NATIVE.get(name)?;
    match arch {
        Arch::X86_64 => numbers.x86_64,
        Arch::Aarch64 => numbers.aarch64,
    }
}

/// Every call of an architecture with its number, in no order.
pub fn syscalls(arch: Arch) -> impl Iterator<Item = (&'static str, i64)> {
    NATIVE
        .keys()
        .filter_map(move |name| Some((*name, syscall_number(name, arch)?)))
}

/// Whether any Linux machine has a call of that name.
pub fn is_known(name: &str) -> bool {
    NATIVE.contains_key(name) || FOREIGN.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_has_a_name_of_its_own_and_a_number() {
        let count = lines(include_str!("syscalls.txt")).count();
        assert_eq!(NATIVE.len(), count);
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let numbers: HashSet<i64> = syscalls(arch).map(|(_, number)| number).collect();
            assert_eq!(
                numbers.len(),
                syscalls(arch).count(),
                "{arch:?}: a number twice"
            );
        }
        for (name, numbers) in NATIVE.iter() {
            assert!(
                numbers.x86_64.is_some() || numbers.aarch64.is_some(),
                "{name}"
            );
            assert!(!FOREIGN.contains(name), "{name} is in both tables");
        }
    }

    /// libc's constants are an independent source for the architecture of the build.
    #[test]
    fn numbers_agree_with_libc() {
        let arch = super::super::Target::running()
            .expect("a supported machine")
            .arch;
        macro_rules! check {
            ($($name:ident = $sys:ident),* $(,)?) => { $(
                assert_eq!(syscall_number(stringify!($name), arch), Some(libc::$sys));
            )* };
        }
        check!(
            read = SYS_read,
            close = SYS_close,
            ioctl = SYS_ioctl,
            socket = SYS_socket,
            socketpair = SYS_socketpair,
            clone = SYS_clone,
            clone3 = SYS_clone3,
            execve = SYS_execve,
            ptrace = SYS_ptrace,
            personality = SYS_personality,
            unshare = SYS_unshare,
            setns = SYS_setns,
            mount = SYS_mount,
            umount2 = SYS_umount2,
            pivot_root = SYS_pivot_root,
            seccomp = SYS_seccomp,
            bpf = SYS_bpf,
            keyctl = SYS_keyctl,
            userfaultfd = SYS_userfaultfd,
            io_uring_setup = SYS_io_uring_setup,
            perf_event_open = SYS_perf_event_open,
            kexec_load = SYS_kexec_load,
            init_module = SYS_init_module,
            open_by_handle_at = SYS_open_by_handle_at,
            process_vm_readv = SYS_process_vm_readv,
            openat2 = SYS_openat2,
            mseal = SYS_mseal,
        );
    }
}
