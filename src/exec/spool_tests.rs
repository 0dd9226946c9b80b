use super::*;
use crate::exec::pump::drain;
use crate::exec::sink::{Captured, Sink};
use crate::store::Store;
use crate::warden::streams::Outlet;
use std::path::Path;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

fn outputs(dir: &Path, most: u64) -> Outputs {
    let store = Store::open(&dir.join("t.db")).unwrap();
    Outputs::open(dir.join("output"), store, most)
}

async fn through(bytes: &[u8], spool: Spool) -> Captured {
    let (mut sender, receiver) = pipe::pipe().unwrap();
    let ((_gone, gone), (_stop, stopped)) = (watch::channel(false), watch::channel(false));
    let reader = tokio::spawn(drain(
        Outlet::Pipe(receiver),
        Sink::file(spool),
        gone,
        stopped,
    ));
    sender.write_all(bytes).await.unwrap();
    drop(sender);
    reader.await.unwrap()
}

fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

#[tokio::test]
async fn a_file_gets_the_first_bytes_and_tells_how_many() {
    let dir = tempfile::tempdir().unwrap();
    let outputs = outputs(dir.path(), 1 << 20);
    let id = Uuid::now_v7();
    let bytes = pattern(1_000_000);
    let spool = Spool::new(&outputs, id, Stream::Stderr, 700_001);
    let mut progress = spool.progress();
    let follower = tokio::spawn(async move {
        let mut seen = Vec::new();
        while progress.changed().await.is_ok() {
            seen.push(*progress.borrow_and_update());
        }
        seen
    });
    let captured = through(&bytes, spool).await;
    assert_eq!((captured.total, captured.kept_bytes), (1_000_000, 700_001));
    assert!(captured.kept.is_empty());
    let (mut file, length) = outputs.file(id, Stream::Stderr).unwrap().unwrap();
    let mut kept = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut kept).unwrap();
    assert!(length == 700_001 && kept == bytes[..700_001]);
    let seen = follower.await.unwrap();
    assert!(seen.windows(2).all(|two| two[0].kept <= two[1].kept));
    let last = Progress {
        kept: 700_001,
        total: 1_000_000,
    };
    assert_eq!(seen.last(), Some(&last));
}

#[tokio::test]
async fn a_silent_command_makes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let outputs = outputs(dir.path(), 1 << 20);
    let id = Uuid::now_v7();
    let spool = Spool::new(&outputs, id, Stream::Stdout, 100);
    assert_eq!(through(b"", spool).await, Captured::default());
    assert!(outputs.file(id, Stream::Stdout).unwrap().is_none());
}

#[tokio::test]
async fn a_file_that_cannot_be_made_fails_no_command() {
    let dir = tempfile::tempdir().unwrap();
    let outputs = outputs(dir.path(), 1 << 20);
    let id = Uuid::now_v7();
    // A directory stands where the file would be.
    std::fs::create_dir(outputs.path(id, Stream::Stdout)).unwrap();
    let spool = Spool::new(&outputs, id, Stream::Stdout, 100);
    let captured = through(&[1; 50], spool).await;
    assert_eq!((captured.total, captured.kept_bytes), (50, 0));
}

#[tokio::test]
async fn what_is_beyond_the_bound_of_all_output_is_only_counted() {
    let dir = tempfile::tempdir().unwrap();
    let outputs = outputs(dir.path(), 100_000);
    let spool = Spool::new(&outputs, Uuid::now_v7(), Stream::Stdout, 1 << 20);
    let captured = through(&pattern(300_000), spool).await;
    assert_eq!(captured.total, 300_000);
    let kept = captured.kept_bytes;
    assert!((1..=100_000).contains(&kept), "{kept}");
}
