//! The one place that knows how slow this machine is: every time bound and every repeat count in the tests goes through
//! it. The factor is 1 on hardware that forks and executes `/bin/true` within the reference time, more where that takes
//! longer (emulation, a busy machine). It is measured once per test binary and printed.

use std::io::Write;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What fork, exec and wait of `/bin/true` take at most on hardware, and on the kind of virtual machine CI has.
const REFERENCE: Duration = Duration::from_millis(3);

/// Above this a bound means nothing any more.
const MOST: f64 = 20.0;

/// How much longer than on hardware things may take here.
pub fn factor() -> f64 {
    static FACTOR: OnceLock<f64> = OnceLock::new();
    *FACTOR.get_or_init(|| {
        let mut took: Vec<Duration> = (0..21).map(|_| one_spawn()).collect();
        took.sort();
        let median = took[took.len() / 2];
        let factor = (median.as_secs_f64() / REFERENCE.as_secs_f64()).clamp(1.0, MOST);
        let line = format!("time factor {factor:.2} (a spawn takes {median:?} here)\n");
        // Straight to the descriptor: the test harness swallows what eprintln! writes in a passing test.
        let _ = std::io::stderr().write_all(line.as_bytes());
        factor
    })
}

fn one_spawn() -> Duration {
    let start = Instant::now();
    Command::new("/bin/true").status().expect("run /bin/true");
    start.elapsed()
}

/// A time bound of so many milliseconds on hardware, as it holds here.
pub fn bound(millis: u64) -> Duration {
    Duration::from_millis(millis).mul_f64(factor())
}

/// A repeat count on hardware, as it holds here: fewer on a slow machine, at least 8 (or all, if fewer were asked for).
pub fn times(count: usize) -> usize {
    let scaled = (count as f64 / factor()) as usize;
    scaled.max(8.min(count))
}

/// What is seen when all has come to rest, within `limit`: two looks that are equal.
#[track_caller]
pub fn at_rest<T: PartialEq + std::fmt::Debug>(limit: Duration, look: impl Fn() -> T) -> T {
    let mut last = look();
    let calm = eventually(limit, || {
        std::thread::sleep(bound(500));
        let now = look();
        let same = now == last;
        last = now;
        same
    });
    assert!(calm, "it never comes to rest: {last:?}");
    last
}

/// A flag that is raised when this is dropped, so whatever fails: a scope waits for its threads, which look at it.
pub struct Raise<'a>(pub &'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether `holds` becomes true within `limit`. Looks every few milliseconds; the wait is bounded and the verdict is the
/// caller's to assert.
pub fn eventually(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
