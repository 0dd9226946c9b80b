//! One declaration per operation: the function's name is the operation's id, its comment the description.

pub mod checkpoints;
pub mod execs;
pub mod files;
pub mod images;
pub mod runtimes;
pub mod service;
pub mod unsupported;
