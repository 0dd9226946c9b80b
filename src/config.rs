//! Configuration: what was written in the file, the environment and the flags ([`RawConfig`]) becomes one validated
//! [`Config`], made once by `cli` and handed to the other processes as JSON. Secrets are not part of it.

mod bounds;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod nearest;
mod raw;
mod records;

pub use bounds::ExecBounds;
pub use files::FileBounds;
pub use raw::RawConfig;
pub use records::RecordBounds;

use crate::resources::{MIB, RANGE};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The first uid of the block when the configuration names none. Far above what adduser, systemd's dynamic users and the
/// usual `/etc/subuid` entries hand out, and below 2^31, where some file systems and tools stop.
pub const DEFAULT_UID_BASE: u32 = 0x7000_0000;

/// The system user whose uid the api process takes where it is installed.
pub const SERVICE_USER: &str = "cellblock";

/// Why there is no valid configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("reading the configuration {path}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not valid TOML, or a value has the wrong type.
    #[error("parsing the configuration {path}", path = path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// The file names something that does not exist.
    #[error("{path}: unknown key `{key}`; {hint}", path = path.display())]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// The key as written.
        key: String,
        /// What is valid.
        hint: String,
    },
    /// A value is out of its range.
    #[error("`{key}` {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// A path or the machine's size can't be determined.
    #[error("{what}")]
    Host {
        /// What was being determined.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The validated configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Address and port of the HTTP listener.
    pub listen: SocketAddr,
    /// Where everything lives; absolute.
    pub data_dir: PathBuf,
    /// Directory of further sandbox profiles; absolute.
    pub profiles_dir: Option<PathBuf>,
    /// Limits that the operator allows to be missing.
    pub allow_missing_limits: Vec<String>,
    /// The uid that the api process runs as.
    pub api_uid: u32,
    /// The gid that the api process runs as.
    pub api_gid: u32,
    /// First uid of the block. Its first [`RANGE`] uids are the service's own; runtimes' ranges follow.
    pub uid_base: u32,
    /// How many ranges of [`RANGE`] uids runtimes may take.
    pub uid_ranges: u32,
    /// Seconds that running commands get after SIGTERM.
    pub drain_secs: u64,
    /// Bounds of the buffered exec.
    pub exec: ExecBounds,
    /// Bounds of what is remembered.
    pub records: RecordBounds,
    /// Bounds of the file operations.
    pub files: FileBounds,
    /// Most bytes of a JSON request body.
    pub max_body_bytes: u64,
    /// Open connections.
    pub max_connections: u32,
    /// CPUs that one runtime may ask for.
    pub max_vcpus: u32,
    /// Cells that may wait for commands of recently used runtimes.
    pub max_parked_cells: u32,
    /// How log lines look.
    pub log_format: LogFormat,
}

impl Config {
    /// Makes sense of what was written. Looks up the machine's memory and CPUs and the system user [`SERVICE_USER`].
    pub fn resolve(raw: RawConfig) -> Result<Self, ConfigError> {
        let host = Host::look()?;
        Self::resolve_on(raw, &host)
    }

    fn resolve_on(raw: RawConfig, host: &Host) -> Result<Self, ConfigError> {
        let uid_base = raw.uid_base.unwrap_or(DEFAULT_UID_BASE);
        let uid_ranges = within("uid_ranges", raw.uid_ranges.unwrap_or(4094), 1, 32_000)?;
        if !uid_base.is_multiple_of(RANGE) || uid_base == 0 {
            return Err(bad(
                "uid_base",
                format!("must be a positive multiple of {RANGE}"),
            ));
        }
        // (uid_t)-1 means "unchanged" to the kernel and -2 is often nobody: the last block is not to be used.
        if u64::from(uid_base) + (u64::from(uid_ranges) + 1) * u64::from(RANGE) >= 0xffff_0000 {
            return Err(bad(
                "uid_ranges",
                "reaches beyond the last usable uid".into(),
            ));
        }
        let (api_uid, api_gid) = host.service_user.unwrap_or((uid_base, uid_base));

        let exec = ExecBounds::resolve(&raw, host)?;
        let records = RecordBounds::resolve(&raw)?;
        let files = FileBounds::resolve(&raw)?;
        Ok(Self {
            listen: raw
                .listen
                .unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))),
            data_dir: absolute(
                raw.data_dir
                    .as_deref()
                    .unwrap_or(Path::new("/var/lib/cellblock")),
            )?,
            profiles_dir: raw.profiles_dir.as_deref().map(absolute).transpose()?,
            allow_missing_limits: raw.allow_missing_limits.unwrap_or_default(),
            api_uid,
            api_gid,
            uid_base,
            uid_ranges,
            drain_secs: within("drain_secs", raw.drain_secs.unwrap_or(10), 0, 3600)?,
            max_body_bytes: within(
                "max_body_bytes",
                raw.max_body_bytes.unwrap_or(64 * MIB),
                1024,
                1024 * MIB,
            )?,
            max_connections: within(
                "max_connections",
                raw.max_connections.unwrap_or(4096),
                1,
                1_000_000,
            )?,
            max_vcpus: within(
                "max_vcpus",
                raw.max_vcpus.unwrap_or(host.cpus.max(64)),
                1,
                8192,
            )?,
            max_parked_cells: within(
                "max_parked_cells",
                raw.max_parked_cells.unwrap_or(64),
                0,
                1024,
            )?,
            log_format: match raw.log_format.as_deref() {
                None | Some("text") => LogFormat::Text,
                Some("json") => LogFormat::Json,
                Some(_) => return Err(bad("log_format", "must be `text` or `json`".into())),
            },
            exec,
            records,
            files,
        })
    }
}

/// What the defaults depend on.
struct Host {
    memory_bytes: u64,
    cpus: u32,
    /// uid and gid of [`SERVICE_USER`].
    service_user: Option<(u32, u32)>,
}

impl Host {
    fn look() -> Result<Self, ConfigError> {
        let user = nix::unistd::User::from_name(SERVICE_USER).map_err(|e| ConfigError::Host {
            what: "looking up the system user",
            source: e.into(),
        })?;
        Ok(Self {
            memory_bytes: memory_bytes()?,
            cpus: std::thread::available_parallelism()
                .map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
            // A `cellblock` user that is root would defeat what the user is for.
            service_user: user
                .filter(|user| !user.uid.is_root() && user.gid.as_raw() != 0)
                .map(|user| (user.uid.as_raw(), user.gid.as_raw())),
        })
    }
}

/// The machine's physical memory in bytes: sysinfo(2), which unlike /proc/meminfo needs no file system.
pub fn memory_bytes() -> Result<u64, ConfigError> {
    let facts = nix::sys::sysinfo::sysinfo().map_err(|errno| ConfigError::Host {
        what: "reading the machine's memory",
        source: errno.into(),
    })?;
    Ok(facts.ram_total())
}

fn absolute(path: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path).map_err(|source| ConfigError::Host {
        what: "making a path absolute",
        source,
    })
}

fn bad(key: &'static str, problem: String) -> ConfigError {
    ConfigError::Value { key, problem }
}

fn within<T: PartialOrd + std::fmt::Display>(
    key: &'static str,
    value: T,
    least: T,
    most: T,
) -> Result<T, ConfigError> {
    if value < least || value > most {
        return Err(bad(
            key,
            format!("is {value}, but must be from {least} to {most}"),
        ));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(raw: RawConfig) -> Result<Config, ConfigError> {
        let host = Host {
            memory_bytes: 1024 * MIB,
            cpus: 2,
            service_user: None,
        };
        Config::resolve_on(raw, &host)
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let config = resolve(RawConfig::default()).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.data_dir, Path::new("/var/lib/cellblock"));
        assert_eq!(
            (config.api_uid, config.uid_base),
            (0x7000_0000, 0x7000_0000)
        );
        assert_eq!(
            (
                config.exec.default_timeout_secs,
                config.exec.max_timeout_secs
            ),
            (60, 3600)
        );
        assert_eq!(config.exec.max_buffered_bytes, 512 * MIB);
        assert_eq!(config.exec.max_buffered_bytes_per_runtime, 256 * MIB);
        assert_eq!(config.max_vcpus, 64);
    }

    #[test]
    fn survives_the_way_to_the_other_processes() {
        let config = resolve(RawConfig::default()).unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
    }

    #[test]
    fn a_value_out_of_range_names_its_key() {
        let key = |raw| resolve(raw).unwrap_err().to_string();
        let d = RawConfig::default;
        assert!(
            key(RawConfig {
                max_execs: Some(0),
                ..d()
            })
            .contains("`max_execs`")
        );
        assert!(
            key(RawConfig {
                uid_base: Some(1000),
                ..d()
            })
            .contains("`uid_base`")
        );
        assert!(
            key(RawConfig {
                uid_base: Some(0xfff0_0000),
                ..d()
            })
            .contains("`uid_ranges`")
        );
        assert!(
            key(RawConfig {
                log_format: Some("xml".into()),
                ..d()
            })
            .contains("`log_format`")
        );
        let raw = RawConfig {
            max_timeout_secs: Some(5),
            default_timeout_secs: Some(6),
            ..d()
        };
        assert!(key(raw).contains("`default_timeout_secs`"));
    }

    #[test]
    fn a_lowered_maximum_lowers_the_default() {
        let raw = RawConfig {
            max_timeout_secs: Some(5),
            ..RawConfig::default()
        };
        assert_eq!(resolve(raw).unwrap().exec.default_timeout_secs, 5);
    }

    #[test]
    fn relative_paths_become_absolute() {
        let raw = RawConfig {
            data_dir: Some("x/y".into()),
            ..RawConfig::default()
        };
        assert!(resolve(raw).unwrap().data_dir.is_absolute());
    }
}
