//! What goes wrong around the service: its processes are killed at random under load, the disk is full or can't be written,
//! descriptors, memory and processes run out, the clock jumps, nobody reads the log. Every test has its own server and
//! runs alone. Needs root.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses a part of it"
)]
#[path = "../support/mod.rs"]
mod support;

mod campaign;
mod clock;
mod database;
mod full;
mod jobs;
mod overcommitted;
mod read_only;
mod scarce;
mod unread_log;
