//! Why the confined process stops, before it is put into a report.

use nix::errno::Errno;

/// The archive's fault, or another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// What was read is not taken, and why.
    Refused(String),
    /// This machine's failure.
    Failed(String),
}

/// Shorthand of the confined process.
pub type Result<T> = std::result::Result<T, Trouble>;

impl Trouble {
    /// A refusal with this reason.
    pub fn refused(reason: impl Into<String>) -> Trouble {
        Trouble::Refused(reason.into())
    }

    /// What an errno means when an entry is put in its place: some are the archive's doing.
    pub fn placing(step: &str, errno: Errno) -> Trouble {
        match errno {
            Errno::ELOOP => Trouble::refused("goes through a symbolic link"),
            Errno::ENOTDIR => Trouble::refused("goes through what is no directory"),
            Errno::EXDEV => Trouble::refused("leads out of the layer"),
            Errno::ENAMETOOLONG => Trouble::refused("has a name longer than the disk takes"),
            Errno::EMLINK => Trouble::refused("has more hard links than the disk takes"),
            _ => Trouble::Failed(format!("{step}: {}", errno.desc())),
        }
    }
}

/// A stream that can't be read on is the archive's fault: what else can fail there is named in the text.
impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Trouble {
        Trouble::Refused(error.to_string())
    }
}
