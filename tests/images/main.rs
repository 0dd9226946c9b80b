//! Imported images: what strangers packed, from the archive to a command that runs in it. Needs root: unpacking makes
//! namespaces and mounts, the server cgroups.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses a part of it"
)]
#[path = "../support/mod.rs"]
mod support;

mod archives;
mod defaults;
mod fixtures;
mod image;
mod import;
mod import_refusals;
mod layers;
mod parents;
mod pull_access;
mod pull_bad_registries;
mod pull_choices;
mod pull_real;
mod pull_redirects;
mod recipes;
mod registry;
mod runtimes;
mod store;
mod unpack;
mod unpack_bounds;
mod unpack_confined;
mod unpack_contents;
mod unpack_users;
