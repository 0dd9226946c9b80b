//! Who takes part: servers that run a program when they are asked to, and programs that run one themselves.

use crate::floor::Floor;
use crate::http::Connection;
use crate::server::outcome;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use tempfile::TempDir;

/// A program and its arguments.
pub type Program<'a> = &'a [&'a str];

/// One who takes part.
pub enum Contender {
    /// Asked over HTTP.
    Http {
        /// As the table calls it.
        name: &'static str,
        /// Where it listens.
        address: SocketAddr,
        /// What is asked for.
        path: String,
        /// Sent along.
        token: String,
    },
    /// Started for each program.
    Process {
        /// As the table calls it.
        name: &'static str,
        /// What is put before the program.
        before: Vec<String>,
    },
    /// runc, which is told by files.
    Runc(Bundle),
    /// The least that a cell costs.
    Floor(Floor),
}

/// What one client of a contender holds.
pub enum Client<'a> {
    Http(&'a str, Box<Connection>),
    Process(&'a [String]),
    Runc(&'a Bundle),
    Floor(&'a Floor),
}

impl Contender {
    /// As the table calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Http { name, .. } | Self::Process { name, .. } => name,
            Self::Runc(_) => "runc",
            Self::Floor(_) => "floor",
        }
    }

    /// One client of it.
    pub fn client(&self) -> Client<'_> {
        match self {
            Self::Http {
                address,
                path,
                token,
                ..
            } => Client::Http(path, Box::new(Connection::open(*address, token))),
            Self::Process { before, .. } => Client::Process(before),
            Self::Runc(bundle) => Client::Runc(bundle),
            Self::Floor(floor) => Client::Floor(floor),
        }
    }

    /// bubblewrap, with all that it can make new, where it is installed.
    pub fn bwrap() -> Option<Contender> {
        let program = installed("bwrap")?;
        let options = "--unshare-all --die-with-parent --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib \
            --symlink usr/lib64 /lib64 --proc /proc --dev /dev --tmpfs /tmp --cap-drop ALL";
        let options = options.split_whitespace().map(str::to_owned);
        Some(Self::Process {
            name: "bwrap",
            before: std::iter::once(program).chain(options).collect(),
        })
    }

    /// runc, where it is installed.
    pub fn runc() -> Option<Contender> {
        installed("runc").map(|program| Self::Runc(Bundle::new(program)))
    }
}

impl Client<'_> {
    /// Runs a program to its end and gives what it printed.
    pub fn run(&mut self, program: Program<'_>) -> Vec<u8> {
        match self {
            Self::Http(path, connection) => {
                let body = json!({"command": program[0], "args": &program[1..]}).to_string();
                let (status, answer) = connection.send("POST", path, &body);
                assert_eq!(status, 200, "{}", outcome(&answer));
                answer
            }
            Self::Process(before) => {
                spawned(Command::new(&before[0]).args(&before[1..]).args(program))
            }
            Self::Runc(bundle) => bundle.run(program),
            Self::Floor(floor) => {
                floor.run(program);
                Vec::new()
            }
        }
    }
}

fn spawned(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().expect("run it");
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

fn installed(name: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|directory| directory.join(name));
    let found: Vec<PathBuf> = found.filter(|place| place.is_file()).collect();
    found.first().map(|place| place.display().to_string())
}

/// A directory that runc takes for a container, with the host's own programs.
pub struct Bundle {
    runc: String,
    /// Held by the client that changes the files.
    change: Mutex<()>,
    directory: TempDir,
}

impl Bundle {
    fn new(runc: String) -> Bundle {
        let directory = TempDir::with_prefix("cellblock-bench-").expect("a directory");
        let root = directory.path().join("rootfs");
        for name in ["usr", "proc", "dev", "tmp"] {
            std::fs::create_dir_all(root.join(name)).expect("create");
        }
        for (name, target) in [
            ("bin", "usr/bin"),
            ("lib", "usr/lib"),
            ("lib64", "usr/lib64"),
        ] {
            std::os::unix::fs::symlink(target, root.join(name)).expect("link");
        }
        spawned(
            Command::new(&runc)
                .arg("spec")
                .current_dir(directory.path()),
        );
        Bundle {
            runc,
            change: Mutex::default(),
            directory,
        }
    }

    fn run(&self, program: Program<'_>) -> Vec<u8> {
        let change = self.change.lock().expect("the lock");
        let config = self.directory.path().join("config.json");
        let text = std::fs::read(&config).expect("its configuration");
        let mut value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        if value["process"]["args"] != json!(program) {
            value["process"]["args"] = json!(program);
            value["process"]["terminal"] = json!(false);
            let mounts = value["mounts"].as_array_mut().expect("mounts");
            if !mounts.iter().any(|mount| mount["destination"] == "/usr") {
                mounts.push(json!({"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]}));
            }
            std::fs::write(&config, value.to_string()).expect("write");
        }
        drop(change);
        let name = format!("bench-{}", uuid::Uuid::now_v7());
        spawned(
            Command::new(&self.runc)
                .args(["run", "--bundle"])
                .arg(self.directory.path())
                .arg(name),
        )
    }
}
