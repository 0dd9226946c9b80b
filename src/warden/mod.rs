//! The warden: the privileged process that opens and closes cells, and the api process's handle to it.
//!
//! `protocol` is the closed set of messages, `client` the api side (tokio), `server` the privileged side (one thread,
//! no tokio). Nothing in the protocol assumes that there is only one warden.

pub mod client;
pub mod images;
mod link;
pub mod memfd;
pub mod protocol;
pub mod server;
pub mod streams;
pub mod terminal;
