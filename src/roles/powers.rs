//! The capabilities (capabilities(7)) that each process of the service keeps, measured: without any one of them something
//! of what ARCHITECTURE.md names beside it fails. `packaging/cellblock.service` grants the same ones.

use crate::cell::error::{CellError, Result};
use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;

/// The warden's, for itself, its jobs and cells that are being made.
pub const WARDEN: [Capability; 13] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_KILL,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETUID,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_SYS_PTRACE,
];
/// What a program has that a job executes (mkfs, resize2fs): the data directory may lie in one that is closed to root.
pub const TOOLS: [Capability; 1] = [Capability::CAP_DAC_OVERRIDE];
/// For the start of the api process beside those of the warden: a port below 1024. Once it serves it has none at all.
pub const API_START: [Capability; 1] = [Capability::CAP_NET_BIND_SERVICE];
/// What the supervisor itself uses: its children have other uids, and it looks for the database in a directory of the api
/// process's. The others are permitted to it, and so to what it starts.
pub const SUPERVISOR: [Capability; 2] = [Capability::CAP_KILL, Capability::CAP_DAC_OVERRIDE];

/// The warden gives up everything but [`WARDEN`]; what it was not given it does without.
pub fn keep_wardens() -> Result<()> {
    reduce(&WARDEN, &WARDEN, &TOOLS)
}

/// The supervisor gives up everything but what its children need.
pub fn keep_supervisors() -> Result<()> {
    let children: Vec<Capability> = WARDEN.into_iter().chain(API_START).collect();
    reduce(&children, &SUPERVISOR, &children)
}

fn reduce(
    permitted: &[Capability],
    effective: &[Capability],
    bounding: &[Capability],
) -> Result<()> {
    let failed = |set: CapSet| {
        move |_| CellError {
            step: format!("reduce the {set:?} capabilities"),
            source: Errno::last(),
        }
    };
    // First, since it takes CAP_SETPCAP.
    let set = CapSet::Bounding;
    for capability in caps::read(None, set).map_err(failed(set))? {
        if !bounding.contains(&capability) {
            caps::drop(None, set, capability).map_err(failed(set))?;
        }
    }
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).map_err(failed(set))?;
    }
    let has = caps::read(None, CapSet::Permitted).map_err(failed(CapSet::Permitted))?;
    let given = |wanted: &[Capability]| -> CapsHashSet {
        wanted
            .iter()
            .copied()
            .filter(|one| has.contains(one))
            .collect()
    };
    for (set, wanted) in [
        (CapSet::Effective, effective),
        (CapSet::Permitted, permitted),
    ] {
        caps::set(None, set, &given(wanted)).map_err(failed(set))?;
    }
    Ok(())
}
