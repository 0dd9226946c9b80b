//! The limits a profile sets: sizes and counts with a default and a maximum, and setrlimit(2)
//! values.

use super::ProfileError;
use super::error::InFile;
use nix::sys::resource::{RLIM_INFINITY, Resource};
use serde::{Deserialize, Deserializer, de};
use std::fmt;

/// What a runtime gets and may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory and swap together, in MiB.
    pub memory_mib: Limit,
    /// Processes and threads.
    pub pids: Limit,
    /// The writable layer, in MiB.
    pub disk_mib: Limit,
    /// Size of `/tmp` in MiB, where it is a tmpfs.
    pub tmp_mib: u64,
    /// Size of `/dev/shm` in MiB.
    pub shm_mib: u64,
}

/// A limit that a request may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The value where the request names none; at least 1.
    pub default: u64,
    /// The largest value that a request may name; none is no bound of the profile's.
    pub max: Option<u64>,
}

/// One setrlimit(2) call. The host may allow the server less than `hard`, and without
/// CAP_SYS_RESOURCE nobody raises a hard limit: set the smaller of both, and `soft` at most that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// Which resource.
    pub resource: Resource,
    /// Soft limit in the resource's own unit; [`u64::MAX`] is unlimited.
    pub soft: u64,
    /// Hard limit, at least `soft`.
    pub hard: u64,
}

/// The OCI names that this kernel interface has, as the TOML spells them.
const RESOURCES: [(&str, Resource); 15] = [
    ("RLIMIT_AS", Resource::RLIMIT_AS),
    ("RLIMIT_CORE", Resource::RLIMIT_CORE),
    ("RLIMIT_CPU", Resource::RLIMIT_CPU),
    ("RLIMIT_DATA", Resource::RLIMIT_DATA),
    ("RLIMIT_FSIZE", Resource::RLIMIT_FSIZE),
    ("RLIMIT_MEMLOCK", Resource::RLIMIT_MEMLOCK),
    ("RLIMIT_MSGQUEUE", Resource::RLIMIT_MSGQUEUE),
    ("RLIMIT_NICE", Resource::RLIMIT_NICE),
    ("RLIMIT_NOFILE", Resource::RLIMIT_NOFILE),
    ("RLIMIT_NPROC", Resource::RLIMIT_NPROC),
    ("RLIMIT_RSS", Resource::RLIMIT_RSS),
    ("RLIMIT_RTPRIO", Resource::RLIMIT_RTPRIO),
    ("RLIMIT_RTTIME", Resource::RLIMIT_RTTIME),
    ("RLIMIT_SIGPENDING", Resource::RLIMIT_SIGPENDING),
    ("RLIMIT_STACK", Resource::RLIMIT_STACK),
];

/// Largest size of a tmpfs in MiB: 1 EiB, which as bytes is far from the end of 64 bits.
const MAX_TMPFS_MIB: u64 = 1 << 40;

impl Limit {
    /// Whether a request may name this value.
    pub fn allows(&self, value: u64) -> bool {
        value >= 1 && self.max.is_none_or(|max| value <= max)
    }
}

impl Limits {
    pub(super) fn check(&self, file: InFile<'_>) -> Result<(), ProfileError> {
        for (name, limit) in [
            ("memory_mib", self.memory_mib),
            ("pids", self.pids),
            ("disk_mib", self.disk_mib),
        ] {
            if !limit.allows(limit.default) {
                return Err(file.field(
                    format!("limits.{name}.default"),
                    format!("{} is 0 or over max", limit.default),
                    "choose a value from 1 to max",
                ));
            }
        }
        for (name, size) in [("tmp_mib", self.tmp_mib), ("shm_mib", self.shm_mib)] {
            if size == 0 {
                return Err(file.field(
                    format!("limits.{name}"),
                    "0 would be a tmpfs without a limit",
                    "choose at least 1",
                ));
            }
            // Its bytes would be another number, and that may be 0.
            if size > MAX_TMPFS_MIB {
                return Err(file.field(
                    format!("limits.{name}"),
                    format!("{size} is more than any machine has"),
                    format!("choose at most {MAX_TMPFS_MIB}"),
                ));
            }
        }
        Ok(())
    }
}

/// An entry of `rlimits` as written, in OCI's words.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRlimit {
    #[serde(rename = "type")]
    kind: String,
    #[serde(deserialize_with = "rlimit_value")]
    soft: u64,
    #[serde(deserialize_with = "rlimit_value")]
    hard: u64,
}

/// Checks all entries together: known names, each once, soft under hard, no core dumps.
pub(super) fn check_rlimits(
    file: InFile<'_>,
    raw: Vec<RawRlimit>,
) -> Result<Vec<Rlimit>, ProfileError> {
    let mut rlimits: Vec<Rlimit> = Vec::with_capacity(raw.len());
    for (index, RawRlimit { kind, soft, hard }) in raw.into_iter().enumerate() {
        let field = |name: &str| format!("rlimits[{index}].{name}");
        let Some((_, resource)) = RESOURCES.iter().find(|(name, _)| *name == kind) else {
            let names = RESOURCES.map(|(name, _)| name).join(", ");
            return Err(file.field(
                field("type"),
                format!("{kind:?} is no resource"),
                format!("write one of {names}"),
            ));
        };
        if rlimits.iter().any(|earlier| earlier.resource == *resource) {
            return Err(file.field(
                field("type"),
                format!("{kind} is set twice"),
                "keep one of them",
            ));
        }
        if soft > hard {
            return Err(file.field(
                field("soft"),
                format!("{soft} is over hard"),
                "lower it or raise hard",
            ));
        }
        rlimits.push(Rlimit {
            resource: *resource,
            soft,
            hard,
        });
    }
    // A dump piped to a helper would run a root process of the host on bytes that a tenant chose;
    // the kernel starts the helper under a limit of 0, but not under 1 (fs/coredump.c).
    let no_dump = Rlimit {
        resource: Resource::RLIMIT_CORE,
        soft: 1,
        hard: 1,
    };
    if !rlimits.contains(&no_dump) {
        return Err(file.field(
            "rlimits",
            "core dumps could reach a helper of the host",
            "add type = \"RLIMIT_CORE\", soft = 1, hard = 1",
        ));
    }
    Ok(rlimits)
}

/// A number or the word "unlimited": TOML integers end below the kernel's RLIM_INFINITY.
fn rlimit_value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Value;
    impl de::Visitor<'_> for Value {
        type Value = u64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number from 0 or \"unlimited\"")
        }
        fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
            Ok(value)
        }
        fn visit_i64<E: de::Error>(self, value: i64) -> Result<u64, E> {
            u64::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
        }
        fn visit_str<E: de::Error>(self, value: &str) -> Result<u64, E> {
            match value {
                "unlimited" => Ok(RLIM_INFINITY),
                _ => Err(E::invalid_value(de::Unexpected::Str(value), &self)),
            }
        }
    }
    deserializer.deserialize_any(Value)
}
