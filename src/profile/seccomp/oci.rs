//! The shape of an OCI seccomp file, with what Docker and Podman add to it, as serde reads it.
//!
//! `linux.seccomp` of the OCI runtime-spec: defaultAction, defaultErrnoRet, architectures,
//! syscalls. Docker: archMap, includes, excludes, comment. Podman: errno and defaultErrno, names
//! for the same numbers. An unknown field is an error: it could be a condition, and a rule without
//! its condition allows more than its author meant. Whether the values make sense is checked in
//! `policy`.

use serde::Deserialize;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    pub default_action: String,
    pub default_errno_ret: Option<u32>,
    pub default_errno: Option<String>,
    pub architectures: Option<Vec<String>>,
    pub arch_map: Option<Vec<ArchMap>>,
    pub flags: Option<Vec<String>>,
    pub listener_path: Option<String>,
    pub listener_metadata: Option<String>,
    pub syscalls: Vec<Syscall>,
}

/// One machine that the file is for. Its sub-architectures are killed here, whatever the file says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ArchMap {
    pub architecture: String,
    #[serde(rename = "subArchitectures")]
    pub _sub_architectures: Option<Vec<String>>,
}

/// One rule.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Syscall {
    pub names: Vec<String>,
    pub action: String,
    pub errno_ret: Option<u32>,
    pub errno: Option<String>,
    pub args: Option<Vec<Arg>>,
    #[serde(rename = "comment")]
    pub _comment: Option<String>,
    pub includes: Option<Filter>,
    pub excludes: Option<Filter>,
}

/// A condition on one argument.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Arg {
    pub index: u64,
    pub value: u64,
    pub value_two: Option<u64>,
    pub op: String,
}

/// When a rule is in force.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Filter {
    pub caps: Option<Vec<String>>,
    pub arches: Option<Vec<String>>,
    pub min_kernel: Option<String>,
}
