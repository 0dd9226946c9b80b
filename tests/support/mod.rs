//! What every test binary shares: it starts the real program, talks HTTP to it and looks at the host from outside.
//!
//! `server()` is one server for all tests of a binary, ended when the process exits; tests that need their own (restarts,
//! kills, odd environments) start one with [`server::Server::start`]. A test that measures time or counts things on the
//! host takes [`alone`], everything else takes [`together`]: the two never overlap within a binary.
//!
//! Whatever a test checks, a server that logged a panic fails the run.

pub mod client;
pub mod files;
pub mod held;
pub mod host;
pub mod image;
pub mod launch;
pub mod leaks;
pub mod mounts;
pub mod probe;
pub mod procs;
pub mod runtime;
pub mod server;
pub mod store;
pub mod tight;
pub mod timing;
pub mod websocket;

pub use client::{Api, Reply, assert_error, assert_invalid, assert_invalid_any};
pub use host::Need;
pub use runtime::Runtime;
pub use server::Server;
pub use timing::{bound, eventually, times};
pub use websocket::{Said, Ws};

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Skips the calling test, said aloud and counted, where the host lacks what is named.
#[macro_export]
macro_rules! needs {
    ($($need:ident $(($of:literal))?),+ $(,)?) => {
        if !$crate::support::host::all_met(&[$($crate::support::Need::$need $(($of))?),+]) {
            return;
        }
    };
}

static TURN: RwLock<()> = RwLock::new(());

/// The right to run beside other tests of this binary. A panic in another test spoils nothing here.
pub fn together() -> RwLockReadGuard<'static, ()> {
    TURN.read().unwrap_or_else(PoisonError::into_inner)
}

/// The right to run with no other test of this binary: for what is timed or counted.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    TURN.write().unwrap_or_else(PoisonError::into_inner)
}

/// The server shared by the tests of this binary.
pub fn server() -> &'static Server {
    server::shared()
}

/// The client of the shared server, with its admin token.
pub fn api() -> &'static Api {
    &server().api
}

/// A new runtime on the shared server, deleted at the end of the test.
pub fn runtime() -> Runtime {
    Runtime::create(api(), &serde_json::json!({}))
}

/// A new runtime on the shared server from a create body, deleted at the end of the test.
pub fn runtime_with(body: serde_json::Value) -> Runtime {
    Runtime::create(api(), &body)
}

/// Processes (zombies too) whose uid is in a range of the shared server's, but for those of cells that wait for a command.
pub fn in_uids(range: &std::ops::Range<u32>) -> Vec<u32> {
    let mut pids = procs::in_uids(range);
    pids.retain(|pid| !leaks::is_foreign(server(), *pid) && !procs::is_parked(*pid));
    pids
}
