//! The service itself: first start, stop, crash, restart, what it leaves behind and what it refuses. Every test has its own
//! server and runs alone, since it counts things on the host. Needs root.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses a part of it"
)]
#[path = "../support/mod.rs"]
mod support;

mod broken_cells;
mod checkpoints;
mod crashes;
mod descriptors;
mod disk_full;
mod first_start;
mod leftovers;
mod missing_limits;
mod mounting;
mod overlaps;
mod parked;
mod paused;
mod processes;
mod records;
mod restarts;
mod secrets;
mod supervision;
mod transitions;
