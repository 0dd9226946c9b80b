//! Resources and the life cycle of a cell: bombs, floods, fills, daemons and odd programs, with the server staying well.
//! Needs root: the server makes cgroups and namespaces.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses a part of it"
)]
#[path = "../support/mod.rs"]
mod support;

mod bombs;
mod daemons;
mod disk;
mod floods;
mod frozen;
mod own_tree;
mod programs;
mod quotas;
mod state;
mod terminals;
