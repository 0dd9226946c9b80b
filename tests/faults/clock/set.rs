//! The clock in the hands of a test.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Where the clock is set to.
#[derive(Debug, Clone, Copy)]
pub enum To {
    /// A day before what it is.
    DayBack,
    /// A day after what it is.
    DayAhead,
    /// The first of January 2000, as on a machine whose battery is empty.
    Year2000,
    /// The first of January 2037, a year before 32 bits of seconds are full.
    Year2037,
    /// What it is.
    Truth,
}

/// The right time, kept while the clock is wrong. Dropped, in a panic too, it sets the clock as if nobody had touched it.
pub struct Clock {
    real: Duration,
    // Monotonic: setting the clock does not move it, clock_gettime(2).
    since: Instant,
}

impl Clock {
    /// Remembers what time it is.
    pub fn take() -> Clock {
        let (real, since) = (SystemTime::now(), Instant::now());
        Clock {
            real: real.duration_since(UNIX_EPOCH).expect("after 1970"),
            since,
        }
    }

    /// Sets it.
    pub fn set(&self, to: To) {
        let truth = self.real + self.since.elapsed();
        let set = set(match to {
            To::DayBack => truth - DAY,
            To::DayAhead => truth + DAY,
            To::Year2000 => Duration::from_secs(946_684_800),
            To::Year2037 => Duration::from_secs(2_114_380_800),
            To::Truth => truth,
        });
        assert!(set, "{to:?}: {}", std::io::Error::last_os_error());
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        if !set(self.real + self.since.elapsed()) {
            eprintln!("the clock stays wrong: {}", std::io::Error::last_os_error());
        }
    }
}

fn set(since_1970: Duration) -> bool {
    let time = libc::timespec {
        tv_sec: since_1970.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(since_1970.subsec_nanos()),
    };
    // SAFETY: clock_settime(2) reads the struct, which outlives the call.
    unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &time) == 0 }
}
