//! Sandbox profiles: what a cell looks like from inside and what it may do, as data in
//! `sandbox-profiles/`.
//!
//! A profile is a TOML file ([`ProfileSet`] finds it, `file` checks it) that names a seccomp policy
//! in the OCI format ([`seccomp`] compiles it to BPF). The warden loads the set once at its start,
//! compiles each profile once and builds cells from the fields; the api process reads identities,
//! limits and names to validate requests. Neither reads the files again: a change needs a restart.

mod error;
mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod landlock;
mod limits;
mod proc;
pub mod seccomp;
mod set;

pub use error::ProfileError;
pub use landlock::{LandlockOptions, Tcp};
pub use limits::{Limit, Limits, Rlimit};
pub use proc::{HidePid, ProcOptions, ProcSubset};
pub use set::ProfileSet;

use seccomp::{SeccompPolicy, Target};
use seccompiler::BpfProgram;
use std::path::PathBuf;
use std::sync::Arc;

/// One sandbox profile, checked: every field can be used as it is.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The file's name without `.toml`; what requests call it.
    pub name: String,
    /// Who a command is inside.
    pub identity: Identity,
    /// What a runtime gets when a request names no value, and the most it may ask for.
    pub limits: Limits,
    /// setrlimit(2), each resource at most once, RLIMIT_CORE always among them.
    pub rlimits: Vec<Rlimit>,
    /// Absolute paths under `/proc` to cover so that they read as empty. One that this kernel lacks
    /// is to be skipped.
    pub masked_paths: Vec<PathBuf>,
    /// Absolute paths under `/proc` to make read-only. One that this kernel lacks is to be skipped.
    pub readonly_paths: Vec<PathBuf>,
    /// Options to mount `/proc` with.
    pub proc: ProcOptions,
    /// What Landlock denies beyond what it always does.
    pub landlock: LandlockOptions,
    /// Permission bits taken from new files, at most 0o777.
    pub umask: u32,
    /// Name of the seccomp policy file.
    pub seccomp: String,
    policy: Arc<SeccompPolicy>,
}

/// Who a command is inside its user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id inside, below 65,536: an id of the runtime's range.
    pub uid: u32,
    /// Group id inside, below 65,536.
    pub gid: u32,
    /// Login name: the variable USER, and the name in a made-up `/etc/passwd`.
    pub user: String,
    /// Absolute path: the variable HOME and the default working directory.
    pub home: String,
}

impl Profile {
    /// Compiles the seccomp policy for this machine. Fails when the policy is not for this
    /// architecture, when the kernel's release can't be read or when the program gets too large.
    pub fn compile_seccomp(&self) -> Result<BpfProgram, ProfileError> {
        self.policy.compile(&Target::running()?)
    }

    /// Whether the policy allows some calls on this machine, whatever their arguments are. What the machine does not have
    /// is no obstacle.
    ///
    /// # Errors
    /// As [`Profile::compile_seccomp`].
    pub fn allows_always(&self, names: &[&str]) -> Result<bool, ProfileError> {
        self.policy.allows_always(&Target::running()?, names)
    }

    /// Names in the policy that are no system call of any Linux this build knows, in order:
    /// misspelt, or newer than this build. They are not an error, since a rule without a number
    /// allows nothing.
    pub fn unknown_syscalls(&self) -> Vec<String> {
        self.policy.unknown_syscalls()
    }

    /// The parsed seccomp policy, to compile for another [`Target`] than this machine.
    pub fn seccomp_policy(&self) -> &SeccompPolicy {
        &self.policy
    }
}
