//! The hidden roles of the binary: `main` looks for them before any thread exists. The service's two find the same
//! descriptors open, see [`crate::roles::fds`]; the third unpacks images.

pub mod api;
pub mod filters;
pub mod jail;
pub mod powers;
mod unpack;
mod warden;

use crate::config::Config;
use serde::{Deserialize, Serialize};
use std::ffi::CStr;
use std::process::ExitCode;

/// The api process's role argument.
pub const API: &str = "role:api";
/// The warden's role argument.
pub const WARDEN: &str = "role:warden";
/// [`WARDEN`] for system calls.
pub const WARDEN_C: &CStr = c"role:warden";
/// What a role tells the supervisor once it can serve.
pub const READY: &[u8] = b"ready";
/// What the supervisor asks a role over its control socket, to see whether it still works.
pub const PING: &[u8] = b"ping";
/// What the role answers, from the loop that does its work.
pub const PONG: &[u8] = b"pong";
/// The api's database in its state directory.
pub const DATABASE: &str = "cellblock.db";

/// Descriptor numbers that a role finds open, beside the standard streams.
pub mod fds {
    /// Control socket to the supervisor.
    pub const CONTROL: i32 = 3;
    /// Socket between the api process and the warden.
    pub const LINK: i32 = 4;
    /// memfd with the role's settings as JSON.
    pub const SETTINGS: i32 = 5;
    /// The lock on the data directory, held by whoever still runs.
    pub const LOCK: i32 = 6;
}

/// What the api process is started with.
#[derive(Debug, Serialize, Deserialize)]
pub struct ApiSettings {
    /// The whole configuration.
    pub config: Config,
    /// The token to accept, where it is known.
    pub admin_token: Option<String>,
    /// A shell word that reads the token, for the operator's first request.
    pub token_source: String,
}

/// Runs the role that this process was started in; none when it was started by a person.
pub fn run() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let role = args.next()?;
    let result = match role.to_str() {
        Some(API) => api::run(),
        Some(WARDEN) => warden::run(),
        Some(crate::image::unpack::ROLE) => unpack::run(),
        _ => return None,
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::log::tell(crate::log::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    })
}

/// Reads the role's settings.
fn settings<T: serde::de::DeserializeOwned>() -> Result<T, Box<dyn std::error::Error>> {
    let file = std::fs::File::from(crate::sys::inherited_fd(crate::roles::fds::SETTINGS)?);
    Ok(serde_json::from_reader(std::io::BufReader::new(file))?)
}
