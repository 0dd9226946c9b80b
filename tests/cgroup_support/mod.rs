//! What the tests of groups share: hosts to run on, children inside cells, and waits that end.

// Each test program compiles this and uses its part of it.
#![allow(dead_code)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cellblock::cgroup::{CellGroup, CgroupHost, Mode, RuntimeGroup, State};
use cellblock::resources::{CellResources, MIB, RuntimeResources};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};

/// Limits that are in nobody's way.
pub const RUNTIME: RuntimeResources = RuntimeResources {
    memory_bytes: 512 * MIB,
    pids: 200,
    cpu_millis: 2000,
};
/// The same for a cell.
pub const CELL: CellResources = CellResources {
    memory_bytes: 128 * MIB,
    pids: 64,
    cpu_secs: None,
};

/// How long anything may take that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// A host whose groups are gone after the test, failed or not.
pub struct Host {
    host: CgroupHost,
    instance: String,
}

impl Deref for Host {
    type Target = CgroupHost;
    fn deref(&self) -> &CgroupHost {
        &self.host
    }
}

impl Host {
    /// With base groups.
    pub fn prepared(&self) -> &CgroupHost {
        self.host.prepare().unwrap();
        &self.host
    }

    /// The same instance, as a later server finds it.
    pub fn again(&self) -> CgroupHost {
        match self.mode() {
            Mode::V1 => CgroupHost::discover_v1(&self.instance),
            _ => CgroupHost::discover(&self.instance),
        }
        .unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = self.host.remove_base()
            && !std::thread::panicking()
        {
            panic!("{error}: {:?}", std::error::Error::source(&error));
        }
    }
}

/// The hosts that a test runs on, with groups of its own; none, said so and counted, where it
/// can't.
pub fn hosts(test: &str) -> Vec<Host> {
    let name = |kind: &str| format!("test-{}-{kind}-{test}", std::process::id());
    let mut hosts = Vec::new();
    let mut offer = |instance: String, found: CgroupHost| {
        let lacks = found
            .facilities()
            .into_iter()
            .find_map(|facility| match facility.state {
                State::Missing { remedy } => Some(format!("{} ({remedy})", facility.name)),
                State::Available(_) => None,
            });
        let root = nix::unistd::geteuid().is_root();
        let lacks = if root { lacks } else { Some("root".to_owned()) };
        match lacks {
            None => hosts.push(Host {
                host: found,
                instance,
            }),
            Some(lacks) => {
                let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
                eprintln!(
                    "skipped: {test} on {:?} needs {lacks}; {count} so far",
                    found.mode()
                );
            }
        }
    };
    let found = CgroupHost::discover(&name("all")).unwrap();
    let mode = found.mode();
    offer(name("all"), found);
    if mode == Mode::Hybrid {
        offer(name("v1"), CgroupHost::discover_v1(&name("v1")).unwrap());
    }
    hosts
}

/// Runs a shell script inside a cell. It joins through the cell's own open files, as a cell's init
/// does, with our fds reached by /proc.
pub fn run(cell: &CellGroup, script: &str) -> Child {
    let fd = |fd: i32| format!("/proc/{}/fd/{fd}", std::process::id());
    let mut files: Vec<_> = cell
        .attach()
        .iter()
        .map(|file| fd(file.as_raw_fd()))
        .collect();
    files.extend(
        cell.clone_into()
            .map(|dir| fd(dir.as_raw_fd()) + "/cgroup.procs"),
    );
    let join = format!(
        "for f in {}; do echo 0 > $f || exit 99; done\n{script}",
        files.join(" ")
    );
    let mut command = Command::new("sh");
    command
        .args(["-c", &join])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command.spawn().unwrap()
}

/// All lines that the child prints until nobody holds its output any more.
pub fn lines(child: &mut Child) -> Vec<String> {
    BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .collect()
}

/// Reads until so many lines have come.
pub fn until_lines(child: &mut Child, count: usize) {
    let pipe = child.stdout.as_mut().unwrap();
    let mut seen = 0;
    let mut byte = [0u8];
    while seen < count {
        assert!(readable(pipe), "the child says nothing");
        assert_eq!(
            pipe.read(&mut byte).unwrap(),
            1,
            "the child ended too early"
        );
        seen += usize::from(byte[0] == b'\n');
    }
}

/// Whether everybody who holds the child's output ends: the end of the pipe comes with the last
/// process.
pub fn ends(child: &mut Child) -> bool {
    let pipe = child.stdout.as_mut().unwrap();
    let mut rest = [0u8; 4096];
    while readable(pipe) {
        if pipe.read(&mut rest).unwrap() == 0 {
            return true;
        }
    }
    false
}

fn readable(pipe: &impl AsFd) -> bool {
    let timeout = PollTimeout::try_from(PATIENCE).unwrap();
    poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout).unwrap() == 1
}

/// Waits as the warden does; whether an out-of-memory event came.
pub fn wait_for_event(cell: &CellGroup, timeout: Duration) -> bool {
    let (fd, events) = cell
        .oom_source()
        .expect("this host can't tell of OOM at once");
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    epoll.add(fd, EpollEvent::new(events, 0)).unwrap();
    let timeout = EpollTimeout::try_from(timeout).unwrap();
    epoll.wait(&mut [EpollEvent::empty()], timeout).unwrap() == 1
}

/// The text of the one file of this name in some directories.
pub fn file_of(dirs: &[PathBuf], name: &str) -> Option<String> {
    let file = dirs
        .iter()
        .map(|dir| dir.join(name))
        .find(|path| path.exists())?;
    Some(fs::read_to_string(file).unwrap().trim().to_owned())
}

/// How many processes a cell holds.
pub fn members(cell: &CellGroup) -> usize {
    file_of(cell.directories(), "cgroup.procs")
        .unwrap()
        .lines()
        .count()
}

/// Waits until the kernel says that all have stopped.
pub fn wait_frozen(runtime: &RuntimeGroup, cell: &CellGroup) {
    let deadline = Instant::now() + PATIENCE;
    let frozen = || {
        let v2 = file_of(&runtime.directories(), "cgroup.events");
        let v1 = file_of(cell.directories(), "freezer.state");
        v2.is_some_and(|text| text.contains("frozen 1")) || v1.is_some_and(|text| text == "FROZEN")
    };
    while !frozen() {
        assert!(Instant::now() < deadline, "it does not freeze");
        std::thread::yield_now();
    }
}

/// Removes a cell's groups as the warden does, again until its killed processes are gone: a process
/// closes its files a moment before it leaves its groups.
pub fn removed(cell: &CellGroup) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if cell.remove().unwrap() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}
