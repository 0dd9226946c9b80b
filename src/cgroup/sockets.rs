//! Buffers of sockets beyond a version 2 group's memory limit.
//!
//! What comes to a socket over loopback is charged in interrupt context, where the kernel can neither reclaim nor kill and
//! charges all the same (`try_charge_memcg`, GFP_ATOMIC; seen on 6.12). It makes that good at the next charge of a usual kind,
//! which processes that only send, or sleep, may never cause. Version 1 counts such buffers apart, with a limit that holds.

use std::path::Path;

use super::error::CgroupError;
use super::files;

/// So much beyond the limit is the usual to and fro: the kernel charges ahead for each processor, and packets come in bursts.
const USUAL: u64 = 8 << 20;

/// Bytes that sockets of a group and of those below it hold.
pub(super) fn held(dir: &Path) -> Result<u64, CgroupError> {
    let stat = files::read(dir, "memory.stat")?;
    Ok(files::value_of(&stat, "sock").unwrap_or(0))
}

/// Whether a group is beyond its limit and its sockets alone hold more than that: then nothing can be reclaimed in their place.
pub(super) fn beyond_limit(dir: &Path) -> Result<bool, CgroupError> {
    let limit = files::read(dir, "memory.max")?;
    // It is "max" where there is none.
    let Ok(limit) = limit.trim().parse::<u64>() else {
        return Ok(false);
    };
    // First, since it costs less.
    let used = files::read_number(dir, "memory.current")?;
    Ok(used > limit.saturating_add(USUAL) && held(dir)? > limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_beyond_the_whole_limit_count() {
        let group = tempfile::TempDir::new().unwrap();
        let beyond = |limit: &str, used: u64, sock: u64| {
            let stat = format!("anon 5\nfile 7\nsock {sock}\nsock_throttled 9999999999\n");
            for (name, text) in [
                ("memory.max", format!("{limit}\n")),
                ("memory.current", format!("{used}\n")),
                ("memory.stat", stat),
            ] {
                std::fs::write(group.path().join(name), text).unwrap();
            }
            beyond_limit(group.path()).unwrap()
        };
        let mib = 1 << 20;
        assert!(beyond("67108864", 90 * mib, 70 * mib));
        assert!(!beyond("67108864", 90 * mib, 60 * mib));
        assert!(!beyond("67108864", 70 * mib, 68 * mib));
        assert!(!beyond("max", 90 * mib, 70 * mib));
    }
}
