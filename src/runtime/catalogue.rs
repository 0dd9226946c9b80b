//! Every runtime in memory, found by tenant and id or name: what an exec needs takes no SQL. This is the one place that
//! resolves what a client calls a runtime.

use super::error::RuntimeError;
use super::model::Runtime;
use super::status::Status;
use crate::tenant::TenantId;
use crate::warden::protocol::Filesystem;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use uuid::Uuid;

#[derive(Debug, Default)]
struct Maps {
    // In the order of (tenant, id), so that a tenant's runtimes are a range.
    by_id: BTreeMap<(TenantId, Uuid), Arc<Runtime>>,
    by_name: HashMap<(TenantId, String), Uuid>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Catalogue(RwLock<Maps>);

impl Catalogue {
    /// Adds a runtime whose name is free in its tenant.
    pub(super) fn insert(&self, runtime: Arc<Runtime>) -> Result<(), RuntimeError> {
        let mut maps = self.write();
        let name = (runtime.tenant, runtime.name.clone());
        if maps.by_name.contains_key(&name) {
            return Err(RuntimeError::Exists(name.1));
        }
        maps.by_name.insert(name, runtime.id);
        maps.by_id.insert((runtime.tenant, runtime.id), runtime);
        Ok(())
    }

    pub(super) fn remove(&self, runtime: &Runtime) {
        let mut maps = self.write();
        maps.by_id.remove(&(runtime.tenant, runtime.id));
        maps.by_name.remove(&(runtime.tenant, runtime.name.clone()));
    }

    /// Keeps a name for a runtime that is about to take it.
    pub(super) fn reserve(&self, runtime: &Runtime, name: &str) -> Result<(), RuntimeError> {
        let mut maps = self.write();
        let key = (runtime.tenant, name.to_owned());
        if maps.by_name.contains_key(&key) {
            return Err(RuntimeError::Exists(key.1));
        }
        maps.by_name.insert(key, runtime.id);
        Ok(())
    }

    /// Gives a reserved name back.
    pub(super) fn release(&self, runtime: &Runtime, name: &str) {
        self.write()
            .by_name
            .remove(&(runtime.tenant, name.to_owned()));
    }

    /// Puts a changed runtime in the place of what it was before. Its name must be its own, or reserved for it.
    pub(super) fn replace(&self, before: &Runtime, after: Arc<Runtime>) {
        let mut maps = self.write();
        if before.name != after.name {
            maps.by_name.remove(&(before.tenant, before.name.clone()));
        }
        maps.by_id.insert((after.tenant, after.id), after);
    }

    /// The runtime of that id as it is now.
    pub(super) fn current(&self, runtime: &Runtime) -> Option<Arc<Runtime>> {
        let key = (runtime.tenant, runtime.id);
        self.read().by_id.get(&key).cloned()
    }

    /// The tenant's runtime of that id or name.
    pub(super) fn find(&self, tenant: TenantId, key: &str) -> Option<Arc<Runtime>> {
        let maps = self.read();
        let id = match Uuid::parse_str(key) {
            Ok(id) => id,
            Err(_) => *maps.by_name.get(&(tenant, key.to_owned()))?,
        };
        maps.by_id.get(&(tenant, id)).cloned()
    }

    /// All of the tenant's runtimes, oldest first.
    pub(super) fn of(&self, tenant: TenantId) -> Vec<Arc<Runtime>> {
        let all = (tenant, Uuid::nil())..=(tenant, Uuid::max());
        self.read()
            .by_id
            .range(all)
            .map(|(_, runtime)| runtime.clone())
            .collect()
    }

    /// The status of each runtime of all tenants.
    pub(super) fn statuses(&self) -> Vec<Status> {
        let maps = self.read();
        let all = maps.by_id.values();
        all.map(|runtime| runtime.status()).collect()
    }

    /// What the disks of all runtimes of all tenants may take together, in MiB.
    pub(super) fn disks_mib(&self) -> u64 {
        let maps = self.read();
        let all = maps.by_id.values().map(|runtime| &runtime.settings);
        let disks = all.filter(|settings| settings.filesystem == Filesystem::Persistent);
        disks.fold(0, |sum, settings| sum.saturating_add(settings.disk_mib))
    }

    // The maps are changed by single calls that can't panic between each other, so a poisoned lock guards whole maps.
    fn read(&self) -> RwLockReadGuard<'_, Maps> {
        self.0
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, Maps> {
        self.0
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::super::defaults::tests::profiles;
    use super::super::model::State;
    use super::super::request::{Base, CreateRequest};
    use super::super::sizes::HostSizes;
    use super::*;

    fn runtime(tenant: TenantId, name: &str) -> Arc<Runtime> {
        let host = HostSizes {
            memory_mib: 8192,
            max_vcpus: 64,
            disk: std::env::temp_dir(),
        };
        let settings = CreateRequest::default()
            .validate(&profiles(), &host, Base::Nothing)
            .unwrap()
            .settings;
        let state = State {
            status: Status::Running,
            updated_at: String::new(),
            copying: false,
        };
        Arc::new(Runtime::new(
            Uuid::now_v7(),
            tenant,
            name.into(),
            settings,
            String::new(),
            state,
        ))
    }

    #[test]
    fn a_runtime_is_found_by_id_and_name_in_its_tenant_only() {
        let (mine, other) = (TenantId(Uuid::now_v7()), TenantId(Uuid::now_v7()));
        let catalogue = Catalogue::default();
        let a = runtime(mine, "a");
        catalogue.insert(a.clone()).unwrap();
        let found = |tenant, key: &str| catalogue.find(tenant, key).map(|runtime| runtime.id);
        assert_eq!(found(mine, "a"), Some(a.id));
        assert_eq!(found(mine, &a.id.to_string()), Some(a.id));
        assert_eq!(found(other, "a"), None);
        assert_eq!(found(other, &a.id.to_string()), None);
        assert!(catalogue.of(other).is_empty());
    }

    #[test]
    fn a_name_is_taken_until_its_runtime_is_gone() {
        let tenant = TenantId(Uuid::now_v7());
        let catalogue = Catalogue::default();
        let a = runtime(tenant, "a");
        catalogue.insert(a.clone()).unwrap();
        let again = catalogue.insert(runtime(tenant, "a"));
        assert!(matches!(again, Err(RuntimeError::Exists(_))));
        catalogue
            .insert(runtime(TenantId(Uuid::now_v7()), "a"))
            .unwrap();
        catalogue.remove(&a);
        catalogue.insert(runtime(tenant, "a")).unwrap();
        assert_eq!(catalogue.of(tenant).len(), 1);
    }

    #[test]
    fn a_renamed_runtime_is_found_by_its_new_name_only() {
        let tenant = TenantId(Uuid::now_v7());
        let catalogue = Catalogue::default();
        let (a, b) = (runtime(tenant, "a"), runtime(tenant, "b"));
        catalogue.insert(a.clone()).unwrap();
        catalogue.insert(b.clone()).unwrap();
        let taken = catalogue.reserve(&a, "b");
        assert!(matches!(taken, Err(RuntimeError::Exists(name)) if name == "b"));
        catalogue.reserve(&a, "c").unwrap();
        let taken = catalogue.reserve(&b, "c");
        assert!(taken.is_err(), "a reserved name was given away");
        let renamed = Arc::new(a.changed("c".into(), a.settings.clone()));
        catalogue.replace(&a, renamed);
        let found = |key: &str| {
            catalogue
                .find(tenant, key)
                .map(|runtime| runtime.name.clone())
        };
        assert_eq!(found("c").as_deref(), Some("c"));
        assert_eq!(found("a"), None);
        assert_eq!(found(&a.id.to_string()).as_deref(), Some("c"));
        catalogue.insert(runtime(tenant, "a")).unwrap();
    }
}
