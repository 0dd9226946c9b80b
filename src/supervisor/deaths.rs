//! How often a child has died, and when that is too often.

use std::time::Duration;

/// How often in a row a child may die within [`SHORT_LIFE`] of its start before the service gives up.
const MAX_FAILURES: u32 = 5;
const SHORT_LIFE: Duration = Duration::from_secs(5);
/// The pause before the second restart in a row; there is none before the first, and each further one doubles.
const PAUSE: Duration = Duration::from_secs(1);

/// Deaths in a row that came soon after a start.
#[derive(Debug)]
pub struct Deaths {
    of: &'static str,
    count: u32,
}

impl Deaths {
    /// None yet of the child that messages call so.
    pub fn of(name: &'static str) -> Deaths {
        Deaths { of: name, count: 0 }
    }

    /// Counts one after so long a life (none for a start that failed).
    ///
    /// # Errors
    /// When it was one too many.
    pub fn count(&mut self, lived: Duration) -> Result<(), Box<dyn std::error::Error>> {
        self.count = if lived < SHORT_LIFE {
            self.count + 1
        } else {
            1
        };
        if self.count < MAX_FAILURES {
            Ok(())
        } else {
            Err(format!("the {} keeps dying; its log lines say why", self.of).into())
        }
    }

    /// How long to wait before the next start.
    pub fn pause(&self) -> Duration {
        match self.count {
            0 | 1 => Duration::ZERO,
            more => PAUSE * 2u32.pow(more - 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_row_of_short_lives_is_too_much() {
        let (mut deaths, short, long) = (Deaths::of("x"), Duration::ZERO, SHORT_LIFE);
        let mut pauses = Vec::new();
        for _ in 1..MAX_FAILURES {
            deaths.count(short).unwrap();
            pauses.push(deaths.pause().as_secs());
        }
        assert_eq!(pauses, [0, 1, 2, 4]);
        deaths.count(long).unwrap();
        assert_eq!(deaths.pause(), Duration::ZERO);
        (2..MAX_FAILURES).for_each(|_| deaths.count(short).unwrap());
        assert!(deaths.count(short).is_err());
    }
}
