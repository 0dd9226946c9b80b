//! The privileged half, spoken to as a taken-over api process would: in the raw protocol, over the real link, against the
//! real program. Whatever it is asked for, it goes on, holds what it held before, and gives cells and nothing else. And what
//! is left to such an api process beside the link. Needs root.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses a part of it"
)]
#[path = "../support/mod.rs"]
mod support;

mod cells;
mod commands;
mod descriptors;
mod floods;
mod holdings;
mod host_paths;
mod inside;
mod malformed;
mod raw;
mod refused;
mod requests;
mod state;
mod supervisor;
