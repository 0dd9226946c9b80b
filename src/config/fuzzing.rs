//! See [`crate::fuzzing`].

use super::{Config, Host, RawConfig};
use crate::resources::{MIB, RANGE};
use std::path::Path;

/// A configuration file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(raw) = RawConfig::parse(text, Path::new("c.toml")) else {
        return;
    };
    let host = Host {
        memory_bytes: 1024 * MIB,
        cpus: 2,
        service_user: None,
    };
    let config = match Config::resolve_on(raw, &host) {
        Ok(config) => config,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(config.data_dir.is_absolute());
    let last = u64::from(config.uid_base) + u64::from(config.uid_ranges) * u64::from(RANGE);
    assert!(config.uid_base.is_multiple_of(RANGE) && last < u64::from(u32::MAX) - u64::from(RANGE));
    assert_ne!((config.api_uid, config.api_gid), (0, 0));
    let exec = &config.exec;
    assert!(exec.default_timeout_secs <= exec.max_timeout_secs);
    assert!(exec.default_output_bytes <= exec.max_output_bytes);
    // As the other processes get it.
    let sent = serde_json::to_string(&config).expect("plain data");
    let got: Config = serde_json::from_str(&sent).expect("our own writing");
    assert_eq!(got, config);
}
