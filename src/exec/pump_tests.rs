use super::super::reader::live_output;
use super::*;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

async fn through(bytes: Vec<u8>, sink: Sink) -> Captured {
    let (sender, receiver) = pipe::pipe().unwrap();
    let ((_gone, gone), (_stop, stopped)) = (watch::channel(false), watch::channel(false));
    let reader = tokio::spawn(drain(Outlet::Pipe(receiver), sink, gone, stopped));
    feed(Inlet::Pipe(sender), Input::Bytes(bytes)).await;
    reader.await.unwrap()
}

fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

#[tokio::test]
async fn everything_is_counted_and_the_first_bytes_are_kept() {
    let bytes = pattern(1_000_000);
    let captured = through(bytes.clone(), Sink::memory(70_001)).await;
    assert_eq!((captured.total, captured.kept_bytes), (1_000_000, 70_001));
    assert_eq!(captured.kept, bytes[..70_001]);
}

#[tokio::test]
async fn a_pipe_that_somebody_holds_open_can_be_given_up() {
    let (mut sender, receiver) = pipe::pipe().unwrap();
    let ((tell, gone), (_stop, stopped)) = (watch::channel(false), watch::channel(false));
    let reader = tokio::spawn(drain(
        Outlet::Pipe(receiver),
        Sink::memory(10),
        gone,
        stopped,
    ));
    sender.write_all(b"abc").await.unwrap();
    tokio::task::yield_now().await;
    tell.send_replace(true);
    let captured = reader.await.unwrap();
    assert_eq!(captured.kept, "abc");
    drop(sender);
}

#[tokio::test]
async fn somebody_who_goes_on_writing_is_given_up() {
    for live in [false, true] {
        let (sender, receiver) = pipe::pipe().unwrap();
        let ((tell, gone), (stop, stopped)) = (watch::channel(false), watch::channel(false));
        let (to, unread) = live_output(1);
        let sink = match live {
            false => Sink::memory(10),
            true => Sink::memory(10).with_live(to),
        };
        let reader = tokio::spawn(drain(Outlet::Pipe(receiver), sink, gone, stopped));
        let flood = tokio::spawn(feed(Inlet::Pipe(sender), Input::Bytes(vec![0; 1 << 30])));
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        tell.send_replace(true);
        stop.send_replace(true);
        assert!(reader.await.unwrap().total < 1 << 30);
        flood.await.unwrap();
        drop(unread);
    }
}

#[tokio::test]
async fn feeding_somebody_who_does_not_read_ends() {
    let (sender, receiver) = pipe::pipe().unwrap();
    let writer = tokio::spawn(feed(Inlet::Pipe(sender), Input::Bytes(vec![0; 10_000_000])));
    drop(receiver);
    writer.await.unwrap();
}

#[tokio::test]
async fn input_comes_piece_by_piece_until_its_channel_ends() {
    let (sender, receiver) = pipe::pipe().unwrap();
    let ((_gone, gone), (_stop, stopped)) = (watch::channel(false), watch::channel(false));
    let (pieces, input) = mpsc::channel(1);
    let writer = tokio::spawn(feed(Inlet::Pipe(sender), Input::Channel(input)));
    let reader = tokio::spawn(drain(
        Outlet::Pipe(receiver),
        Sink::memory(100),
        gone,
        stopped,
    ));
    for piece in ["one ", "two ", "three"] {
        pieces.send(Bytes::from(piece)).await.unwrap();
    }
    assert!(!reader.is_finished());
    drop(pieces);
    writer.await.unwrap();
    assert_eq!(reader.await.unwrap().kept, "one two three");
}

#[tokio::test]
async fn a_slow_reader_stops_the_writer_and_loses_nothing() {
    let bytes = pattern(5_000_000);
    let (live, mut pieces) = live_output(2);
    let (sender, receiver) = pipe::pipe().unwrap();
    let ((_gone, gone), (_stop, stopped)) = (watch::channel(false), watch::channel(false));
    let sink = Sink::memory(10).with_live(live);
    let reader = tokio::spawn(drain(Outlet::Pipe(receiver), sink, gone, stopped));
    let writer = tokio::spawn(feed(Inlet::Pipe(sender), Input::Bytes(bytes.clone())));
    // Let both go as far as they can while nobody takes a piece.
    while pieces.waiting() < 2 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert!(!writer.is_finished(), "five megabytes went into two pieces");
    let mut seen = Vec::new();
    while let Some(piece) = pieces.next().await {
        assert!(piece.len() <= PIECE);
        seen.extend_from_slice(&piece);
    }
    assert!(seen == bytes);
    let captured = reader.await.unwrap();
    assert_eq!((captured.total, captured.kept_bytes), (5_000_000, 10));
}

#[tokio::test]
async fn what_is_left_at_the_end_waits_for_its_reader_and_nobody_else_does() {
    let bytes = pattern(300_000);
    let (live, mut pieces) = live_output(1);
    let (mut sender, receiver) = pipe::pipe().unwrap();
    let ((_gone, gone), (_stop, stopped)) = (watch::channel(false), watch::channel(false));
    let sink = Sink::memory(10).with_live(live);
    let bound = sink.bound().unwrap();
    let reader = tokio::spawn(drain(Outlet::Pipe(receiver), sink, gone, stopped));
    let most = std::time::Duration::from_millis(50);
    let written = tokio::time::timeout(most, sender.write_all(&bytes)).await;
    assert!(written.is_err(), "nobody read, and all of it went");
    drop(sender);
    bound.make_room();
    let captured = reader.await.unwrap();
    let mut seen = Vec::new();
    while let Some(piece) = pieces.next().await {
        seen.extend_from_slice(&piece);
    }
    assert_eq!(captured.total, seen.len() as u64);
    assert!(seen == bytes[..seen.len()] && seen.len() > PIECE);
}

#[tokio::test]
async fn a_reader_that_leaves_a_full_channel_blocks_nobody() {
    let (live, pieces) = live_output(1);
    let (sender, receiver) = pipe::pipe().unwrap();
    let ((_gone, gone), (_stop, stopped)) = (watch::channel(false), watch::channel(false));
    let sink = Sink::memory(5).with_live(live);
    let reader = tokio::spawn(drain(Outlet::Pipe(receiver), sink, gone, stopped));
    let input = Input::Bytes(pattern(1_000_000));
    let writer = tokio::spawn(feed(Inlet::Pipe(sender), input));
    while pieces.waiting() < 1 {
        tokio::task::yield_now().await;
    }
    drop(pieces);
    writer.await.unwrap();
    assert_eq!(reader.await.unwrap().total, 1_000_000);
}

#[tokio::test]
async fn a_reader_that_left_blocks_nobody() {
    let (live, pieces) = live_output(1);
    drop(pieces);
    let captured = through(pattern(1_000_000), Sink::memory(5).with_live(live)).await;
    assert_eq!(captured.total, 1_000_000);
}

proptest! {
    #[test]
    fn pieces_add_up(pieces: Vec<Vec<u8>>, cap in 0usize..200) {
        let mut sink = Sink::memory(cap);
        for piece in &pieces {
            sink.take(piece);
        }
        let captured = sink.finish();
        let all = pieces.concat();
        prop_assert_eq!(captured.total, all.len() as u64);
        prop_assert_eq!(&captured.kept, &all[..all.len().min(cap)]);
        prop_assert_eq!(captured.kept_bytes, all.len().min(cap) as u64);
    }
}
