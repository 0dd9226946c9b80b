//! The least that a cell can cost: a loop as one would write it in C. Its own namespaces, all of them, and its own cgroups, a
//! `/proc` and a `/tmp`, and then the program. No seccomp filter, no capability dropped, nothing masked, no disk, no limit, no
//! output, no record, no HTTP: what a server needs beside this is for those, and for being a server.

use cellblock::sys::{Cloned, clone3, exit_now};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where its groups go.
pub struct Floor {
    /// Of version 1, with memory and pids.
    v1: Vec<PathBuf>,
    v2: Option<PathBuf>,
    next: AtomicUsize,
}

impl Floor {
    /// Makes the groups in which those of the cells will be.
    pub fn new() -> Floor {
        let own = format!("cellblock-bench-{}", std::process::id());
        let base = Path::new("/sys/fs/cgroup");
        let make = |hierarchy: PathBuf| {
            let group = hierarchy.join(&own);
            fs::create_dir(&group).ok().map(|()| group)
        };
        let v1 = ["memory", "pids"].map(|name| base.join(name));
        let v1 = v1.into_iter().filter(|hierarchy| hierarchy.is_dir());
        let v2 = [base.join("unified"), base.to_owned()];
        let mut v2 = v2
            .into_iter()
            .filter(|dir| dir.join("cgroup.controllers").exists());
        Floor {
            v1: v1.filter_map(make).collect(),
            v2: v2.next().and_then(make),
            next: AtomicUsize::new(0),
        }
    }

    /// Runs a program in a cell of its own, to its end.
    pub fn run(&self, program: &[&str]) {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let groups: Vec<PathBuf> = self
            .v1
            .iter()
            .chain(&self.v2)
            .map(|group| group.join(&name))
            .collect();
        groups
            .iter()
            .for_each(|group| fs::create_dir(group).expect("make a group"));
        let joined = &groups[..self.v1.len()];
        let procs: Vec<File> = joined
            .iter()
            .map(|group| {
                File::options()
                    .write(true)
                    .open(group.join("tasks"))
                    .expect("open a group")
            })
            .collect();
        let v2 = self
            .v2
            .as_ref()
            .map(|group| File::open(group.join(&name)).expect("open a group"));
        let program: Vec<CString> = program
            .iter()
            .map(|word| CString::new(*word).expect("no NUL"))
            .collect();
        let null = File::options()
            .write(true)
            .open("/dev/null")
            .expect("open /dev/null");
        /// As in `cellblock::cell`.
        const CLONE_NEWTIME: i32 = 0x80;
        let flags = libc::CLONE_NEWPID
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWNS
            | CLONE_NEWTIME;
        match clone3(flags, v2.as_ref().map(AsFd::as_fd)).expect("clone") {
            // Other threads may hold the allocator's lock: nothing here allocates.
            Cloned::Child => {
                let joined = procs
                    .iter()
                    .all(|file| nix::unistd::write(file, b"0").is_ok());
                let silent = nix::unistd::dup2_stdout(&null).is_ok();
                let own = unshare(CloneFlags::CLONE_NEWCGROUP).is_ok();
                let none: Option<&str> = None;
                let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
                let mounted = mount(none, "/", none, private, none).is_ok()
                    && mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).is_ok()
                    && mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::empty(), none).is_ok();
                if joined && silent && own && mounted {
                    let argv: [*const libc::c_char; 5] = std::array::from_fn(|at| {
                        program
                            .get(at)
                            .map_or(std::ptr::null(), |word| word.as_ptr())
                    });
                    let env = [std::ptr::null()];
                    // SAFETY: both end in a null pointer (programs have at most four words), and the strings outlive the call.
                    unsafe { libc::execve(argv[0], argv.as_ptr(), env.as_ptr()) };
                }
                exit_now(1)
            }
            Cloned::Parent { pid, .. } => {
                let end = waitpid(pid, None).expect("wait");
                assert!(
                    matches!(end, nix::sys::wait::WaitStatus::Exited(_, 0)),
                    "{end:?}"
                );
            }
        }
        // Busy for a moment after its last process.
        for group in &groups {
            while fs::remove_dir(group)
                .is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
            {
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        for group in self.v1.iter().chain(&self.v2) {
            let _ = fs::remove_dir(group);
        }
    }
}
