//! The configuration as people write it: a TOML file whose every key is optional. [`super::Config`] is what it means.

use super::{ConfigError, nearest::nearest};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

macro_rules! raw_config {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        /// One configuration file, or what the command line and the environment said in the same words.
        #[derive(Debug, Default, Clone, Deserialize)]
        pub struct RawConfig {
            $($(#[$doc])* pub $name: Option<$type>,)*
        }

        /// Every key that a file may hold.
        pub const KEYS: &[&str] = &[$(stringify!($name)),*];

        impl RawConfig {
            /// What `self` says, and what `other` says where `self` is silent.
            pub fn or(self, other: Self) -> Self {
                Self { $($name: self.$name.or(other.$name),)* }
            }
        }
    };
}

raw_config! {
    /// Address and port of the HTTP listener.
    listen: SocketAddr,
    /// Where state, runtimes and images live.
    data_dir: PathBuf,
    /// Directory of further sandbox profiles.
    profiles_dir: PathBuf,
    /// Names of limits that may be missing on this host.
    allow_missing_limits: Vec<String>,
    /// First uid of the block that the service and its runtimes use.
    uid_base: u32,
    /// How many ranges of 65,536 uids runtimes may take.
    uid_ranges: u32,
    /// Seconds that running commands get after SIGTERM.
    drain_secs: u64,
    /// Commands at the same time, in all.
    max_execs: u32,
    /// Commands at the same time, in one runtime.
    max_execs_per_runtime: u32,
    /// Requests that may wait for one of `max_execs`.
    max_queue: u32,
    /// Requests that may wait for one of `max_execs_per_runtime`.
    max_queue_per_runtime: u32,
    /// Seconds that a request may wait.
    queue_secs: u64,
    /// Wall clock seconds of a command whose request names none.
    default_timeout_secs: u64,
    /// Most wall clock seconds that a request may ask for.
    max_timeout_secs: u64,
    /// Bytes kept of each output stream when the request names no number.
    default_output_bytes: u64,
    /// Most bytes per output stream that a request may ask for.
    max_output_bytes: u64,
    /// MiB kept of each output stream of a detached command, unless its request names less.
    max_detached_output_mib: u64,
    /// Seconds that the record of a command is kept after its end.
    record_retention_secs: u64,
    /// Records kept at most; the oldest go first.
    max_records: u64,
    /// MiB of output kept at most; the oldest goes first.
    max_kept_output_mib: u64,
    /// Most bytes of a JSON request body.
    max_body_bytes: u64,
    /// Most bytes of a file that is written.
    max_file_bytes: u64,
    /// Most bytes of a file that is read.
    max_file_read_bytes: u64,
    /// Files on their way at the same time, in all.
    max_file_transfers: u32,
    /// Files on their way at the same time, to and from one runtime.
    max_file_transfers_per_runtime: u32,
    /// Seconds that either side of a transfer may let the other wait.
    file_idle_secs: u64,
    /// MiB of input and output held in memory, in all.
    max_buffered_mib: u64,
    /// MiB of input and output held in memory for one runtime.
    max_buffered_mib_per_runtime: u64,
    /// Open connections.
    max_connections: u32,
    /// CPUs that one runtime may ask for.
    max_vcpus: u32,
    /// Cells that may wait for commands of recently used runtimes.
    max_parked_cells: u32,
    /// `text` or `json`.
    log_format: String,
}

impl RawConfig {
    /// Reads a file. An unknown key is an error that names the nearest valid one.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let syntax = |source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        };
        let table: toml::Table = toml::from_str(text).map_err(syntax)?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(ConfigError::UnknownKey {
                path: path.to_owned(),
                key: key.clone(),
                hint: match nearest(key, KEYS) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("valid keys are {}", KEYS.join(", ")),
                },
            });
        }
        // A second pass over the text, since only that one knows line numbers.
        toml::from_str(text).map_err(syntax)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RawConfig, String> {
        RawConfig::parse(text, Path::new("c.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn a_file_may_say_as_little_as_it_likes() {
        let raw = parse("max_execs = 7\nlisten = '127.0.0.1:1'").unwrap();
        assert_eq!(raw.max_execs, Some(7));
        assert_eq!(raw.queue_secs, None);
        assert_eq!(parse("").unwrap().listen, None);
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest() {
        let message = parse("max_exec = 7").unwrap_err();
        assert!(
            message.contains("`max_exec`") && message.contains("`max_execs`"),
            "{message}"
        );
        assert!(
            parse("zzz = 1")
                .unwrap_err()
                .contains("valid keys are listen")
        );
    }

    #[test]
    fn a_wrong_type_is_an_error() {
        assert!(parse("max_execs = 'many'").is_err());
        assert!(parse("max_execs = -1").is_err());
    }

    #[test]
    fn the_first_that_speaks_wins() {
        let merged = parse("max_execs = 1")
            .unwrap()
            .or(parse("max_execs = 2\ndrain_secs = 3").unwrap());
        assert_eq!((merged.max_execs, merged.drain_secs), (Some(1), Some(3)));
    }
}
