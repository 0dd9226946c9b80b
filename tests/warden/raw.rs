//! The warden alone, with the test in everybody else's place: it starts `cellblock role:warden` with the descriptors that
//! the supervisor would give it (`roles::fds`) and keeps the other ends, so that each packet is the test's own and its answer
//! comes to nobody else.

use crate::requests::number;
use crate::state::{State, host_tree};
use crate::support::mounts::TestDir;
use crate::support::timing::at_rest;
use crate::support::{bound, eventually, leaks, mounts};
use cellblock::roles::{PING, PONG, READY};
use cellblock::sys::packet::{self, Packet};
use cellblock::warden::memfd;
use cellblock::warden::protocol::{CellEnd, Filesystem, MAX_MESSAGE, Reply};
use cellblock::warden::server::Settings;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use uuid::Uuid;

/// How many runtimes there may be.
pub const RANGES: u32 = 16;
/// First host uid of the block: the service's default.
pub const UID_BASE: u32 = cellblock::config::DEFAULT_UID_BASE;

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
            // All that it holds was asked for.
            max_parked_cells: 0,
            log_format: cellblock::config::LogFormat::Text,
        };
        let settings = serde_json::to_vec(&settings).expect("plain data");
        let settings = memfd::seal(c"settings", &settings).expect("a memfd");
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
        raw.assert_opens_a_cell("its start");
        // Kernels that don't tell how much memory was used (Linux 5.19 does) have its namespaces held for a moment.
        let held = || leaks::descriptors(&[raw.pid]);
        let net = || held().iter().any(|(kind, _)| kind.starts_with("net:"));
        assert!(eventually(bound(20_000), || !net()), "{:?}", held());
        let last = at_rest(bound(20_000), || raw.state());
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

    /// Asserts that nothing has come of what was asked for: it answers, opens a cell, holds what it held before, and the
    /// host is as it was.
    #[track_caller]
    pub fn assert_well(&self, after: &str) {
        self.assert_lives();
        self.assert_opens_a_cell(after);
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

    /// The command uses so much memory that the warden does not hold its namespaces for a moment, as it does otherwise
    /// (`RECENT_BYTES`): so all is let go of when its end is told.
    #[track_caller]
    fn assert_opens_a_cell(&self, after: &str) {
        let line = "dd if=/dev/zero of=/dev/null bs=24M count=1 2> /dev/null && echo well";
        let ran = self.sh(self.runtime, line);
        let (end, text) = (&ran.end, ran.text());
        assert_eq!(
            (end, text.as_str()),
            (&CellEnd::Exited(0), "well\n"),
            "after {after}:\n{}",
            self.log()
        );
    }

    fn state(&self) -> State {
        State::of(self.pid, self.dir.path(), &self.group())
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
        let left = || {
            let groups = leaks::groups(&self.group()).len();
            let mounted = mounts::below(self.dir.path()).len();
            (groups, mounted, leaks::loops(&self.data()))
        };
        let gone = eventually(bound(20_000), || left() == (0, 0, 0));
        assert!(gone, "groups, mounts, loop devices are left: {:?}", left());
    }

    /// Directories of the runtime's groups, in all hierarchies.
    pub fn groups(&self, runtime: Uuid) -> Vec<PathBuf> {
        let own = leaks::groups(&self.group()).into_iter();
        own.map(|group| group.join(runtime.simple().to_string()))
            .filter(|group| group.exists())
            .collect()
    }

    /// What its own groups are called.
    fn group(&self) -> String {
        format!("cellblock-{}", self.instance)
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
