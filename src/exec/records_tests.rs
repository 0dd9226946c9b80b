use super::*;
use crate::config::RecordBounds;
use crate::exec::record::{RUNNING, Report, UNKNOWN};
use std::path::Path;

struct Fixture {
    dir: tempfile::TempDir,
    tenants: [TenantId; 2],
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("t.db")).unwrap();
        let tenants = ["a", "b"].map(|name| (TenantId(Uuid::now_v7()), name.to_owned()));
        for (TenantId(id), name) in tenants.clone() {
            let row = crate::store::TenantRow { id, name };
            store.insert_tenant(row).await.unwrap();
        }
        let tenants = tenants.map(|(id, _)| id);
        Self { dir, tenants }
    }

    /// As a server's start does.
    async fn open(&self, most: u64) -> Records {
        let store = Store::open(&self.dir.path().join("t.db")).unwrap();
        let outputs = Outputs::open(self.output(), store.clone(), most);
        Records::open(store, outputs, Duration::ZERO).await.unwrap()
    }

    fn output(&self) -> std::path::PathBuf {
        self.dir.path().join("output")
    }

    fn row(&self, outcome: &str) -> ExecRow {
        ExecRow {
            id: Uuid::now_v7(),
            tenant: self.tenants[0].0,
            runtime: Uuid::nil(),
            runtime_name: "r".into(),
            command: "true".into(),
            detached: false,
            outcome: outcome.into(),
            ended_at: (outcome != RUNNING).then(|| jiff::Timestamp::now().as_millisecond()),
            report: "{}".into(),
            kept: 0,
            in_files: false,
        }
    }

    /// An ended exec with so much output.
    fn ended(&self, stdout: usize, stderr: usize) -> ExecWrite {
        let report = Report {
            stdout_kept: stdout as u64,
            stderr_kept: stderr as u64,
            exit_code: Some(0),
            ..Report::default()
        };
        let row = ExecRow {
            report: serde_json::to_string(&report).unwrap(),
            kept: (stdout + stderr) as u64,
            ..self.row("exited")
        };
        let output = [vec![b'o'; stdout].into(), vec![b'e'; stderr].into()];
        ExecWrite { row, output }
    }
}

fn bounds(retention_secs: u64) -> RecordBounds {
    RecordBounds {
        retention_secs,
        max_records: 100,
        // Enforced by what was given to `Outputs`.
        max_kept_output_bytes: 0,
    }
}

fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

async fn length(records: &Records, tenant: TenantId, id: Uuid, stream: Stream) -> Option<u64> {
    let record = records.get(tenant, id).await.unwrap().unwrap();
    match records.output(&record, stream).await.unwrap()? {
        Kept::Memory(bytes) => Some(bytes.len() as u64),
        Kept::File(file, length) => {
            assert!(file.metadata().unwrap().len() >= length);
            Some(length)
        }
    }
}

#[tokio::test]
async fn what_was_noted_is_read_at_once_and_by_its_tenant_only() {
    let fixture = Fixture::new().await;
    let records = fixture.open(1 << 20).await;
    let [mine, other] = fixture.tenants;
    let write = fixture.ended(3, 0);
    let id = write.row.id;
    records.put(write, None, false);
    assert_eq!(
        records.get(mine, id).await.unwrap().unwrap().outcome,
        "exited"
    );
    assert_eq!(records.get(other, id).await.unwrap(), None);
    let count = async |tenant| {
        let listed = records.list(tenant, ExecFilter::default(), None, 0, 10);
        listed.await.unwrap().0.len()
    };
    assert_eq!((count(mine).await, count(other).await), (1, 0));
}

#[tokio::test]
async fn on_a_full_disk_the_end_stores_what_nothing_else_may() {
    let fixture = Fixture::new().await;
    let records = fixture.open(64 << 20).await;
    let [mine, _] = fixture.tenants;
    records.store().fill_disk().await;
    let mut ids = Vec::new();
    let refused = loop {
        let write = fixture.ended(3_000, 0);
        ids.push(write.row.id);
        records.put(write, None, false);
        if let Err(error) = records.flush().await {
            break error;
        }
        assert!(ids.len() < 5_000, "there is always room");
    };
    assert!(refused.is_full(), "{refused}");
    // More than fit with their output.
    for _ in 0..AT_LAST * 2 {
        let write = fixture.ended(12_000, 0);
        ids.push(write.row.id);
        records.put(write, None, false);
    }
    records.flush_at_last().await.unwrap();
    let kept = |id| length(&records, mine, id, Stream::Stdout);
    assert_eq!(kept(ids[0]).await, Some(3_000));
    assert_eq!(kept(*ids.last().unwrap()).await, None);
    records.store().close().await;
    let records = fixture.open(64 << 20).await;
    for id in ids {
        let record = records.get(mine, id).await.unwrap();
        assert_eq!(record.unwrap().outcome, "exited");
    }
}

#[tokio::test]
async fn small_output_is_in_the_row_and_large_output_in_files() {
    let fixture = Fixture::new().await;
    let records = fixture.open(1 << 20).await;
    let [mine, _] = fixture.tenants;
    let (small, large) = (fixture.ended(10_000, 6_000), fixture.ended(100_000, 20));
    let ids = [small.row.id, large.row.id];
    records.put(small, None, false);
    records.put(large, None, false);
    records.flush().await.unwrap();
    assert_eq!(files(&fixture.output()), 2);
    for (id, stdout, stderr) in [(ids[0], 10_000, 6_000), (ids[1], 100_000, 20)] {
        assert_eq!(
            length(&records, mine, id, Stream::Stdout).await,
            Some(stdout)
        );
        assert_eq!(
            length(&records, mine, id, Stream::Stderr).await,
            Some(stderr)
        );
    }
}

#[tokio::test]
async fn the_newest_news_of_an_exec_counts() {
    let fixture = Fixture::new().await;
    let records = fixture.open(1 << 20).await;
    let [mine, _] = fixture.tenants;
    for flush_between in [false, true] {
        let running = fixture.row(RUNNING);
        let id = running.id;
        let mut ended = fixture.ended(0, 0);
        ended.row.id = id;
        let output = [Bytes::new(), Bytes::new()];
        let write = ExecWrite {
            row: running,
            output,
        };
        records.put(write, None, false);
        if flush_between {
            records.flush().await.unwrap();
        }
        records.put(ended, None, false);
        let all = records
            .list(mine, ExecFilter::default(), None, 0, 10)
            .await
            .unwrap();
        let found: Vec<&Record> = all.0.iter().filter(|record| record.id == id).collect();
        assert_eq!((found.len(), found[0].outcome.as_str()), (1, "exited"));
        records.forget(id);
        assert_eq!(records.get(mine, id).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_new_server_does_not_know_what_became_of_what_ran() {
    let fixture = Fixture::new().await;
    let [mine, _] = fixture.tenants;
    let records = fixture.open(1 << 20).await;
    let row = fixture.row(RUNNING);
    let id = row.id;
    let output = [Bytes::new(), Bytes::new()];
    records.put(ExecWrite { row, output }, None, true);
    records.flush().await.unwrap();
    std::fs::write(records.outputs().path(id, Stream::Stderr), "so far").unwrap();
    let records = fixture.open(1 << 20).await;
    let record = records.get(mine, id).await.unwrap().unwrap();
    assert_eq!(
        (record.outcome.as_str(), record.report.exit_code),
        (UNKNOWN, None)
    );
    assert_eq!(length(&records, mine, id, Stream::Stderr).await, Some(6));
    assert_eq!(length(&records, mine, id, Stream::Stdout).await, Some(0));
}

#[tokio::test]
async fn the_oldest_output_goes_first_and_its_record_stays() {
    let fixture = Fixture::new().await;
    let [mine, _] = fixture.tenants;
    let records = fixture.open(250_000).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let write = fixture.ended(100_000, 0);
        ids.push(write.row.id);
        records.put(write, None, false);
        records.flush().await.unwrap();
    }
    let kept = async |id| length(&records, mine, id, Stream::Stdout).await;
    let lengths = [kept(ids[0]).await, kept(ids[1]).await, kept(ids[2]).await];
    assert_eq!(lengths, [None, Some(100_000), Some(100_000)]);
    assert_eq!(files(&fixture.output()), 2);
    // What can't have room does not take others' away for nothing more than that.
    let large = fixture.ended(300_000, 0);
    let id = large.row.id;
    records.put(large, None, false);
    assert_eq!(kept(id).await, None);
    assert_eq!(kept(ids[2]).await, Some(100_000));
    assert_eq!(
        records.get(mine, id).await.unwrap().unwrap().outcome,
        "exited"
    );
}

#[tokio::test]
async fn a_lowered_bound_holds_from_the_start() {
    let fixture = Fixture::new().await;
    let [mine, _] = fixture.tenants;
    let records = fixture.open(1 << 20).await;
    let writes = [fixture.ended(100_000, 0), fixture.ended(100_000, 0)];
    let ids = writes.each_ref().map(|write| write.row.id);
    for write in writes {
        records.put(write, None, false);
    }
    records.flush().await.unwrap();
    let records = fixture.open(150_000).await;
    records.keep_within(bounds(3600));
    while files(&fixture.output()) > 1 {
        tokio::task::yield_now().await;
    }
    let kept = async |id| length(&records, mine, id, Stream::Stdout).await;
    assert_eq!(
        (kept(ids[0]).await, kept(ids[1]).await),
        (None, Some(100_000))
    );
}

#[tokio::test]
async fn old_records_go_unless_a_key_stands_for_them() {
    let fixture = Fixture::new().await;
    let [mine, _] = fixture.tenants;
    let records = fixture.open(1 << 20).await;
    let past = 1_600_000_000_000;
    let old = |stdout| {
        let mut write = fixture.ended(stdout, 0);
        let random = write.row.id.as_u128() & ((1 << 80) - 1);
        write.row.id = Uuid::from_u128(crate::store::first_id_at(past).as_u128() | random);
        write.row.ended_at = Some(past + 1000);
        write
    };
    let (plain, keyed, running, new) = (old(50_000), old(50_000), old(0), fixture.ended(5, 0));
    let key = KeyRow {
        tenant: mine.0,
        scope: "s".into(),
        key: "k".into(),
        request: [0; 32],
        subject: keyed.row.id,
        answer: None,
        created_at: jiff::Timestamp::now().as_millisecond(),
    };
    let ids = [&plain, &keyed, &running, &new].map(|write| write.row.id);
    let mut running = running;
    running.row.outcome = RUNNING.into();
    records.put(plain, None, false);
    records.put(keyed, Some(key), true);
    records.put(running, None, false);
    records.put(new, None, false);
    records.flush().await.unwrap();
    assert_eq!(files(&fixture.output()), 2);
    records.keep_within(bounds(3600));
    while records.get(mine, ids[0]).await.unwrap().is_some() {
        tokio::task::yield_now().await;
    }
    for id in &ids[1..] {
        assert!(records.get(mine, *id).await.unwrap().is_some());
    }
    while files(&fixture.output()) > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_parts_of_a_list_are_the_list() {
    let fixture = Fixture::new().await;
    let records = fixture.open(1 << 20).await;
    let [mine, _] = fixture.tenants;
    for n in 0..7 {
        records.put(fixture.ended(n, 0), None, false);
    }
    let exited = ExecFilter {
        outcomes: vec!["exited".to_owned()],
        ..ExecFilter::default()
    };
    for filter in [ExecFilter::default(), exited] {
        let all = records.list(mine, filter.clone(), None, 0, 100);
        let all = all.await.unwrap().0;
        assert_eq!(all.len(), 7);
        let first = records.list(mine, filter.clone(), None, 0, 3);
        let mut found = first.await.unwrap().0;
        while let Some(last) = found.last().map(|record| record.id) {
            let more = records.list_after(mine, filter.clone(), last, 3);
            match more.await.unwrap() {
                more if more.is_empty() => break,
                more => found.extend(more),
            }
        }
        assert_eq!(found, all);
    }
}
