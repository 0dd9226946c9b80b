//! Cellblock runs untrusted commands in locked-down Linux cells, behind an HTTP API.
//!
//! Calls go one way: `cli` and `api` call `exec`, `files` and `runtime`; those call `tenant`, `store` and the warden's client;
//! the warden calls `cell`, `cgroup`, `image` and `profile`. Below `warden` there is no tokio, no HTTP and no tenant.
//! ARCHITECTURE.md tells the whole story.

// They panic when nobody reads; see `log`.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

// build.rs refuses it as well; this is for flags that were set by hand.
#[cfg(all(
    not(debug_assertions),
    any(
        cellblock_without = "capabilities",
        cellblock_without = "cgroup-namespace",
        cellblock_without = "landlock",
        cellblock_without = "masked-paths",
        cellblock_without = "network-namespace",
        cellblock_without = "rlimits",
        cellblock_without = "role-filters",
        cellblock_without = "seccomp",
    )
))]
compile_error!("a build that leaves a defence out is for tests alone");

pub mod api;
pub mod cell;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod exec;
pub mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod image;
pub mod landlock;
pub mod log;
pub mod metrics;
pub mod profile;
pub mod resources;
pub mod roles;
pub mod runtime;
pub mod store;
pub mod supervisor;
pub mod sys;
pub mod tenant;
pub mod warden;

#[global_allocator]
static ALLOCATOR: sys::memory::Allocator = sys::memory::Allocator;

// The tests' own files use the library by its name, also where they are part of it.
#[cfg(any(test, fuzzing))]
extern crate self as cellblock;
