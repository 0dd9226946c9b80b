//! What became of a command: a closed set of outcomes, and the one rule for which of several reasons counts.

use crate::warden::protocol::{CellEnd, SIGKILL};
use nix::sys::signal::Signal;

/// How a command ended, in the API's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// By itself, with an exit code.
    Exited,
    /// By a signal.
    Signaled,
    /// By us: its time was up.
    TimedOut,
    /// By the kernel: its memory was used up.
    OomKilled,
    /// By us: its runtime was stopped or deleted, the service stops, or nobody waits for it any more.
    Cancelled,
}

impl Outcome {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Signaled => "signaled",
            Self::TimedOut => "timed_out",
            Self::OomKilled => "oom_killed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why we killed a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Killed {
    /// Its time was up.
    TimedOut,
    /// See [`Outcome::Cancelled`].
    Cancelled,
}

/// What the warden and we ourselves know of the end.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// How the main process ended.
    pub end: CellEnd,
    /// The kernel's OOM killer struck in the cell.
    pub oom_killed: bool,
    /// The warden killed the cell for its CPU seconds.
    pub cpu_exceeded: bool,
    /// We asked for its death before we knew of its end.
    pub killed: Option<Killed>,
}

/// The outcome with all that follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How it ended.
    pub outcome: Outcome,
    /// 128+N for a signal, 124 for a timeout, 137 for OOM and for a cancelled one.
    pub exit_code: u8,
    /// The signal's name without SIG, where a signal is the outcome.
    pub signal: Option<String>,
}

/// Why there is no outcome: the command never ran, or nobody saw how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoOutcome {
    /// Its working directory could not be entered; says why.
    Cwd(String),
    /// The kernel found its arguments too large.
    ArgumentsTooLong,
    /// The cell could not be built.
    Setup,
    /// The cell had no room.
    NoRoom,
    /// What stood over it was killed by somebody on the host.
    Unseen,
}

const SIGXCPU: u8 = 24;

/// Which reason counts. The first row that fits:
///
/// | fact | outcome | code |
/// |---|---|---|
/// | the command never ran, and not because we killed it | none | |
/// | we killed it, and it had not ended by itself before | timed_out, cancelled | 124, 137 |
/// | an OOM kill in the cell | oom_killed | 137 |
/// | its CPU seconds were used up | signaled, XCPU | 152 |
/// | a signal | signaled | 128+N |
/// | the warden killed the cell as a whole, by none of the reasons above | cancelled | 137 |
/// | its end was not seen, and we had no part in it | none | |
/// | it exited | exited | its own |
pub(super) fn judge(facts: &Facts) -> Result<Verdict, NoOutcome> {
    let of = |outcome, exit_code| Verdict {
        outcome,
        exit_code,
        signal: None,
    };
    // SIGKILL is what our own kill looks like; any other end is the command's own, and came first.
    let ended_by_us = matches!(
        facts.end,
        CellEnd::Killed
            | CellEnd::Unseen
            | CellEnd::Signaled(SIGKILL)
            | CellEnd::SetupFailed
            | CellEnd::NoRoom
    );
    match facts.killed {
        Some(Killed::TimedOut) if ended_by_us => return Ok(of(Outcome::TimedOut, 124)),
        Some(Killed::Cancelled) if ended_by_us => return Ok(of(Outcome::Cancelled, 128 + SIGKILL)),
        _ => {}
    }
    match &facts.end {
        CellEnd::CwdRefused(why) => return Err(NoOutcome::Cwd(why.clone())),
        CellEnd::ArgumentsTooLong => return Err(NoOutcome::ArgumentsTooLong),
        _ if facts.oom_killed => return Ok(of(Outcome::OomKilled, 128 + SIGKILL)),
        CellEnd::SetupFailed => return Err(NoOutcome::Setup),
        CellEnd::NoRoom => return Err(NoOutcome::NoRoom),
        _ => {}
    }
    if facts.cpu_exceeded {
        return Ok(signaled(SIGXCPU));
    }
    Ok(match facts.end {
        CellEnd::Signaled(number) => signaled(number),
        CellEnd::Exited(code) => of(Outcome::Exited, code),
        CellEnd::Unseen => return Err(NoOutcome::Unseen),
        _ => of(Outcome::Cancelled, 128 + SIGKILL),
    })
}

fn signaled(number: u8) -> Verdict {
    Verdict {
        outcome: Outcome::Signaled,
        exit_code: 128u8.saturating_add(number),
        signal: Some(signal_name(number)),
    }
}

/// `TERM`, `KILL`, … and `RTMIN+3` for real-time signals, signal(7).
fn signal_name(number: u8) -> String {
    const SIGRTMIN: u8 = 34; // as glibc counts; the kernel's first two are its own
    match Signal::try_from(i32::from(number)) {
        Ok(signal) => signal.as_str().trim_start_matches("SIG").to_owned(),
        Err(_) if number >= SIGRTMIN => format!("RTMIN+{}", number - SIGRTMIN),
        Err(_) => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(end: CellEnd) -> Facts {
        Facts {
            end,
            oom_killed: false,
            cpu_exceeded: false,
            killed: None,
        }
    }

    fn short(facts: Facts) -> (Outcome, u8, Option<String>) {
        let verdict = judge(&facts).unwrap();
        (verdict.outcome, verdict.exit_code, verdict.signal)
    }

    #[test]
    fn the_rows_of_the_table() {
        let term = CellEnd::Signaled(15);
        assert_eq!(short(plain(CellEnd::Exited(3))), (Outcome::Exited, 3, None));
        assert_eq!(
            short(plain(term)),
            (Outcome::Signaled, 143, Some("TERM".into()))
        );
        assert_eq!(
            short(plain(CellEnd::Killed)),
            (Outcome::Cancelled, 137, None)
        );
        let oom = Facts {
            oom_killed: true,
            ..plain(CellEnd::Exited(0))
        };
        assert_eq!(short(oom), (Outcome::OomKilled, 137, None));
        let unseen = plain(CellEnd::Unseen);
        assert_eq!(judge(&unseen), Err(NoOutcome::Unseen));
        let in_vain = Facts {
            killed: Some(Killed::Cancelled),
            ..unseen
        };
        assert_eq!(short(in_vain), (Outcome::Cancelled, 137, None));
        let cpu = Facts {
            cpu_exceeded: true,
            ..plain(CellEnd::Signaled(9))
        };
        assert_eq!(short(cpu), (Outcome::Signaled, 152, Some("XCPU".into())));
        let late = Facts {
            killed: Some(Killed::TimedOut),
            oom_killed: true,
            ..plain(CellEnd::Killed)
        };
        assert_eq!(short(late), (Outcome::TimedOut, 124, None));
    }

    #[test]
    fn an_end_of_its_own_just_before_our_kill_stands() {
        let exited = Facts {
            killed: Some(Killed::TimedOut),
            ..plain(CellEnd::Exited(0))
        };
        assert_eq!(short(exited), (Outcome::Exited, 0, None));
    }

    #[test]
    fn a_command_that_never_ran_has_no_outcome() {
        let why = judge(&plain(CellEnd::CwdRefused("no such directory".into())));
        assert_eq!(why, Err(NoOutcome::Cwd("no such directory".into())));
        assert_eq!(
            judge(&plain(CellEnd::ArgumentsTooLong)),
            Err(NoOutcome::ArgumentsTooLong)
        );
        assert_eq!(judge(&plain(CellEnd::SetupFailed)), Err(NoOutcome::Setup));
        assert_eq!(judge(&plain(CellEnd::NoRoom)), Err(NoOutcome::NoRoom));
        let killed = Facts {
            killed: Some(Killed::Cancelled),
            ..plain(CellEnd::SetupFailed)
        };
        assert_eq!(short(killed).0, Outcome::Cancelled);
    }

    #[test]
    fn signals_have_their_names() {
        assert_eq!(signal_name(9), "KILL");
        assert_eq!(signal_name(31), "SYS");
        assert_eq!(signal_name(34), "RTMIN+0");
        assert_eq!(signal_name(33), "33");
    }

    fn ends() -> impl Strategy<Value = CellEnd> {
        prop_oneof![
            any::<u8>().prop_map(CellEnd::Exited),
            (1u8..=64).prop_map(CellEnd::Signaled),
            Just(CellEnd::Killed),
        ]
    }

    proptest! {
        #[test]
        fn precedence_holds_for_every_combination(
            end in ends(), oom: bool, cpu: bool, killed in 0..3,
        ) {
            let killed = [None, Some(Killed::TimedOut), Some(Killed::Cancelled)][killed as usize];
            let facts = Facts { end: end.clone(), oom_killed: oom, cpu_exceeded: cpu, killed };
            let verdict = judge(&facts).unwrap();
            let ours = matches!(end, CellEnd::Killed | CellEnd::Signaled(9));
            match verdict.outcome {
                Outcome::TimedOut => prop_assert!(ours && killed == Some(Killed::TimedOut)),
                Outcome::Cancelled => prop_assert!(ours && killed != Some(Killed::TimedOut)),
                Outcome::OomKilled => prop_assert!(oom && !(ours && killed.is_some())),
                Outcome::Signaled => prop_assert!(!oom && (cpu || matches!(end, CellEnd::Signaled(_)))),
                Outcome::Exited => {
                    prop_assert!(!oom && !cpu);
                    prop_assert_eq!(end, CellEnd::Exited(verdict.exit_code));
                }
            }
            prop_assert_eq!(verdict.signal.is_some(), verdict.outcome == Outcome::Signaled);
        }
    }
}
