//! Whether a role still goes about its work: it is asked over its control socket from time to time, and answers from the
//! same loop that does the work.

use std::time::{Duration, Instant};

/// How often a role is asked. Never again before it has answered, so nothing heaps up in its socket.
const INTERVAL: Duration = Duration::from_secs(2);
/// A role hangs that leaves its question unanswered for so many intervals: 20 s. Its loop waits for nothing but short calls
/// to the kernel by design, but a machine that is emulated, or full of forks, takes its time for those.
const MOST_SILENT: u32 = 10;

/// What is to be done about a role.
#[derive(Debug, PartialEq, Eq)]
pub enum Beat {
    /// Nothing now.
    Wait,
    /// Ask it.
    Ask,
    /// It hangs.
    Hangs,
}

/// Questions and answers of one role. Silence is counted in looks at it rather than measured: if it was the supervisor, or
/// the whole machine, that stood still for a minute, that is one look.
#[derive(Debug)]
pub struct Pulse {
    next: Instant,
    asked: bool,
    silent: u32,
}

impl Pulse {
    /// Of a role that starts now.
    pub fn new(now: Instant) -> Pulse {
        Pulse {
            next: now + INTERVAL,
            asked: false,
            silent: 0,
        }
    }

    /// When to look again.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Looks at it.
    pub fn beat(&mut self, now: Instant) -> Beat {
        if now < self.next {
            return Beat::Wait;
        }
        self.next = now + INTERVAL;
        if !self.asked {
            self.asked = true;
            return Beat::Ask;
        }
        self.silent += 1;
        match self.silent {
            MOST_SILENT => Beat::Hangs,
            _ => Beat::Wait,
        }
    }

    /// It has answered.
    pub fn answered(&mut self) {
        self.asked = false;
        self.silent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_is_asked_again_and_who_does_not_hangs_once() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.beat(start), Beat::Wait);
        let mut now = start;
        let mut look = |pulse: &mut Pulse| {
            now += INTERVAL;
            pulse.beat(now)
        };
        for _ in 0..3 {
            assert_eq!(look(&mut pulse), Beat::Ask);
            for _ in 1..MOST_SILENT {
                assert_eq!(look(&mut pulse), Beat::Wait);
            }
            pulse.answered();
        }
        assert_eq!(look(&mut pulse), Beat::Ask);
        let looks: Vec<Beat> = (0..2 * MOST_SILENT).map(|_| look(&mut pulse)).collect();
        assert_eq!(looks.iter().filter(|beat| **beat == Beat::Hangs).count(), 1);
        assert_eq!(looks[MOST_SILENT as usize - 1], Beat::Hangs);
    }

    #[test]
    fn a_supervisor_that_stood_still_blames_nobody() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.beat(start + INTERVAL), Beat::Ask);
        assert_eq!(pulse.beat(start + 100 * INTERVAL), Beat::Wait);
    }
}
