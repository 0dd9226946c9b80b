//! Processes as the host sees them: what proves that something is really gone, or really there.

use super::timing::Raise;
use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Every process id of this pid namespace.
pub fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("list /proc");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// A process and everything below it, itself first. One look; processes come and go meanwhile.
pub fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for pid in all() {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let below = children.remove(&found[next]).unwrap_or_default();
        found.extend(below);
        next += 1;
    }
    found
}

/// The children of a process, zombies too. One look at every process there is.
pub fn children(of: u32) -> Vec<u32> {
    let child = |pid: &u32| parent(*pid) == Some(of);
    all().into_iter().filter(child).collect()
}

/// The children of a process with one thread, as the kernel lists them: at once, for who must be quick. It leaves some out
/// when one of them ends meanwhile (proc_pid_task(5)).
pub fn listed_children(of: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    let numbers = text.split_whitespace();
    numbers.filter_map(|number| number.parse().ok()).collect()
}

/// The threads of a process; none if it is gone.
pub fn threads(pid: u32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    let entries = entries.into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// The parent of a process.
pub fn parent(pid: u32) -> Option<u32> {
    stat_field(pid, 1)?.parse().ok()
}

/// The state letter of a process, `Z` for a zombie.
pub fn state(pid: u32) -> Option<char> {
    stat_field(pid, 0)?.chars().next()
}

/// Processor time of a process and its threads, in clock ticks.
pub fn cpu_ticks(pid: u32) -> Option<u64> {
    let ticks = |index| stat_field(pid, index)?.parse::<u64>().ok();
    Some(ticks(11)? + ticks(12)?)
}

/// A field of `/proc/PID/stat` counted from the state, which is 0: the name before it may hold anything.
fn stat_field(pid: u32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?
        .1
        .split(' ')
        .nth(index)
        .map(str::to_owned)
}

/// Value of a line of `/proc/PID/status`.
pub fn status(pid: u32, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status_value(&text, key)
}

/// Value of a line of a status file's text.
pub fn status_value(text: &str, key: &str) -> Option<String> {
    let line = text
        .lines()
        .find(|line| line.split(':').next() == Some(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Where processes are that should be gone: for the message of a failed test.
pub fn whereabouts(pids: &[u32]) -> String {
    let read = |path: String| fs::read_to_string(path).unwrap_or_default();
    let one = |pid: &u32| {
        let [name, shared, own] = ["Name", "ShdPnd", "SigPnd"].map(|key| status(*pid, key));
        let state = state(*pid);
        let [wait, stack, groups] =
            ["wchan", "stack", "cgroup"].map(|file| read(format!("/proc/{pid}/{file}")));
        let group = groups.lines().find_map(|line| line.split_once(":freezer:"));
        let (_, group) = group.unwrap_or_default();
        let frozen = read(format!("/sys/fs/cgroup/freezer{group}/freezer.state"));
        format!(
            "{pid} {name:?} {state:?} pending {shared:?} {own:?} in {wait}\n{stack}freezer {group}: {frozen}"
        )
    };
    pids.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// Effective uid of a process.
pub fn uid(pid: u32) -> Option<u32> {
    status(pid, "Uid")?.split_whitespace().nth(1)?.parse().ok()
}

/// Resident memory of a process in bytes, 0 if it is gone.
pub fn rss(pid: u32) -> u64 {
    let text = status(pid, "VmRSS").unwrap_or_default();
    text.split_whitespace()
        .next()
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

/// How much more memory the server's two processes had at the worst moment of some work than before it, in bytes.
pub fn growth(server: &super::Server, work: impl FnOnce()) -> u64 {
    let pids = [server.api_pid(), server.warden_pid()];
    let both = || pids.iter().map(|pid| rss(*pid)).sum::<u64>();
    let before = both();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = both();
            while !done.load(Ordering::Relaxed) {
                most = most.max(both());
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        let ended = Raise(&done);
        work();
        drop(ended);
        watcher.join().expect("no panic").saturating_sub(before)
    })
}

/// Living processes with this exact argument.
pub fn with_arg(arg: &str) -> Vec<u32> {
    let has = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|word| word == arg.as_bytes())
    };
    all()
        .into_iter()
        .filter(has)
        .filter(|pid| state(*pid) != Some('Z'))
        .collect()
}

/// Processes (zombies too) whose uid is in a range.
pub fn in_uids(range: &Range<u32>) -> Vec<u32> {
    all()
        .into_iter()
        .filter(|pid| uid(*pid).is_some_and(|uid| range.contains(&uid)))
        .collect()
}

/// Whether a process is of a cell that no command has come to: it executes nothing but the service's own program, and of its
/// two processes the one that is not init waits for its order, or is not there yet.
pub fn is_parked(pid: u32) -> bool {
    let own = |pid: u32| {
        let program = fs::read_link(format!("/proc/{pid}/exe"));
        program.is_ok_and(|path| path.to_string_lossy().starts_with("/memfd:cellblock"))
    };
    let waits = |pid: u32| {
        let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        let number = call
            .split(' ')
            .next()
            .and_then(|number| number.parse().ok());
        number == Some(libc::SYS_recvmsg)
    };
    if !own(pid) {
        return false;
    }
    match children(pid).as_slice() {
        [] => waits(pid),
        [payload] => own(*payload) && waits(*payload),
        _ => false,
    }
}

/// Host uids of the user namespace a process lives in.
pub fn uid_ranges(pid: u32) -> Vec<Range<u32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap_or_default();
    let line = |line: &str| {
        let numbers: Vec<u64> = line
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        let [_, outside, length] = numbers.try_into().ok()?;
        Some(outside as u32..(outside + length).min(u64::from(u32::MAX)) as u32)
    };
    text.lines().filter_map(line).collect()
}

/// A sleeping time that no other process on this machine has as an argument: `sleep $(marker)` can be found from
/// outside, and the command still means "for a long time".
pub fn marker() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!(
        "1000.{}{:04}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}
