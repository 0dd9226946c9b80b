//! A cgroup of a test's own, tighter than anything in it likes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The root of a controller's hierarchy, of either version.
pub fn root(controller: &str) -> Option<PathBuf> {
    let own = Path::new("/sys/fs/cgroup").join(controller);
    if own.join("cgroup.procs").exists() {
        return Some(own);
    }
    let all = PathBuf::from("/sys/fs/cgroup");
    let handed_down = fs::read_to_string(all.join("cgroup.subtree_control")).ok()?;
    let has = handed_down
        .split_whitespace()
        .any(|word| word == controller);
    has.then_some(all)
}

/// See the module. What is in it at the end goes back to the root.
pub struct Tight(PathBuf);

impl Tight {
    /// A new one, without a limit.
    pub fn new(controller: &str) -> Tight {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tight-{}-{number}", std::process::id());
        let path = root(controller).expect("the controller").join(name);
        fs::create_dir(&path).expect("make a cgroup");
        Tight(path)
    }

    /// At most so many bytes, swap included.
    pub fn memory(&self, bytes: u64) {
        let old = self.0.join("memory.limit_in_bytes");
        if old.exists() {
            fs::write(old, bytes.to_string()).expect("limit memory");
            // Kernels without swap accounting lack it.
            let _ = fs::write(
                self.0.join("memory.memsw.limit_in_bytes"),
                bytes.to_string(),
            );
        } else {
            fs::write(self.0.join("memory.max"), bytes.to_string()).expect("limit memory");
            let _ = fs::write(self.0.join("memory.swap.max"), "0");
        }
    }

    /// At most so many processes and threads.
    pub fn pids(&self, most: &str) {
        fs::write(self.0.join("pids.max"), most).expect("limit processes");
    }

    /// Takes a process in.
    pub fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("move a process");
    }
}

impl Drop for Tight {
    fn drop(&mut self) {
        let members = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        let above = self.0.parent().expect("the root").join("cgroup.procs");
        for pid in members.lines() {
            // It may have ended.
            let _ = fs::write(&above, pid);
        }
        let gone = super::timing::eventually(super::timing::bound(5_000), || {
            fs::remove_dir(&self.0).is_ok()
        });
        if !gone {
            eprintln!("left {} behind", self.0.display());
        }
    }
}
