//! Ends every process of a group, whatever it does against it: stopped, frozen, forking.
//!
//! `cgroup.kill` (5.14) does all of it at once in a version 2 tree. Without it: freeze so that
//! nobody forks, SIGKILL all, thaw so that they die, until no new process shows up.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::CgroupError;
use super::files;
use super::freeze::Freezer;

/// How long a group may take to become empty. A killed process in uninterruptible sleep may take
/// its time.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the kill loop chases a group that forks faster than it reads.
const CHASE: Duration = Duration::from_secs(5);

/// Kills a version 2 group and all groups below it.
pub(super) fn kill_v2(dir: &Path) -> Result<(), CgroupError> {
    if files::write_if_there(dir, "cgroup.kill", "1")? || !dir.exists() {
        return Ok(());
    }
    for group in tree(dir)? {
        kill_loop(&group, Some(Freezer::V2))?;
    }
    Ok(())
}

/// Kills the processes of one group, not of those below, where the kernel can't do it by itself.
pub(super) fn kill_loop(dir: &Path, freezer: Option<Freezer>) -> Result<(), CgroupError> {
    let start = Instant::now();
    let mut killed = HashSet::new();
    loop {
        // A process with a pending SIGKILL can't fork any more, so that no news is the end.
        if files::processes(dir)?
            .iter()
            .all(|pid| killed.contains(pid))
        {
            return Ok(());
        }
        if start.elapsed() > CHASE {
            return Err(CgroupError::Busy {
                path: dir.to_path_buf(),
                after: CHASE,
            });
        }
        if let Some(freezer) = freezer {
            freezer.set(dir, true)?;
        }
        let result = kill_listed(dir, &mut killed);
        // Thaw whatever happened: a frozen process of version 1 does not even die.
        if let Some(freezer) = freezer {
            freezer.set(dir, false)?;
        }
        result?;
    }
}

fn kill_listed(dir: &Path, killed: &mut HashSet<i32>) -> Result<(), CgroupError> {
    for pid in files::processes(dir)? {
        if killed.insert(pid) {
            kill_one(dir, pid)?;
        }
    }
    Ok(())
}

fn kill_one(dir: &Path, pid: i32) -> Result<(), CgroupError> {
    // Never 0 (the own process group), never init, never ourselves, whatever the file says.
    if pid <= 1 || pid.unsigned_abs() == std::process::id() {
        return Ok(());
    }
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(CgroupError::io("kill a process of", dir)(errno.into())),
    }
}

/// The group and all below it, the deepest first.
pub(super) fn tree(dir: &Path) -> Result<Vec<std::path::PathBuf>, CgroupError> {
    let mut found = vec![dir.to_path_buf()];
    let mut next = 0;
    while let Some(group) = found.get(next) {
        let below = files::children(group)?;
        found.extend(below);
        next += 1;
    }
    found.reverse();
    Ok(found)
}

/// Removes the groups below `dir` (and `dir` itself if asked), waiting for killed processes to be
/// gone.
pub(super) fn remove_tree(dir: &Path, with_top: bool) -> Result<(), CgroupError> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(200);
    for group in tree(dir)? {
        if !with_top && group == dir {
            continue;
        }
        // Version 1 tells nobody when a group becomes empty (but a release agent), so ask in
        // growing intervals.
        while !files::remove(&group)? {
            if start.elapsed() > PATIENCE {
                return Err(CgroupError::Busy {
                    path: group,
                    after: PATIENCE,
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_lists_children_before_parents() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(top.path().join("a/b/c")).unwrap();
        std::fs::write(top.path().join("a/file"), "").unwrap();
        let found = tree(top.path()).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|p| p.strip_prefix(top.path()).unwrap())
            .collect();
        assert_eq!(
            names,
            [
                Path::new("a/b/c"),
                Path::new("a/b"),
                Path::new("a"),
                Path::new("")
            ]
        );
    }

    #[test]
    fn what_must_not_be_killed_is_not() {
        // If one of these were signalled, this test would not live to tell.
        for pid in [0, 1, -1, i32::try_from(std::process::id()).unwrap()] {
            kill_one(Path::new("/none"), pid).unwrap();
        }
    }
}
