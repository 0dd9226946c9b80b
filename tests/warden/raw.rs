//! The warden alone, with the test in everybody else's place: it starts `cellblock role:warden` with the descriptors that
//! the supervisor would give it (`roles::fds`) and keeps the other ends, so that each packet is the test's own and its answer
//! comes to nobody else.

use crate::support::mounts::TestDir;
use crate::support::{bound, eventually, leaks, mounts, procs};
use cellblock::cell::command::Command as Line;
use cellblock::resources::{CellResources, MIB, RuntimeResources};
use cellblock::roles::{PING, PONG, READY};
use cellblock::sys::packet::{self, Packet};
use cellblock::warden::memfd;
use cellblock::warden::protocol::{
    CellEnd, CellRequest, Filesystem, MAX_MESSAGE, Reply, Request, RuntimeSpec,
};
use cellblock::warden::server::Settings;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use uuid::Uuid;

/// How many runtimes there may be.
pub const RANGES: u32 = 16;
/// First host uid of the block: the service's default.
pub const UID_BASE: u32 = cellblock::config::DEFAULT_UID_BASE;
/// What only root of the host may read, in the file `secret` of the host's tree.
pub const SECRET: &str = "only the host knows this";

/// A warden and all that is the other side's.
pub struct Raw {
    child: RefCell<Child>,
    /// Its process id.
    pub pid: u32,
    /// The api process's end.
    pub link: OwnedFd,
    control: OwnedFd,
    instance: String,
    dir: TestDir,
    next: Cell<u64>,
    /// Replies that nobody has asked for yet.
    kept: RefCell<Vec<(Reply, Vec<OwnedFd>)>>,
    /// A runtime whose cells show that all is well.
    pub runtime: Uuid,
    before: RefCell<Option<State>>,
}

/// What must not change, whatever is asked for.
#[derive(Debug, PartialEq, Eq)]
struct State {
    fds: BTreeMap<String, usize>,
    own_mounts: Vec<mounts::Mount>,
    host: Vec<(PathBuf, String)>,
    loops: usize,
    directories: Vec<String>,
}

/// What became of a command.
#[derive(Debug)]
pub struct Ran {
    pub out: Vec<u8>,
    pub err: Vec<u8>,
    pub end: CellEnd,
}

impl Ran {
    /// Its output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

/// Puts descriptors at the numbers from 3 on.
fn hand_over(command: &mut Command, fds: [OwnedFd; 4]) {
    // Out of the way of those numbers first.
    let high = fds.map(|fd| cellblock::sys::dup_above(fd.as_fd(), 64).expect("dup"));
    // SAFETY: dup2(2) is async-signal-safe and takes numbers only.
    unsafe {
        command.pre_exec(move || {
            for (fd, number) in high.iter().zip(3..) {
                if libc::dup2(fd.as_raw_fd(), number) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

impl Raw {
    /// Starts one on a data directory of its own, makes a runtime and runs a first command in it.
    pub fn start() -> Raw {
        let dir = TestDir::new();
        let data = dir.path().join("data");
        fs::create_dir(&data).expect("make the data directory");
        host_tree(&dir.path().join("host"));
        let random = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a random name");
        let instance = random[..8].to_owned();
        let settings = Settings {
            data_dir: data.clone(),
            instance: instance.clone(),
            profiles_dir: None,
            uid_base: UID_BASE,
            uid_ranges: RANGES,
            max_vcpus: 1,
            log_format: cellblock::config::LogFormat::Text,
        };
        let settings = serde_json::to_vec(&settings).expect("plain data");
        let settings = memfd::seal(c"settings", &settings).expect("a memfd");
        cellblock::sys::packet::pair().expect("sockets");
        let (control, its_control) = packet::pair().expect("sockets");
        let (link, its_link) = packet::pair().expect("sockets");
        let lock = File::create(data.join("lock")).expect("make the lock");
        let log = File::create(dir.path().join("log")).expect("make the log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_cellblock"));
        command.arg("role:warden").env_clear().stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(log);
        rewind(&settings);
        hand_over(&mut command, [its_control, its_link, settings, lock.into()]);
        let child = command.spawn().expect("start the warden");
        // With it go this process's copies of the warden's ends.
        drop(command);
        let raw = Raw {
            pid: child.id(),
            child: child.into(),
            link,
            control,
            instance,
            dir,
            next: 1.into(),
            kept: RefCell::default(),
            runtime: Uuid::now_v7(),
            before: RefCell::default(),
        };
        let mut buffer = [0; 16];
        assert!(readable(&raw.control, bound(60_000)), "{}", raw.log());
        let word = packet::receive(raw.control.as_fd(), &mut buffer).expect("its word");
        let length = word.map_or(0, |packet| packet.length);
        assert_eq!(&buffer[..length], READY, "{}", raw.log());
        raw.create(raw.runtime, Filesystem::ReadOnly);
        assert_eq!(raw.sh(raw.runtime, "echo well").text(), "well\n");
        // The first command's namespaces are held for a moment.
        let mut last = raw.state();
        let calm = eventually(bound(20_000), || {
            std::thread::sleep(bound(500));
            let now = raw.state();
            let same = now == last;
            last = now;
            same && !last.fds.keys().any(|kind| kind.starts_with("net:"))
        });
        assert!(calm, "it never comes to rest: {last:?}");
        raw.before.replace(Some(last));
        raw
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A directory of the host's, which nothing of the service has to do with.
    pub fn host(&self) -> PathBuf {
        self.dir.path().join("host")
    }

    /// All that it printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A number that no request has had.
    pub fn seq(&self) -> u64 {
        let seq = self.next.get();
        self.next.set(seq + 1);
        seq
    }

    /// Sends a packet as it is.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        packet::send(self.link.as_fd(), bytes, fds).expect("send to the warden");
    }

    /// Sends a JSON text, with this one's number in it, and gives the number. `seq` in the object is overwritten.
    pub fn send_json(&self, mut message: Value, fds: &[BorrowedFd<'_>]) -> u64 {
        let seq = self.seq();
        message["seq"] = json!(seq);
        self.send(message.to_string().as_bytes(), fds);
        seq
    }

    /// Asks and takes the answer.
    #[track_caller]
    pub fn ask(&self, message: Value, fds: &[BorrowedFd<'_>]) -> Reply {
        let seq = self.send_json(message, fds);
        self.reply(seq).0
    }

    /// Asks what must be refused, and gives the failure as JSON.
    #[track_caller]
    pub fn refused(&self, message: Value, fds: &[BorrowedFd<'_>]) -> Value {
        let shown = message.to_string();
        match self.ask(message, fds) {
            Reply::Failed { failure, .. } => serde_json::to_value(failure).expect("plain data"),
            other => panic!("{shown}: {other:?}"),
        }
    }

    /// The next reply to a request of this number, with what came beside it.
    #[track_caller]
    pub fn reply(&self, seq: u64) -> (Reply, Vec<OwnedFd>) {
        let mut kept = self.kept.borrow_mut();
        if let Some(at) = kept.iter().position(|(reply, _)| number(reply) == seq) {
            return kept.remove(at);
        }
        loop {
            let (reply, fds) = self.next_reply(bound(60_000)).unwrap_or_else(|| {
                panic!("no answer to {seq}:\n{}", self.log());
            });
            if number(&reply) == seq {
                return (reply, fds);
            }
            kept.push((reply, fds));
        }
    }

    /// The next reply to whatever it is; none within `limit`.
    pub fn next_reply(&self, limit: Duration) -> Option<(Reply, Vec<OwnedFd>)> {
        if !readable(&self.link, limit) {
            return None;
        }
        let mut buffer = [0; MAX_MESSAGE];
        let Packet { length, fds } = packet::receive(self.link.as_fd(), &mut buffer)
            .expect("a packet of the warden's")
            .unwrap_or_else(|| panic!("the warden has ended:\n{}", self.log()));
        let reply = serde_json::from_slice(&buffer[..length]).expect("a reply");
        Some((reply, fds))
    }

    /// Asserts that nothing is answered to what was sent so far: the next answer is that to a question that comes after it.
    #[track_caller]
    pub fn assert_silent(&self, what: &str) {
        assert!(self.kept.borrow().is_empty(), "{what}: answered before");
        let seq = self.send_json(json!({"type": "list_runtimes", "after": null}), &[]);
        let (reply, _) = self
            .next_reply(bound(60_000))
            .unwrap_or_else(|| panic!("{what}: it does not answer any more:\n{}", self.log()));
        assert_eq!(number(&reply), seq, "{what} was answered: {reply:?}");
    }

    /// What the supervisor asks.
    #[track_caller]
    pub fn assert_lives(&self) {
        packet::send(self.control.as_fd(), PING, &[]).expect("ask");
        assert!(readable(&self.control, bound(20_000)), "{}", self.log());
        let mut buffer = [0; 16];
        let word = packet::receive(self.control.as_fd(), &mut buffer).expect("its word");
        assert_eq!(&buffer[..word.map_or(0, |packet| packet.length)], PONG);
    }

    /// Makes a runtime of the image `host`.
    #[track_caller]
    pub fn create(&self, id: Uuid, filesystem: Filesystem) {
        let reply = self.ask(create(id, filesystem), &[]);
        assert!(matches!(reply, Reply::Created { .. }), "{reply:?}");
    }

    /// Runs a shell line.
    #[track_caller]
    pub fn sh(&self, runtime: Uuid, line: &str) -> Ran {
        self.run(exec(runtime), &shell("/", line).encode())
    }

    /// Runs what is in an exec's memfd, with the exec as it is.
    #[track_caller]
    pub fn run(&self, request: Value, order: &[u8]) -> Ran {
        let (_, ran) = self.try_run(request, order);
        ran.unwrap_or_else(|refused| panic!("{refused:?}\n{}", self.log()))
    }

    /// As [`Raw::run`], with its number, and what it was answered where it did not start.
    #[track_caller]
    pub fn try_run(&self, request: Value, order: &[u8]) -> (u64, Result<Ran, Reply>) {
        let order = memfd::seal(c"command", order).expect("a memfd");
        let seq = self.send_json(request, &[order.as_fd()]);
        let (reply, fds) = self.reply(seq);
        if !matches!(reply, Reply::Started { .. }) {
            return (seq, Err(reply));
        }
        let [out, err]: [OwnedFd; 2] = fds.try_into().expect("two pipes");
        let read = |pipe: OwnedFd| {
            let mut bytes = Vec::new();
            File::from(pipe).read_to_end(&mut bytes).expect("read");
            bytes
        };
        let (out, err) = (read(out), read(err));
        match self.reply(seq).0 {
            Reply::Ended { end, .. } => (seq, Ok(Ran { out, err, end })),
            other => panic!("{other:?}"),
        }
    }

    /// Asserts that nothing has come of what was asked for: it answers, opens a cell, holds what it held before, and the
    /// host is as it was.
    #[track_caller]
    pub fn assert_well(&self, after: &str) {
        self.assert_lives();
        let ran = self.sh(self.runtime, "echo well");
        assert_eq!(
            ran.end,
            CellEnd::Exited(0),
            "after {after}:\n{}",
            self.log()
        );
        assert_eq!(ran.text(), "well\n", "after {after}");
        let mut now = self.state();
        eventually(bound(20_000), || {
            now = self.state();
            self.before.borrow().as_ref() == Some(&now)
        });
        assert_eq!(
            Some(&now),
            self.before.borrow().as_ref(),
            "after {after} (left: now, right: before)"
        );
    }

    /// What of all runtimes and checkpoints there is, as root has it on disk.
    fn state(&self) -> State {
        let mut directories = Vec::new();
        for place in ["", "runtimes", "checkpoints", "images"] {
            for entry in fs::read_dir(self.data().join(place)).into_iter().flatten() {
                let name = entry.expect("an entry").file_name();
                directories.push(format!("{place}/{}", name.to_string_lossy()));
            }
        }
        directories.sort();
        State {
            fds: descriptors(self.pid),
            own_mounts: mounts::of(&self.pid.to_string()),
            host: tree(&self.host()),
            loops: leaks::loops(&self.data()),
            directories,
        }
    }

    /// Waits for its end and gives its exit code.
    #[track_caller]
    pub fn ended(&self) -> Option<i32> {
        let mut status = None;
        eventually(bound(30_000), || {
            let mut child = self.child.borrow_mut();
            status = child.try_wait().expect("wait for the warden");
            status.is_some()
        });
        status.expect("the warden goes on").code()
    }

    /// Asserts that a warden that has ended left nothing.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let name = format!("cellblock-{}", self.instance);
        let left = || {
            let groups = leaks::cgroups(Path::new("/sys/fs/cgroup"), &name, false);
            let mounted = mounts::below(self.dir.path()).len();
            (groups, mounted, leaks::loops(&self.data()))
        };
        let gone = eventually(bound(20_000), || left() == (0, 0, 0));
        assert!(gone, "groups, mounts, loop devices are left: {:?}", left());
    }

    /// Directories of the runtime's groups, in all hierarchies.
    pub fn groups(&self, runtime: Uuid) -> Vec<PathBuf> {
        let own = format!("cellblock-{}", self.instance);
        let mut found = Vec::new();
        let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                } else if entry.file_name() == *own {
                    found.push(entry.path().join(runtime.simple().to_string()));
                } else {
                    open.push(entry.path());
                }
            }
        }
        found.retain(|directory| directory.exists());
        found
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = nix::sys::socket::shutdown(self.link.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        let mut child = self.child.borrow_mut();
        let ended = eventually(bound(30_000), || {
            child.try_wait().is_ok_and(|status| status.is_some())
        });
        if !ended {
            let _ = child.kill();
            let _ = child.wait();
        }
        drop(child);
        if std::thread::panicking() {
            eprintln!("--- the warden printed:\n{}---", self.log());
            return;
        }
        assert!(ended, "the warden did not end when its link did");
        assert!(!self.log().contains("panicked at"), "{}", self.log());
        self.assert_nothing_left();
    }
}

/// The number that a reply has.
pub fn number(reply: &Reply) -> u64 {
    let value = serde_json::to_value(reply).expect("plain data");
    value["seq"].as_u64().expect("a number")
}

/// A request to make a runtime, but for its number.
pub fn create(id: Uuid, filesystem: Filesystem) -> Value {
    let spec = RuntimeSpec {
        id,
        image: "host".to_owned(),
        profile: "default".to_owned(),
        filesystem,
        disk_mib: 16,
    };
    let request = Request::CreateRuntime {
        seq: 0,
        spec,
        checkpoint: None,
    };
    serde_json::to_value(request).expect("plain data")
}

/// A request to run something, but for its number.
pub fn exec(runtime: Uuid) -> Value {
    let request = Request::Exec(CellRequest {
        seq: 0,
        runtime,
        runtime_resources: RuntimeResources {
            memory_bytes: 256 * MIB,
            pids: 64,
            cpu_millis: 1000,
        },
        cell_resources: CellResources {
            memory_bytes: 128 * MIB,
            pids: 32,
            cpu_secs: None,
        },
        hostname: "cell".to_owned(),
        stdin: false,
        terminal: None,
    });
    serde_json::to_value(request).expect("plain data")
}

/// A shell line in a directory.
pub fn shell(cwd: &str, line: &str) -> Line {
    Line {
        cwd: cwd.to_owned(),
        instead: Vec::new(),
        command: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), line.to_owned()],
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        shell_fallback: false,
    }
}

/// Whether something can be read within `limit`.
pub fn readable(fd: &OwnedFd, limit: Duration) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(limit).expect("minutes at most");
    poll(&mut fds, limit).expect("poll") == 1
}

fn rewind(memfd: &OwnedFd) {
    let mut file = File::from(memfd.try_clone().expect("dup"));
    std::io::Seek::rewind(&mut file).expect("rewind");
}

/// A process's descriptors by what they are, without the numbers in their names.
pub fn descriptors(pid: u32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    for target in entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
    {
        let target = target.to_string_lossy().into_owned();
        let kind = match target.starts_with('/') {
            true => target,
            false => target.chars().filter(|c| !c.is_ascii_digit()).collect(),
        };
        *kinds.entry(kind).or_insert(0) += 1;
    }
    kinds
}

/// A few files and directories.
fn host_tree(at: &Path) {
    fs::create_dir_all(at.join("directory/below")).expect("make the host's tree");
    fs::write(at.join("secret"), SECRET).expect("write the secret");
    fs::write(at.join("directory/file"), "a file").expect("write a file");
    std::os::unix::fs::symlink("secret", at.join("link")).expect("link");
}

/// Everything below a directory, with what shows that it was touched.
fn tree(at: &Path) -> Vec<(PathBuf, String)> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let mut open = vec![at.to_owned()];
    while let Some(path) = open.pop() {
        let status = fs::symlink_metadata(&path).expect("look");
        if status.is_dir() {
            let entries = fs::read_dir(&path).expect("list");
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
        let (owner, mode) = ((status.uid(), status.gid()), status.mode());
        let changed = (status.ctime(), status.ctime_nsec(), status.size());
        found.push((path, format!("{owner:?} {mode:o} {changed:?}")));
    }
    found.sort();
    found
}

/// Living processes of a runtime: their host ids are in the range that its record names.
pub fn range_of(raw: &Raw, runtime: Uuid) -> std::ops::Range<u32> {
    let file = raw.data().join(format!("runtimes/{runtime}/runtime.json"));
    let record: Value = serde_json::from_slice(&fs::read(file).expect("the record")).expect("JSON");
    let base = record["uid_base"].as_u64().expect("a number") as u32;
    base..base + cellblock::resources::RANGE
}

/// Processes of the warden's, itself apart.
pub fn below(raw: &Raw) -> Vec<u32> {
    let mut pids = procs::tree(raw.pid);
    pids.remove(0);
    pids
}
