//! Imported images, from the archive to the command that runs in one. Needs root: the server makes cgroups and namespaces.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses a part of it"
)]
#[path = "../support/mod.rs"]
mod support;

mod defaults;
mod fixtures;
mod import;
mod import_refusals;
mod layers;
mod runtimes;
mod store;
