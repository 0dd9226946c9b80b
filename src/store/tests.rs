use super::*;
use uuid::Uuid;

fn runtime(tenant: Uuid, name: &str) -> RuntimeRow {
    RuntimeRow {
        id: Uuid::now_v7(),
        tenant,
        name: name.into(),
        status: "creating".into(),
        settings: "{}".into(),
        created_at: "2026-01-01T00:00:00Z".into(),
        updated_at: "2026-01-01T00:00:00Z".into(),
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let tenant = TenantRow {
        id: Uuid::now_v7(),
        name: "default".into(),
    };
    let row = runtime(tenant.id, "a");
    {
        let store = Store::open(&path).unwrap();
        store.insert_tenant(tenant.clone()).await.unwrap();
        store.replace_admin_token(tenant.id, [7; 32]).await.unwrap();
        store.insert_runtime(row.clone()).await.unwrap();
        store
            .set_status(row.id, "running", "2026-01-02T00:00:00Z")
            .await
            .unwrap();
    }
    let snapshot = Store::open(&path).unwrap().snapshot().await.unwrap();
    assert_eq!(snapshot.tenants, std::slice::from_ref(&tenant));
    assert_eq!(
        snapshot.tokens,
        [TokenRow {
            hash: [7; 32],
            tenant: tenant.id
        }]
    );
    let expected = RuntimeRow {
        status: "running".into(),
        updated_at: "2026-01-02T00:00:00Z".into(),
        ..row
    };
    assert_eq!(snapshot.runtimes, [expected]);
}

#[tokio::test]
async fn names_are_unique_per_tenant_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("t.db")).unwrap();
    let tenants = [Uuid::now_v7(), Uuid::now_v7()];
    for (id, name) in tenants.into_iter().zip(["a", "b"]) {
        store
            .insert_tenant(TenantRow {
                id,
                name: name.into(),
            })
            .await
            .unwrap();
    }
    store
        .insert_runtime(runtime(tenants[0], "x"))
        .await
        .unwrap();
    store
        .insert_runtime(runtime(tenants[1], "x"))
        .await
        .unwrap();
    let again = store.insert_runtime(runtime(tenants[0], "x")).await;
    assert!(matches!(again, Err(StoreError::Taken)), "{again:?}");
}

#[tokio::test]
async fn a_runtime_of_no_tenant_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("t.db")).unwrap();
    let orphan = store.insert_runtime(runtime(Uuid::now_v7(), "x")).await;
    assert!(matches!(orphan, Err(StoreError::Sql { .. })), "{orphan:?}");
}

#[tokio::test]
async fn a_new_admin_token_replaces_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("t.db")).unwrap();
    let tenant = Uuid::now_v7();
    store
        .insert_tenant(TenantRow {
            id: tenant,
            name: "default".into(),
        })
        .await
        .unwrap();
    store.replace_admin_token(tenant, [1; 32]).await.unwrap();
    store.replace_admin_token(tenant, [2; 32]).await.unwrap();
    let tokens = store.snapshot().await.unwrap().tokens;
    assert_eq!(
        tokens,
        [TokenRow {
            hash: [2; 32],
            tenant
        }]
    );
}

#[test]
fn a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .pragma_update(None, "user_version", 9_999)
        .unwrap();
    let message = Store::open(&path).unwrap_err().to_string();
    assert!(message.contains("schema version 9999"), "{message}");
}

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let tenant = Uuid::now_v7();
    {
        let mut connection = Connection::open(&path).unwrap();
        migrations::apply_first(&mut connection, 1).unwrap();
        let sql = "INSERT INTO tenants (id, name) VALUES (?1, 'old')";
        connection.execute(sql, [tenant.to_string()]).unwrap();
    }
    let store = Store::open(&path).unwrap();
    assert_eq!(store.snapshot().await.unwrap().tenants[0].id, tenant);
    assert_eq!(store.kept_output().await.unwrap(), 0);
}
