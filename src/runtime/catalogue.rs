//! Every runtime in memory, found by tenant and id or name: what an exec needs takes no SQL. This is the one place that
//! resolves what a client calls a runtime.

use super::error::RuntimeError;
use super::model::Runtime;
use crate::tenant::TenantId;
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
    use super::super::model::{State, Status};
    use super::super::request::CreateRequest;
    use super::super::sizes::HostSizes;
    use super::*;

    fn runtime(tenant: TenantId, name: &str) -> Arc<Runtime> {
        let host = HostSizes {
            memory_mib: 8192,
            max_vcpus: 64,
            disk: std::env::temp_dir(),
        };
        let settings = CreateRequest::default()
            .validate(&profiles(), &host)
            .unwrap()
            .settings;
        let state = State {
            status: Status::Running,
            updated_at: String::new(),
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
}
