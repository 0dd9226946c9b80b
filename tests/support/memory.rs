//! The server's memory while something goes on.

use super::procs;
use super::server::Server;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How much more memory the server's two processes had at the worst moment of some work than before it, in bytes.
pub fn growth(server: &Server, work: impl FnOnce()) -> u64 {
    let pids = [server.api_pid(), server.warden_pid()];
    let rss = || pids.iter().map(|pid| procs::rss(*pid)).sum::<u64>();
    let before = rss();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = rss();
            while !done.load(Ordering::Relaxed) {
                most = most.max(rss());
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        work();
        done.store(true, Ordering::Relaxed);
        watcher.join().expect("no panic").saturating_sub(before)
    })
}
