//! Giving up power: ids, capabilities, no_new_privs. Everything here goes one way.

use crate::cell::error::{Result, Step};
use crate::sys;
use caps::Capability;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

/// Who a command is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ids {
    /// Its uid.
    pub uid: u32,
    /// Its gid.
    pub gid: u32,
}

/// Becomes `uid` and `gid` (ids of the caller's user namespace), with no supplementary group. Groups go before the
/// gid and the gid before the uid: afterwards the right to change them is gone.
pub fn become_ids(uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[]).step("setgroups")?;
    setresgid(gid, gid, gid).step("setresgid")?;
    setresuid(uid, uid, uid).step("setresuid")
}

/// Empties the bounding set. Needs CAP_SETPCAP, so it comes before the ids.
pub fn drop_bounding_set() -> Result<()> {
    sys::drop_bounding_set().step("empty the bounding set")
}

/// Empties the ambient, inheritable, effective and permitted sets and sets no_new_privs. With the bounding set empty, a
/// later execve(2) as uid 0 gains nothing either (capabilities(7), "Capabilities and execution of programs by root").
pub fn drop_capabilities() -> Result<()> {
    keep_capabilities(0)
}

/// [`become_ids`] that ends with CAP_KILL as the only capability, in the permitted and effective sets; no_new_privs is set.
pub fn become_ids_with_kill(uid: u32, gid: u32) -> Result<()> {
    // Leaving uid 0 would clear the permitted set (capabilities(7)); cleared again by the second step of this.
    nix::sys::prctl::set_keepcaps(true).step("keep the capabilities")?;
    become_ids(uid, gid)?;
    nix::sys::prctl::set_keepcaps(false).step("drop the capabilities")?;
    keep_capabilities(Capability::CAP_KILL.bitmask())
}

fn keep_capabilities(kept: u64) -> Result<()> {
    sys::keep_capabilities(kept).step("reduce the capability sets")?;
    nix::sys::prctl::set_no_new_privs().step("set no_new_privs")
}

/// Sets resource limits as (resource, soft, hard). A hard limit above the caller's own is lowered to that: raising needs
/// CAP_SYS_RESOURCE, and the lower one is the stricter.
pub fn set_rlimits(limits: &[(Resource, u64, u64)]) -> Result<()> {
    for (resource, soft, hard) in limits {
        let step = format!("set {resource:?}");
        let (_, own) = nix::sys::resource::getrlimit(*resource).step(&step)?;
        setrlimit(*resource, (*soft).min(own), (*hard).min(own)).step(&step)?;
    }
    Ok(())
}
