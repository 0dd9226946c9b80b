//! Landlock (landlock(7)), the second layer: a domain that a process enters of its own accord and that it and its children
//! never leave. `cell/landlock` says what a cell's domain allows, `roles/jail` what that of the api process does; this is
//! how one is made, whatever the kernel has of it. A kernel without Landlock is no error: every promise is kept by
//! another layer, and `doctor` and the log say that this one is missing.

use crate::sys;
use ::landlock::{
    Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, RestrictSelfAttr,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use nix::errno::Errno;
use std::error::Error;
use std::os::fd::BorrowedFd;

pub use ::landlock::{ABI as Abi, AccessFs as Right, BitFlags as Rights};

/// The newest ABI whose restrictions this program was tried under. A newer kernel is used as if it had this one: a right
/// that nobody here knows would be denied to every command.
const NEWEST: Abi = Abi::V7;

/// What a part of the layer needs.
const PARTS: [(Abi, &str, &str); 3] = [
    (Abi::V2, "files", "5.19"),
    (Abi::V4, "TCP", "6.7"),
    (Abi::V6, "signals and abstract sockets", "6.12"),
];

/// The kernel's ABI, as far as it is used; `Unsupported` where Landlock is not built in or not enabled at boot.
///
/// ABI 1 (Linux 5.13) counts as none: every domain with rules for files denies rename(2) and link(2) from one directory
/// to another there, whatever its rules say, which breaks programs.
pub fn abi() -> Abi {
    match sys::landlock_abi().map_or(Abi::Unsupported, Abi::from) {
        Abi::V1 => Abi::Unsupported,
        abi => abi.min(NEWEST),
    }
}

/// What of the second layer an ABI brings, in words, and what it lacks.
pub fn describe(abi: Abi) -> Result<String, String> {
    let on: Vec<&str> = PARTS
        .iter()
        .filter(|(from, _, _)| abi >= *from)
        .map(|(_, what, _)| *what)
        .collect();
    let missing: Vec<String> = PARTS
        .iter()
        .filter(|(from, _, _)| abi < *from)
        .map(|(_, what, linux)| format!("{what} (Linux {linux})"))
        .collect();
    if missing.is_empty() {
        return Ok(format!("ABI {abi}: {}", on.join(", ")));
    }
    let missing = missing.join(", ");
    Err(if on.is_empty() {
        format!("no second layer for {missing}; a kernel may also need lsm=landlock,… at boot")
    } else {
        format!(
            "ABI {abi}: {}; no second layer for {missing}",
            on.join(", ")
        )
    })
}

/// All rights over files that an ABI knows.
pub fn all(abi: Abi) -> Rights<Right> {
    AccessFs::from_all(abi)
}

/// What a domain is to restrict beside abstract sockets and signals, which it always does: those of other domains are out
/// of its reach.
#[derive(Debug)]
pub struct Rules<'a> {
    /// Files: what may be done in and below these directories, and nothing elsewhere. Rights that the ABI lacks are left
    /// out.
    pub places: &'a [(BorrowedFd<'a>, Rights<Right>)],
    /// Whether TCP is denied: to bind a socket and to connect one.
    pub deny_tcp: bool,
    /// Whether what is denied stays out of the host's audit log (Linux 6.15; older kernels log nothing).
    pub quiet: bool,
}

/// A domain that waits to be entered.
#[derive(Debug)]
pub struct Domain(RulesetCreated);

impl Domain {
    /// Makes one out of everything that `abi` has; none where that is nothing. `abi` may be older than the kernel's.
    ///
    /// # Errors
    /// What the kernel said; that a right is unknown can't be, since only those of `abi` are asked for.
    pub fn new(abi: Abi, rules: &Rules<'_>) -> Result<Option<Self>, Errno> {
        if abi == Abi::Unsupported {
            return Ok(None);
        }
        Self::create(abi, rules).map(Some).map_err(|e| errno(&e))
    }

    fn create(abi: Abi, rules: &Rules<'_>) -> Result<Self, RulesetError> {
        // The best effort is made here, part by part, so that nothing is left out that was not meant to be.
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(all(abi))?;
        if rules.deny_tcp && abi >= Abi::V4 {
            ruleset = ruleset.handle_access(AccessNet::from_all(Abi::V4))?;
        }
        if abi >= Abi::V6 {
            ruleset = ruleset.scope(Scope::from_all(abi))?;
        }
        let mut made = ruleset.create()?.no_new_privs(false);
        for (place, rights) in rules.places {
            let rights: BitFlags<AccessFs> = *rights & all(abi);
            if !rights.is_empty() {
                made = made.add_rule(PathBeneath::new(place, rights))?;
            }
        }
        if rules.quiet && abi >= Abi::V7 {
            made = made.log_same_exec(false)?.log_subdomains(false)?;
        }
        Ok(Self(made))
    }

    /// Restricts the calling thread, which must have set no_new_privs, and all that it starts from now on.
    pub fn enter(self) -> Result<(), Errno> {
        self.0.restrict_self().map(drop).map_err(|e| errno(&e))
    }
}

/// The kernel's answer in an error of the library's.
fn errno(error: &RulesetError) -> Errno {
    let mut inner: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = inner {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Errno::from_raw(io.raw_os_error().unwrap_or(libc::EINVAL));
        }
        inner = error.source();
    }
    Errno::EINVAL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_lacks_is_named() {
        let all = describe(Abi::V7).unwrap();
        assert_eq!(all, "ABI 7: files, TCP, signals and abstract sockets");
        let some = describe(Abi::V4).unwrap_err();
        assert!(some.starts_with("ABI 4: files, TCP; no second layer for signals"));
        let none = describe(Abi::Unsupported).unwrap_err();
        assert!(none.contains("files (Linux 5.19), TCP (Linux 6.7), signals"));
    }
}
