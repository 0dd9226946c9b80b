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
mod image;
mod import;
mod import_refusals;
mod layers;
mod pull_access;
mod pull_bad_registries;
mod pull_choices;
mod pull_real;
mod pull_redirects;
mod registry;
mod runtimes;
mod store;
