//! The warden's start.

use crate::roles::{READY, fds, powers};
use crate::sys::{self, packet};
use crate::warden::server::{self, Settings};
use nix::sys::signal::Signal;
use std::os::fd::AsFd;

type Error = Box<dyn std::error::Error>;

/// Serves the api process until it or the supervisor is gone.
pub fn run() -> Result<(), Error> {
    let settings: Settings = super::settings()?;
    let supervisor = sys::inherited_fd(fds::CONTROL)?;
    let link = sys::inherited_fd(fds::LINK)?;
    // Only held: the data directory is free again when the last process of the service is gone.
    let _lock = sys::inherited_fd(fds::LOCK)?;
    // The starter's may be stricter (a unit's UMask=0077), and the root directory of a runtime is made with it.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    // Sent to a whole service or session; it is the supervisor that decides when the cells are to end.
    sys::ignore_signals(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])?;
    nix::sys::prctl::set_dumpable(false)?;
    nix::sys::prctl::set_name(c"cellblock-warden")?;
    crate::log::init(settings.log_format);
    powers::keep_wardens()?;
    server::run(settings, link, supervisor, |supervisor| {
        let _ = packet::send(supervisor.as_fd(), READY, &[]);
    })
}
