//! The words for what a runtime is doing.

/// The API's words for what a runtime is doing; there are no others.
/// Nothing sets `suspended` and `crashed` so far: they are the contract's, and the table of operations knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each word is documented by the API
pub enum Status {
    Creating,
    Running,
    Paused,
    Suspended,
    Shutdown,
    Deleting,
    Error,
    Crashed,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Creating,
        Self::Running,
        Self::Paused,
        Self::Suspended,
        Self::Shutdown,
        Self::Deleting,
        Self::Error,
        Self::Crashed,
    ];

    /// Commands may be started in it.
    pub const COMMANDS: &[Self] = &[Self::Running];

    /// Its files may be read and written: they are on its disk while it is shut down, too.
    pub const FILES: &[Self] = &[Self::Running, Self::Shutdown];

    /// The word on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Suspended => "suspended",
            Self::Shutdown => "shutdown",
            Self::Deleting => "deleting",
            Self::Error => "error",
            Self::Crashed => "crashed",
        }
    }

    /// The status of that word; `active` and `stopped` are other words for running and shutdown.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "active" => Some(Self::Running),
            "stopped" => Some(Self::Shutdown),
            _ => Self::ALL.into_iter().find(|status| status.as_str() == word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_survives_its_word() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("active"), Some(Status::Running));
        assert_eq!(Status::parse("stopped"), Some(Status::Shutdown));
        assert_eq!(Status::parse("Running"), None);
    }
}
