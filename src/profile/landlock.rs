//! What of Landlock a profile decides.

use serde::Deserialize;

/// The table `[landlock]`. The rest of what Landlock denies a cell is the same for all profiles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LandlockOptions {
    /// TCP over the cell's own loopback device.
    pub tcp: Tcp,
}

/// The option `tcp`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tcp {
    /// Programs may bind and connect sockets.
    #[default]
    Allow,
    /// bind(2) and connect(2) are EACCES, from Landlock ABI 4 (Linux 6.7) on.
    Deny,
}
