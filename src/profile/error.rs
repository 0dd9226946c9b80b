//! What can be wrong with a profile. Each message names the file, the field and what to do.

use std::path::PathBuf;

/// Why profiles can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// A file or directory can't be read.
    #[error("{}: can't be read; check that it exists and who owns it", path.display())]
    Read {
        /// What was opened.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A profile is no TOML, lacks a field, or has one that does not exist. The source names it.
    #[error("{file}: not a profile; sandbox-profiles/default.toml shows every field")]
    Toml {
        /// The profile's file.
        file: String,
        /// Line, field and what was expected.
        source: Box<toml::de::Error>,
    },
    /// A seccomp policy is no JSON or not of the OCI shape. The source names the place.
    #[error("{file}: not an OCI seccomp policy; sandbox-profiles/seccomp/default.json is one")]
    Json {
        /// The policy's file.
        file: String,
        /// Line, column and what was expected.
        source: serde_json::Error,
    },
    /// A field has a value that can't be used.
    #[error("{file}: {field}: {problem}; {remedy}")]
    Field {
        /// The profile's or policy's file.
        file: String,
        /// The field, as a path (`limits.pids.max`, `syscalls[3].args[0].op`).
        field: String,
        /// What is wrong with it.
        problem: String,
        /// What to write instead.
        remedy: String,
    },
    /// This build runs on an architecture that seccomp policies are not compiled for.
    #[error("seccomp policies can't be compiled for {0}; x86_64 and aarch64 are supported")]
    Arch(&'static str),
    /// The BPF compiler refused, mostly because a program would be too large for the kernel.
    #[error("{file}: the policy can't be compiled; it has too many rules with arguments")]
    Compile {
        /// The policy's file.
        file: String,
        /// The compiler's reason.
        source: seccompiler::BackendError,
    },
}

/// Where a check happens, to build [`ProfileError::Field`] from.
#[derive(Debug, Clone, Copy)]
pub(super) struct InFile<'a>(pub &'a str);

impl InFile<'_> {
    /// The error for one field.
    pub(super) fn field(
        self,
        field: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ProfileError {
        ProfileError::Field {
            file: self.0.to_owned(),
            field: field.into(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}
