//! Imported images: what strangers packed, from the archive to a runtime. Needs root: unpacking makes namespaces and mounts.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses a part of it"
)]
#[path = "../support/mod.rs"]
mod support;

mod archives;
mod unpack;
mod unpack_bounds;
mod unpack_confined;
mod unpack_contents;
mod unpack_users;
