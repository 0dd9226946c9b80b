//! What the api process has to know of a sandbox profile: who a command is, and the limits where a request names none.

use std::collections::BTreeMap;

/// One profile's facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// USER inside.
    pub user: String,
    /// HOME inside, and the working directory where a request names none.
    pub home: String,
    /// Processes and threads of a runtime.
    pub pids: u64,
    /// Size of a runtime's writable layer in MiB.
    pub disk_mib: u64,
}

/// Every profile, by name.
#[derive(Debug, Clone, Default)]
pub struct Profiles(BTreeMap<String, Profile>);

impl Profiles {
    /// The profile of that name.
    pub fn get(&self, name: &str) -> Option<&Profile> {
        self.0.get(name)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl FromIterator<(String, Profile)> for Profiles {
    fn from_iter<T: IntoIterator<Item = (String, Profile)>>(profiles: T) -> Self {
        Self(profiles.into_iter().collect())
    }
}

impl From<&crate::profile::ProfileSet> for Profiles {
    fn from(set: &crate::profile::ProfileSet) -> Self {
        set.iter()
            .map(|profile| {
                let facts = Profile {
                    user: profile.identity.user.clone(),
                    home: profile.identity.home.clone(),
                    pids: profile.limits.pids.default,
                    disk_mib: profile.limits.disk_mib.default,
                };
                (profile.name.clone(), facts)
            })
            .collect()
    }
}
