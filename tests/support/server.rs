//! Starts the real program and makes sure that it ends: a guard for a test's own server, an exit hook for the shared one
//! (statics are never dropped), and the kernel for the case that the test process itself is killed.

use super::client::Api;
use super::held::Held;
pub use super::launch::run;
use super::launch::{command, spawn};
use super::mounts::TestDir;
use super::{procs, timing};
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::{Mutex, OnceLock};

/// What the service parks by default.
pub const PARKED: u32 = 64;

/// How a server is started; the default is the plain command of the README on a free port, but that no cell is parked.
#[derive(Default, Clone)]
pub struct Options {
    /// Arguments after `serve --listen … --data-dir …`.
    pub args: Vec<String>,
    /// Environment beside the test's own.
    pub env: Vec<(String, String)>,
    /// A shell line run before the server in the same process and in a private mount namespace of its own.
    pub before: Option<String>,
    /// Gives a token to the server instead of letting it make one.
    pub token: Option<String>,
    /// How many cells it may park. None by default, for tests that count what there is; the shared server does.
    pub parked: u32,
}

impl Options {
    /// With an ext4 (a tmpfs can't be idmapped before Linux 6.3) of so many MiB at the data directory, in a mount namespace of the server's own, that is there again after a
    /// restart. `more` is for mkfs.ext4, such as `-m 0`: nothing is kept back for root.
    pub fn on_small_disk(mib: u32, more: &str) -> Options {
        let made = format!("truncate -s {mib}M disk && mkfs.ext4 -q {more} disk");
        let mounted = "mount -o loop disk data";
        Options {
            before: Some(format!(
                "cd \"$TEST_DIR\" && mkdir -p data && {{ test -e disk || {{ {made}; }}; }} && {mounted}"
            )),
            // One that is made would be where only the server sees it.
            token: Some("0123456789abcdef0123456789abcdef".to_owned()),
            ..Options::default()
        }
    }
}

/// A running server with its data directory.
pub struct Server {
    child: Mutex<Child>,
    /// The supervisor's process id.
    pub pid: u32,
    /// A client with the admin token.
    pub api: Api,
    /// Everything the server printed, on both streams.
    log: PathBuf,
    dir: Option<TestDir>,
    options: Options,
}

/// Where the servers of this process print, by their ports.
static LOGS: Mutex<Vec<(u16, PathBuf)>> = Mutex::new(Vec::new());

/// The last that the server at a port had to complain of: what an answer of 500 keeps from clients.
pub fn complaints(port: u16) -> String {
    const MOST: usize = 8;
    let logs = LOGS.lock().expect("the lock");
    let log = logs.iter().rev().find(|(of, _)| *of == port);
    let text = log.map_or_else(Vec::new, |(_, path)| fs::read(path).unwrap_or_default());
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines();
    let mut found: Vec<&str> = lines
        .rev()
        .filter(|line| {
            [" ERROR ", " WARN "]
                .iter()
                .any(|level| line.contains(level))
        })
        .take(MOST)
        .collect();
    found.reverse();
    found.join("\n")
}

impl Server {
    /// Starts one on a new data directory and waits until it answers.
    pub fn start(options: Options) -> Server {
        Server::start_in(TestDir::new(), options).unwrap_or_else(|text| panic!("{text}"))
    }

    /// Starts one in a directory; what it printed, if it ended instead of answering.
    pub fn start_in(dir: TestDir, options: Options) -> Result<Server, String> {
        Server::start_at(free_port(), dir, options)
    }

    fn start_at(port: u16, dir: TestDir, options: Options) -> Result<Server, String> {
        let log = dir.path().join("log");
        let child = spawn(command(dir.path(), port, &log, &options));
        let pid = child.id();
        LOGS.lock().expect("the lock").push((port, log.clone()));
        let mut server = Server {
            child: Mutex::new(child),
            pid,
            api: Api::new(port, options.token.as_deref().unwrap_or("")),
            log,
            dir: Some(dir),
            options,
        };
        server.await_answer()?;
        if server.api.token.is_empty() {
            let token = fs::read_to_string(server.data_dir().join("admin-token"))
                .map_err(|error| format!("admin-token: {error}"))?;
            server.api.token = token.trim().to_owned();
        }
        Ok(server)
    }

    fn await_answer(&self) -> Result<(), String> {
        let mut ended = None;
        let ready = timing::eventually(timing::bound(20_000), || {
            ended = self
                .child
                .lock()
                .expect("child lock")
                .try_wait()
                .expect("wait");
            ended.is_some() || self.healthy()
        });
        match ended {
            Some(status) => Err(format!("serve ended ({status}):\n{}", self.log())),
            None if ready => Ok(()),
            None => Err(format!("serve does not answer:\n{}", self.log())),
        }
    }

    /// Whether it answers its health check and has told its token.
    fn healthy(&self) -> bool {
        let answer = self.api.try_send("GET", "/healthz", &[], None);
        let token = self.options.token.is_some() || self.data_dir().join("admin-token").exists();
        answer.is_ok_and(|reply| reply.status == 200) && token
    }

    /// Whether it runs a command, in the runtime that is always there.
    pub fn works(&self) -> bool {
        self.api.can_exec("/v1/runtimes/example/exec")
    }

    /// Its data directory as it sees it itself, which may have something mounted there.
    pub fn own_data_dir(&self) -> PathBuf {
        let data = self.data_dir();
        PathBuf::from(format!("/proc/{}/root{}", self.pid, data.display()))
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir
            .as_ref()
            .expect("the directory")
            .path()
            .join("data")
    }

    /// All that it printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// What its processes said that died of a mistake of their own: empty, or a test run has failed. It may have had every
    /// answer nevertheless, since a panic ends one task here, but the whole service in a release build.
    fn panics(&self) -> String {
        let log = self.log();
        let mut lines = log.lines();
        let mut found = String::new();
        while let Some(line) = lines.next() {
            if line.contains("panicked at") {
                // The message stands in the line below.
                let message = lines.next().unwrap_or_default();
                found += &format!("{line}\n{message}\n");
            }
        }
        found
    }

    /// The api process: the supervisor's child that is not root.
    pub fn api_pid(&self) -> u32 {
        self.child_where(|uid| uid != 0)
    }

    /// The warden: the supervisor's child that is root.
    pub fn warden_pid(&self) -> u32 {
        self.child_where(|uid| uid == 0)
    }

    /// Makes the warden stand still, so that no command starts, until the guard is dropped. Held for longer than 20 s it
    /// is killed and replaced.
    pub fn hold_warden(&self) -> Held {
        Held::process(self.warden_pid())
    }

    fn child_where(&self, holds: impl Fn(u32) -> bool) -> u32 {
        let mut found = procs::children(self.pid);
        found.retain(|pid| procs::uid(*pid).is_some_and(&holds));
        assert_eq!(
            found.len(),
            1,
            "one such child of the supervisor, not {found:?}"
        );
        found[0]
    }

    /// Asks it to end and waits; SIGKILL after a bound, which is said. Gives the exit status.
    pub fn stop(&self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        let mut child = self.child.lock().expect("child lock");
        let limit = timing::bound(30_000);
        let mut status = None;
        let ended = timing::eventually(limit, || {
            status = child.try_wait().expect("wait for the server");
            status.is_some()
        });
        if !ended {
            eprintln!("the server ignored SIGTERM for {limit:?}; killing it");
            let _ = child.kill();
        }
        status.unwrap_or_else(|| child.wait().expect("wait for the server"))
    }

    /// SIGKILL to every process of the server at once (not only to the supervisor), as a power cut would. Cells are
    /// left to the kernel: their init dies with the warden or is what the restart must find.
    pub fn kill(&self) {
        // Who they are is asked before the first one dies: orphans get another parent.
        let mut pids = procs::children(self.pid);
        pids.insert(0, self.pid);
        for pid in pids {
            // SAFETY: kill(2) takes numbers only.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        }
        self.child
            .lock()
            .expect("child lock")
            .wait()
            .expect("wait for the server");
    }

    /// Whether its supervisor has ended.
    fn ended(&self) -> bool {
        let mut child = self.child.lock().expect("child lock");
        child.try_wait().expect("wait for the server").is_some()
    }

    /// Sends a signal to the supervisor, unless it has been waited for.
    pub fn signal(&self, signal: i32) {
        let mut child = self.child.lock().expect("child lock");
        if child.try_wait().expect("wait for the server").is_none() {
            // SAFETY: kill(2) takes numbers only; the pid is ours until it is waited for.
            unsafe { libc::kill(self.pid as i32, signal) };
        }
    }

    /// Starts the program again on the same data directory and port, after [`Server::stop`] or [`Server::kill`].
    pub fn restart(self) -> Server {
        let options = self.options.clone();
        self.restart_with(options)
    }

    /// As [`Server::restart`], with other options.
    pub fn restart_with(mut self, options: Options) -> Server {
        let dir = self.dir.take().expect("the directory");
        let port = self.api.port;
        drop(self);
        Server::start_at(port, dir, options).unwrap_or_else(|text| panic!("{text}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- the server printed:\n{}---", self.log());
        } else {
            let panics = self.panics();
            assert!(panics.is_empty(), "the server panicked:\n{panics}");
        }
    }
}

/// The server shared by a binary's tests.
pub fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    extern "C" fn at_exit() {
        if let Some(server) = SHARED.get() {
            let ended = server.ended();
            server.stop();
            let panics = server.panics();
            if let Some(dir) = &server.dir
                && let Err(why) = super::mounts::remove(dir.path())
            {
                eprintln!("left {} behind: {why}", dir.path().display());
            }
            if ended || !panics.is_empty() {
                eprintln!("the shared server ended early ({ended}) or panicked:\n{panics}");
                // SAFETY: ends the process at once, with a status that says that the run failed.
                unsafe { libc::_exit(101) };
            }
        }
    }
    SHARED.get_or_init(|| {
        let server = Server::start(Options {
            parked: PARKED,
            ..Options::default()
        });
        // SAFETY: the handler is a plain function that lives as long as the program; it only reads a static.
        unsafe { libc::atexit(at_exit) };
        server
    })
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
    listener.local_addr().expect("a local address").port()
}
