//! What the api process has to know of a sandbox profile: who a command is, and the limits where a request names none.

use crate::profile::{Limit, ProfileSet};
use std::collections::BTreeMap;

/// One profile's facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// USER inside.
    pub user: String,
    /// HOME inside, and the working directory where a request names none.
    pub home: String,
    /// Memory of a runtime in MiB.
    pub memory_mib: Limit,
    /// Processes and threads of a runtime.
    pub pids: Limit,
    /// Size of a runtime's writable layer in MiB.
    pub disk_mib: Limit,
}

/// Who a command is inside.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// USER.
    pub user: &'a str,
    /// HOME, where relative paths begin.
    pub home: &'a str,
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

impl From<&ProfileSet> for Profiles {
    fn from(set: &ProfileSet) -> Self {
        let facts = |profile: &crate::profile::Profile| Profile {
            user: profile.identity.user.clone(),
            home: profile.identity.home.clone(),
            memory_mib: profile.limits.memory_mib,
            pids: profile.limits.pids,
            disk_mib: profile.limits.disk_mib,
        };
        set.iter()
            .map(|profile| (profile.name.clone(), facts(profile)))
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two profiles that differ in everything.
    pub(crate) fn profiles() -> Profiles {
        let limit = |default, max| Limit { default, max };
        let default = Profile {
            user: "root".into(),
            home: "/root".into(),
            memory_mib: limit(1024, None),
            pids: limit(100, Some(4096)),
            disk_mib: limit(64, Some(65_536)),
        };
        let strict = Profile {
            user: "user".into(),
            home: "/home/user".into(),
            memory_mib: limit(512, Some(2048)),
            pids: limit(50, Some(200)),
            disk_mib: limit(32, Some(128)),
        };
        [
            ("default".to_owned(), default),
            ("strict".to_owned(), strict),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn the_embedded_profiles_are_known() {
        let profiles = Profiles::from(&ProfileSet::load(None).unwrap());
        assert_eq!(profiles.names().collect::<Vec<_>>(), ["default", "strict"]);
        let home = |name| profiles.get(name).map(|profile| profile.home.as_str());
        assert_eq!(home("default"), Some("/root"));
        assert_eq!(home("strict"), Some("/home/user"));
    }
}
