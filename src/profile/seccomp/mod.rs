//! Seccomp policies: OCI seccomp files compiled to BPF through seccompiler.
//!
//! `oci` is the file's shape, `policy` checks it, `compile` makes a program with `tree`, `syscalls`
//! and `target` know the machines. seccompiler's own JSON is another format, so its Rust types are
//! built here.

mod action;
mod compile;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod oci;
mod policy;
mod syscalls;
mod target;
mod tree;

pub use policy::SeccompPolicy;
pub use syscalls::{is_known, syscall_number, syscalls};
pub use target::{Arch, KernelVersion, Target};
