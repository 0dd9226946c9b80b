//! The actions of an OCI seccomp file and which of them are accepted where.

use crate::profile::ProfileError;
use crate::profile::error::InFile;
use seccompiler::SeccompAction;

/// What happens to a system call. `Allow` and, for its own actions, seccompiler's words.
pub(super) type Action = SeccompAction;

/// The kernel cuts larger numbers down to this (MAX_ERRNO in linux/err.h).
const MAX_ERRNO: u32 = 4095;

/// EPERM, which OCI takes where a file gives no number.
const EPERM: u32 = 1;

/// The action of a rule.
pub(super) fn parse_action(
    at: InFile<'_>,
    field: &str,
    name: &str,
    errno: Option<u32>,
) -> Result<Action, ProfileError> {
    let action = match name {
        "SCMP_ACT_ERRNO" => {
            let errno = errno.unwrap_or(EPERM);
            if errno > MAX_ERRNO {
                return Err(at.field(
                    field,
                    format!("{errno} is no errno"),
                    format!("write a value up to {MAX_ERRNO}"),
                ));
            }
            return Ok(SeccompAction::Errno(errno));
        }
        "SCMP_ACT_ALLOW" => SeccompAction::Allow,
        "SCMP_ACT_LOG" => SeccompAction::Log,
        "SCMP_ACT_TRAP" => SeccompAction::Trap,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SeccompAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => SeccompAction::KillProcess,
        "SCMP_ACT_TRACE" | "SCMP_ACT_NOTIFY" => {
            return Err(at.field(
                field,
                format!("{name} needs a process that listens, and a cell has none"),
                "write SCMP_ACT_ERRNO",
            ));
        }
        other => {
            return Err(at.field(
                field,
                format!("{other:?} is no action"),
                "write SCMP_ACT_ and one of ALLOW, ERRNO, LOG, TRAP, KILL_THREAD, KILL_PROCESS",
            ));
        }
    };
    if let Some(errno) = errno {
        return Err(at.field(
            field,
            format!("{name} returns no errno, but {errno} is given"),
            "remove the errno or write SCMP_ACT_ERRNO",
        ));
    }
    Ok(action)
}

/// The action for everything that no rule names: one that refuses.
pub(super) fn parse_default_action(
    at: InFile<'_>,
    name: &str,
    errno: Option<u32>,
) -> Result<Action, ProfileError> {
    match parse_action(at, "defaultAction", name, errno)? {
        SeccompAction::Allow | SeccompAction::Log => Err(at.field(
            "defaultAction",
            format!("{name} allows x32 calls and all that a newer kernel adds"),
            "write SCMP_ACT_ERRNO and a rule with what is allowed",
        )),
        refusing => Ok(refusing),
    }
}
