//! Attempts to get out of a cell, or to look out of one: the kernel's surface and the set-up. Needs root: the server makes
//! cgroups and namespaces.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses a part of it"
)]
#[path = "../support/mod.rs"]
mod support;

mod bare;
mod descriptors;
mod devices;
mod enumeration;
mod exhaustion;
mod file_operations;
mod files;
mod identity;
mod images;
mod landlock;
mod mounts;
mod namespaces;
mod network;
mod powers;
mod proc;
mod races;
mod seccomp;
