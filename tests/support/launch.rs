//! The program as a child process: its command line, and who it is a child of.

use super::server::Options;
use super::timing;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::Duration;

/// The command line of a server, ready to be spawned.
pub fn command(dir: &Path, port: u16, log: &Path, options: &Options) -> Command {
    let binary = env!("CARGO_BIN_EXE_cellblock");
    let mut command = match &options.before {
        None => Command::new(binary),
        Some(line) => {
            let mut command = Command::new("unshare");
            let line = format!("{line}\nexec \"$@\"");
            command.args([
                "-m",
                "--propagation",
                "private",
                "sh",
                "-ec",
                &line,
                "sh",
                binary,
            ]);
            command
        }
    };
    command
        .arg("serve")
        .args(["--listen", &format!("127.0.0.1:{port}")]);
    command
        .arg("--data-dir")
        .arg(dir.join("data"))
        .args(["--max-parked-cells", &options.parked.to_string()])
        .args(&options.args);
    for name in [
        "CELLBLOCK_LISTEN",
        "CELLBLOCK_DATA_DIR",
        "CELLBLOCK_ADMIN_TOKEN",
    ] {
        command.env_remove(name);
    }
    command.env("TEST_DIR", dir);
    command.envs(options.env.iter().map(|(name, value)| (name, value)));
    if let Some(token) = &options.token {
        command.env("CELLBLOCK_ADMIN_TOKEN", token);
    }
    let out = File::options()
        .create(true)
        .append(true)
        .open(log)
        .expect("open the log");
    command
        .stdin(Stdio::null())
        .stderr(out.try_clone().expect("dup the log"))
        .stdout(out);
    command
}

/// Spawns from a thread that never ends: PR_SET_PDEATHSIG fires when the *thread* that forked ends, and a test's thread
/// ends long before the shared server may.
pub fn spawn(mut command: Command) -> Child {
    type Job = (Command, mpsc::Sender<Child>);
    static KEEPER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
    let keeper = KEEPER.get_or_init(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn().expect("start the server"));
            }
        });
        Mutex::new(jobs)
    });
    let (answer, child) = mpsc::channel();
    keeper
        .lock()
        .expect("keeper lock")
        .send((command, answer))
        .expect("the keeper lives");
    child
        .recv_timeout(Duration::from_secs(30))
        .expect("the server was spawned")
}

/// Runs the program with other arguments to its end, which must come within ten seconds (on hardware): a `serve` that
/// should have refused would go on for ever.
pub fn run(args: &[&str], env: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cellblock"));
    command.args(args).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, value) in env {
        command.env(name, value);
    }
    let mut child = spawn(command);
    let ended = || child.try_wait().expect("wait for cellblock").is_some();
    let in_time = timing::eventually(timing::bound(10_000), ended);
    if !in_time {
        // SAFETY: kill(2) takes numbers only; the child has not been waited for.
        unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    }
    let output = child
        .wait_with_output()
        .expect("read what cellblock printed");
    assert!(in_time, "{args:?} went on running: {output:?}");
    output
}
