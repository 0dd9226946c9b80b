//! The HTTP contract, checked from outside against the real program. Needs root: the server makes cgroups and namespaces.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses a part of it"
)]
#[path = "../support/mod.rs"]
mod support;

mod admission;
mod auth;
mod checkpoints;
mod connections;
mod detach;
mod errors;
mod exec_fields;
mod exec_output;
mod exec_records;
mod exec_refusals;
mod exec_resolution;
mod exec_results;
mod files;
mod files_ends;
mod files_limits;
mod files_refusals;
mod files_transfers;
mod idempotency;
mod images;
mod lifecycle;
mod metrics;
mod patch;
mod runtime_fields;
mod runtimes;
mod slow;
mod stream_clients;
mod stream_events;
mod stream_frames;
mod stream_misuse;
mod stream_records;
mod stream_refusals;
mod unsupported;
mod waiting;
