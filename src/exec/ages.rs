//! What time it is for deciding that something stored has become old. The clock of a machine may jump, and hours ahead
//! would end keys that clients still rely on, and records that were made this morning.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Ahead by more than this, in milliseconds, is a jump: clocks are slewed all the time.
const JUMP_MS: i64 = 2_000;

/// See the module. In a server's life; a jump while none runs can't be told from time that has passed.
#[derive(Debug)]
pub(super) struct Ages {
    /// After so long all that was made before a jump is old by any clock.
    settle: Duration,
    since: Instant,
    seen: Mutex<Seen>,
}

/// What was seen of the clock, at times since the start by one that never jumps.
#[derive(Debug, Clone, Copy)]
struct Seen {
    clock: i64,
    at: Duration,
    /// When it was first seen ahead.
    ahead: Option<Duration>,
}

impl Ages {
    /// `settle` is the longest time that anything is kept by its age.
    pub(super) fn new(settle: Duration) -> Self {
        let (clock, at) = (clock(), Duration::ZERO);
        Self {
            settle,
            since: Instant::now(),
            seen: Mutex::new(Seen {
                clock,
                at,
                ahead: None,
            }),
        }
    }

    /// Milliseconds since 1970, for nothing but to hold ages against. Never earlier than the clock has gone on by itself:
    /// when that is set back, ages shrink with it, and nothing ends too early.
    pub(super) fn now(&self) -> i64 {
        // Plain numbers can't be half changed.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, next) = seen.look(clock(), self.since.elapsed(), self.settle);
        *seen = next;
        now
    }
}

impl Seen {
    fn look(self, clock: i64, at: Duration, settle: Duration) -> (i64, Seen) {
        let passed = at.saturating_sub(self.at);
        let expected = self.clock + i64::try_from(passed.as_millis()).unwrap_or(i64::MAX / 2);
        let ahead = self.ahead.unwrap_or(at);
        if clock <= expected + JUMP_MS || at.saturating_sub(ahead) >= settle {
            let ahead = None;
            return (clock, Seen { clock, at, ahead });
        }
        let ahead = Some(ahead);
        (expected, Seen { ahead, ..self })
    }
}

fn clock() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn hours(count: u64) -> Duration {
        Duration::from_secs(3600 * count)
    }

    /// What is told at these times (hours since the start, hours on the clock), when all is settled after a day.
    fn told(looks: &[(u64, i64)]) -> Vec<i64> {
        let mut seen = Seen {
            clock: 0,
            at: Duration::ZERO,
            ahead: None,
        };
        let mut told = Vec::new();
        for (at, clock) in looks {
            let (now, next) = seen.look(clock * HOUR, hours(*at), hours(24));
            seen = next;
            told.push(now / HOUR);
        }
        told
    }

    #[test]
    fn a_clock_that_runs_is_followed() {
        assert_eq!(told(&[(1, 1), (2, 2), (50, 50)]), [1, 2, 50]);
        let seen = Seen {
            clock: 0,
            at: Duration::ZERO,
            ahead: None,
        };
        assert_eq!(
            seen.look(3_000, hours(0) + Duration::from_secs(2), hours(24))
                .0,
            3_000
        );
    }

    #[test]
    fn a_jump_ahead_counts_when_that_much_time_has_passed() {
        let looks = [(1, 1), (2, 30), (10, 38), (25, 53), (26, 54), (27, 55)];
        assert_eq!(told(&looks), [1, 2, 10, 25, 54, 55]);
    }

    #[test]
    fn a_clock_that_is_set_back_is_followed_at_once() {
        assert_eq!(told(&[(10, 10), (11, 3), (12, 4)]), [10, 3, 4]);
        // There and back again.
        assert_eq!(told(&[(1, 30), (2, 2), (3, 31), (4, 4)]), [1, 2, 3, 4]);
    }
}
