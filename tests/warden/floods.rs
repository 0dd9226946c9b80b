//! More than is taken: requests without end, answers that nobody reads, cells beyond number.

use crate::needs;
use crate::raw::Raw;
use crate::requests::{create, exec, number, shell};
use crate::support::{alone, bound, eventually, leaks, procs};
use cellblock::sys::packet;
use cellblock::warden::memfd;
use cellblock::warden::protocol::{Filesystem, Reply};
use nix::errno::Errno;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};
use uuid::Uuid;

/// What the warden keeps at most, `server::MAX_OUTGOING`, and what one turn of its loop may add.
const MOST_REPLIES: usize = 1024 + 64;

/// Sends without waiting; false where there is no room.
fn offered(raw: &Raw, message: &Value, fds: &[BorrowedFd<'_>]) -> bool {
    match packet::offer(raw.link.as_fd(), message.to_string().as_bytes(), fds) {
        Ok(()) => true,
        Err(Errno::EAGAIN) => false,
        Err(errno) => panic!("{errno}"),
    }
}

#[test]
fn answers_that_nobody_reads_are_bounded_and_keep_nothing_waiting() {
    needs!(Root);
    let _turn = alone();
    let raw = Raw::start();
    let count = || -> usize {
        let held = leaks::descriptors(&[raw.pid]);
        held.iter().map(|(_, count)| count).sum()
    };
    let (fds, memory) = (count(), procs::rss(raw.pid));
    // Each answer comes with a memfd.
    let mut sent = HashSet::new();
    let mut ask = || {
        let seq = raw.seq();
        let taken = offered(
            &raw,
            &json!({"type": "list_images", "seq": seq, "after": null}),
            &[],
        );
        taken.then(|| sent.insert(seq)).is_some()
    };
    // Full, and full still when it has had time to take more.
    let mut full = 0;
    let stuck = eventually(bound(60_000), || {
        full = match ask() {
            true => 0,
            false => full + 1,
        };
        while full == 0 && ask() {}
        full == 100
    });
    assert!(stuck, "it takes requests without end");
    raw.assert_lives();
    let (held, grown) = (count() - fds, procs::rss(raw.pid).saturating_sub(memory));
    assert!(held <= MOST_REPLIES, "{held} descriptors are kept");
    assert!(grown < 64 << 20, "{grown} bytes more");
    assert!(sent.len() > 1000, "only {} requests were taken", sent.len());
    while !sent.is_empty() {
        let (reply, _) = raw.next_reply(bound(20_000)).expect("an answer to each");
        assert!(sent.remove(&number(&reply)), "{reply:?} was not asked for");
    }
    raw.assert_well("answers that nobody read");
}

#[test]
fn who_is_told_of_nothing_can_ask_for_ever() {
    needs!(Root);
    let _turn = alone();
    let raw = Raw::start();
    let memory = procs::rss(raw.pid);
    for seq in 0..200_000u64 {
        let message = match seq % 3 {
            0 => json!({"type": "kill", "seq": seq}),
            1 => json!({"type": "signal", "seq": seq, "signal": "kill"}),
            _ => json!({"type": "rubbish"}),
        };
        raw.send(message.to_string().as_bytes(), &[]);
    }
    raw.assert_silent("a flood");
    let grown = procs::rss(raw.pid).saturating_sub(memory);
    assert!(grown < 16 << 20, "{grown} bytes more");
    raw.assert_well("a flood");
}

/// Everything that may be waiting for its turn, many times over.
#[test]
fn what_can_be_done_once_is_not_queued_twice() {
    needs!(Root);
    let _turn = alone();
    let raw = Raw::start();
    let (runtime, checkpoint) = (Uuid::now_v7(), Uuid::now_v7());
    raw.create(runtime, Filesystem::Persistent);
    let copy = json!({"type": "create_checkpoint", "id": checkpoint, "runtime": runtime});
    let delete = json!({"type": "delete_checkpoint", "id": checkpoint});
    let twin = create(Uuid::now_v7(), Filesystem::ReadOnly);
    let remove = json!({"type": "delete_runtime", "id": runtime});
    for (request, what) in [
        (copy, "copy"),
        (delete, "delete"),
        (twin, "create"),
        (remove, "remove"),
    ] {
        let seqs: Vec<u64> = (0..60)
            .map(|_| raw.send_json(request.clone(), &[]))
            .collect();
        let replies: Vec<Reply> = seqs.into_iter().map(|seq| raw.reply(seq).0).collect();
        let done = replies
            .iter()
            .filter(|reply| !matches!(reply, Reply::Failed { .. }))
            .count();
        assert_eq!(done, 1, "{what}: {replies:?}");
    }
    let id = raw.ask(json!({"type": "list_runtimes", "after": raw.runtime}), &[]);
    let Reply::Ids { ids, .. } = id else {
        panic!("{id:?}")
    };
    let [twin] = ids[..] else { panic!("{ids:?}") };
    raw.delete(twin);
    raw.assert_well("the same again and again");
}

#[test]
fn no_more_runtimes_are_made_than_there_are_ranges_of_ids() {
    needs!(Root);
    let _turn = alone();
    let raw = Raw::start();
    let ids: Vec<Uuid> = (0..crate::raw::RANGES + 5)
        .map(|_| Uuid::now_v7())
        .collect();
    let asked: Vec<u64> = ids
        .iter()
        .map(|id| raw.send_json(create(*id, Filesystem::ReadOnly), &[]))
        .collect();
    let replies: Vec<Reply> = asked.into_iter().map(|seq| raw.reply(seq).0).collect();
    let made = |reply: &&Reply| matches!(reply, Reply::Created { .. });
    // One is the test's own.
    assert_eq!(
        replies.iter().filter(made).count() as u32,
        crate::raw::RANGES - 1
    );
    let refused = replies
        .iter()
        .find(|reply| !made(reply))
        .expect("some are refused");
    let refused = serde_json::to_value(refused).expect("plain data");
    assert_eq!(
        refused["failure"],
        json!({"kind": "no_room", "detail": "uid ranges"})
    );
    let mut bases = HashSet::new();
    for (id, reply) in ids.iter().zip(&replies) {
        if made(&reply) {
            let range = crate::commands::range_of(&raw, *id);
            assert!(range.start > crate::raw::UID_BASE, "{range:?}");
            assert_eq!(
                (range.start - crate::raw::UID_BASE) % cellblock::resources::RANGE,
                0
            );
            assert!(bases.insert(range.start), "two runtimes have {range:?}");
            raw.delete(*id);
        }
    }
    raw.assert_well("more runtimes than there may be");
}

/// Asked for and killed without a look at what is answered, before, while and after they start.
#[test]
fn cells_that_are_killed_unseen_all_end_and_leave_nothing() {
    needs!(Root);
    let _turn = alone();
    let raw = Raw::start();
    let order = memfd::seal(c"command", &shell("/", "sleep 1000").encode()).expect("a memfd");
    let mut open: HashSet<u64> = HashSet::new();
    for round in 0..100 {
        let seq = raw.send_json(exec(raw.runtime), &[order.as_fd()]);
        open.insert(seq);
        raw.kill(seq - round % 3);
        raw.kill(seq - round % 3);
    }
    for seq in &open {
        raw.kill(*seq);
    }
    let mut started = HashSet::new();
    while !open.is_empty() {
        match raw.next_reply(bound(60_000)).expect("an end of each").0 {
            Reply::Started { seq } => assert!(started.insert(seq), "{seq} started twice"),
            Reply::Ended { seq, .. } => {
                assert!(started.contains(&seq), "{seq} ended before it started");
                assert!(open.remove(&seq), "{seq} ended twice");
            }
            other => panic!("{other:?}"),
        }
    }
    raw.assert_well("cells that were killed unseen");
}
