//! What a cell has used: CPU time, and the peaks of memory and processes.

use std::path::{Path, PathBuf};

use super::error::CgroupError;
use super::files;
use crate::resources::Usage;

/// Where CPU time is read from.
#[derive(Debug)]
pub(super) enum CpuClock {
    /// `cpu.stat` of a version 2 group: there for every group, with or without the controller
    /// (4.15).
    Stat(PathBuf),
    /// `cpuacct.*` of a version 1 group.
    Acct(PathBuf),
    /// The host has neither; the facility "usage" says so.
    None,
}

/// CPU time in microseconds: user, system, both.
type CpuTimes = (u64, u64, u64);

impl CpuClock {
    /// User and system time together, in microseconds: one file.
    pub(super) fn total_us(&self) -> Result<u64, CgroupError> {
        match self {
            Self::Stat(dir) => Ok(stat(dir)?.2),
            Self::Acct(dir) => Ok(files::read_number(dir, "cpuacct.usage")? / 1000),
            Self::None => Ok(0),
        }
    }

    fn times(&self) -> Result<CpuTimes, CgroupError> {
        match self {
            Self::Stat(dir) => stat(dir),
            Self::Acct(dir) => {
                let read = |name| Ok::<_, CgroupError>(files::read_number(dir, name)? / 1000);
                let user = read("cpuacct.usage_user")?;
                let system = read("cpuacct.usage_sys")?;
                Ok(split(self.total_us()?, user, system))
            }
            Self::None => Ok((0, 0, 0)),
        }
    }
}

fn stat(dir: &Path) -> Result<CpuTimes, CgroupError> {
    let text = files::read(dir, "cpu.stat")?;
    parse_stat(&text).ok_or_else(|| CgroupError::Format {
        path: dir.join("cpu.stat"),
        found: text,
    })
}

fn parse_stat(text: &str) -> Option<CpuTimes> {
    let value = |key| files::value_of(text, key);
    Some((
        value("user_usec")?,
        value("system_usec")?,
        value("usage_usec")?,
    ))
}

// On version 1 the sum is exact and the parts are counted by clock ticks, so that a short command
// may show none of either, or more than it used. Their ratio divides the sum, which is what the kernel
// itself does for version 2 (`cputime_adjust`).
fn split(total: u64, user: u64, system: u64) -> CpuTimes {
    let ticks = u128::from(user) + u128::from(system);
    let share = (u128::from(total) * u128::from(system))
        .checked_div(ticks)
        .unwrap_or(0);
    let system = u64::try_from(share).unwrap_or(total);
    (total - system, system, total)
}

/// Reads everything. `memory`: the group and whether it is version 2. `pids`: the group; the cell's
/// init is taken off.
pub(super) fn read(
    cpu: &CpuClock,
    memory: Option<(&Path, bool)>,
    pids: Option<&Path>,
) -> Result<Usage, CgroupError> {
    let (user_us, system_us, cpu_us) = cpu.times()?;
    let peak_memory_bytes = match memory {
        None => 0,
        Some((dir, false)) => files::read_number(dir, "memory.max_usage_in_bytes")?,
        Some((dir, true)) => match files::read_number_if_there(dir, "memory.peak")? {
            Some(peak) => peak,
            // Before 5.19: what is charged still is the least that the peak can have been.
            None => files::read_number(dir, "memory.current")?,
        },
    };
    // pids.peak came with 6.1, on both versions.
    let peak_pids = match pids {
        None => None,
        Some(dir) => files::read_number_if_there(dir, "pids.peak")?,
    };
    let peak_pids = peak_pids.map(|peak| peak.saturating_sub(super::INIT_PIDS));
    Ok(Usage {
        user_us,
        system_us,
        cpu_us,
        peak_memory_bytes,
        peak_pids,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_stat_is_read_by_key() {
        let text = "usage_usec 12\nuser_usec 7\nsystem_usec 5\nnr_periods 1\ncore_sched.x 3\n";
        assert_eq!(parse_stat(text), Some((7, 5, 12)));
        assert_eq!(parse_stat("usage_usec 12\nuser_usec 7\n"), None);
        assert_eq!(
            parse_stat("usage_usec x\nuser_usec 7\nsystem_usec 5\n"),
            None
        );
    }

    #[test]
    fn sampled_parts_are_fitted_to_the_exact_sum() {
        assert_eq!(split(1000, 0, 0), (1000, 0, 1000));
        assert_eq!(split(1000, 4000, 0), (1000, 0, 1000));
        assert_eq!(split(1000, 3000, 1000), (750, 250, 1000));
        assert_eq!(split(u64::MAX, 0, u64::MAX), (0, u64::MAX, u64::MAX));
        assert_eq!(split(0, 5, 5), (0, 0, 0));
    }
}
