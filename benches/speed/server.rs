//! Our own server, as it is installed: the release build, its defaults, a data directory of its own.

use crate::http::Connection;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Its token.
pub const TOKEN: &str = "speed-speed-speed-speed-speed-speed";

/// A running server.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// How long it took from its start to its first good answer.
    pub took: Duration,
    data: Option<TempDir>,
    program: PathBuf,
}

impl Server {
    /// Starts one on a new data directory.
    pub fn start() -> Server {
        Server::start_other(Path::new(env!("CARGO_BIN_EXE_cellblock")))
    }

    /// Starts another build of it.
    pub fn start_other(program: &Path) -> Server {
        let data = TempDir::with_prefix("cellblock-bench-").expect("a directory");
        Server::start_on(program.to_owned(), data)
    }

    fn start_on(program: PathBuf, data: TempDir) -> Server {
        let config = data.path().join("config.toml");
        let text = "max_execs = 1024\nmax_execs_per_runtime = 1024\n";
        fs::write(&config, text).expect("write its configuration");
        let since = Instant::now();
        let mut child = Command::new(&program)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data.path().join("data"))
            .arg("--config")
            .arg(&config)
            .env("CELLBLOCK_ADMIN_TOKEN", TOKEN)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the server");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                line.split_once("listens on http://")
                    .map(|(_, at)| at.parse())
            })
            .expect("it ended instead of listening")
            .expect("an address");
        std::thread::spawn(move || lines.for_each(drop));
        let mut server = Server {
            child,
            address,
            took: Duration::ZERO,
            data: Some(data),
            program,
        };
        let (status, _) = server.connect().send("GET", "/v1/runtimes?limit=1", "");
        assert_eq!(status, 200, "its first answer");
        server.took = since.elapsed();
        server
    }

    /// A connection with the token.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address, TOKEN)
    }

    /// Makes a runtime and gives the path of its execs.
    pub fn runtime(&self, connection: &mut Connection, name: &str) -> String {
        // All of the machine, as for all the others.
        let processors = std::thread::available_parallelism()
            .expect("processors")
            .get();
        let body = json!({"name": name, "filesystem": "read_only", "limits": {"pids": 2048},
            "resources": {"requests": {"vcpus": processors}, "limits": {"memory_mib": 2048}}});
        let (status, body) = connection.send("POST", "/v1/runtimes", &body.to_string());
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        format!("/v1/runtimes/{name}/exec")
    }

    /// Resident memory of api and launcher together, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.expect("its children");
        children.split_whitespace().map(resident_kib).sum()
    }

    /// Where its execs' time went so far, as its metrics tell: phase, seconds, execs.
    pub fn phases(&self) -> Vec<(String, f64, f64)> {
        let (status, text) = self.connect().send("GET", "/metrics", "");
        assert_eq!(status, 200, "its metrics");
        let text = String::from_utf8_lossy(&text);
        let value = |what: &str, phase: &str| {
            let start = format!("cellblock_exec_phase_seconds_{what}{{phase=\"{phase}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&start));
            line.and_then(|number| number.parse().ok()).unwrap_or(0.0)
        };
        [
            "auth", "admit", "open", "bind", "exec", "run", "drain", "close",
        ]
        .map(|phase| (phase.to_owned(), value("sum", phase), value("count", phase)))
        .into()
    }

    /// Memory that each cell there is now is charged, in KiB.
    pub fn charged_kib(&self) -> Vec<f64> {
        let children = |pid: &str| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let own = children(&self.child.id().to_string()).expect("its children");
        let cells = own.split_whitespace().filter_map(|pid| children(pid).ok());
        let cells: Vec<String> = cells
            .flat_map(|pids| {
                pids.split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect();
        cells.iter().filter_map(|pid| charged_kib(pid)).collect()
    }

    /// Stops it and starts it again on what it has written.
    pub fn restart(mut self) -> Server {
        self.stop();
        let data = self.data.take().expect("its data");
        Server::start_on(std::mem::take(&mut self.program), data)
    }

    fn stop(&mut self) {
        // One that has been waited for has no pid any more.
        if let Ok(None) = self.child.try_wait() {
            let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
            let _ = kill(pid, Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Of the group that a process is in, where that is a cell's: a job of the launcher's is in the launcher's own.
fn charged_kib(pid: &str) -> Option<f64> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let v1 = groups.lines().find_map(|line| line.split_once(":memory:"));
    let (group, file) = match v1 {
        Some((_, group)) => (
            group,
            format!("/sys/fs/cgroup/memory{group}/memory.usage_in_bytes"),
        ),
        None => {
            let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
            (group, format!("/sys/fs/cgroup{group}/memory.current"))
        }
    };
    if !group.contains("/cellblock-") {
        return None;
    }
    let bytes: f64 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    Some(bytes / 1024.0)
}

fn resident_kib(pid: &str) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(pid).join("status"));
    let status = status.unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0)
}

/// The text of a JSON answer's field, for complaints.
pub fn outcome(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or(Value::Null)
}
