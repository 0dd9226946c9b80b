//! What a test may need from the host. What is lacking skips the test: printed as `SKIPPED <test>: needs <what>` and
//! appended to `skipped.txt` in cargo's test directory, so that a run can count what it did not prove.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One thing that not every host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Effective uid 0: `serve` makes cgroups, namespaces and mounts.
    Root,
    /// `/usr/bin/python3`, seen by commands through the `host` image.
    Python,
    /// A kernel that runs i386 programs; elsewhere `int 0x80` is a plain fault.
    Ia32,
    /// x86-64: system call numbers and the `int 0x80` instruction are its own.
    X86,
    /// `unshare` and `umount` of util-linux, to take something away from a server in a private mount namespace.
    Unshare,
    /// Version 1 cgroup hierarchies: a server can do without a version 2 tree.
    CgroupV1,
    /// `docker-registry` of Debian's package of that name.
    DockerRegistry,
    /// `skopeo`, which pushes images into a registry.
    Skopeo,
    /// A static `/bin/busybox` (Debian's `busybox-static`): all of an image in one file.
    Busybox,
    /// `mmdebstrap`, and with it a Debian mirror.
    Mmdebstrap,
    /// A kernel whose Landlock, built in and enabled at boot, has at least this ABI.
    LandlockAbi(usize),
    /// Memory and pids cgroups at the root, where tests may make their own.
    TightGroups,
    /// A machine that is thrown away after the test: its clock may be set. That has to be said, for this boot of it, in
    /// [`MAY_SET_CLOCK`].
    MaySetClock,
}

/// The environment variable that allows tests to set the machine's clock. Its value must be the machine's
/// `/proc/sys/kernel/random/boot_id`, so that none that lies about in some profile, or came along by ssh, is taken for it.
const MAY_SET_CLOCK: &str = "CELLBLOCK_TEST_MAY_SET_CLOCK";

/// What is lacking, by ABI.
const LANDLOCK: [&str; 8] = [
    "",
    "Landlock ABI 1",
    "Landlock ABI 2",
    "Landlock ABI 3",
    "Landlock ABI 4",
    "Landlock ABI 5",
    "Landlock ABI 6",
    "Landlock ABI 7",
];

/// One that loads a library is not told apart by its name.
const STATIC_BUSYBOX: &str = "test -x /bin/busybox && ! ldd /bin/busybox";

impl Need {
    fn met(self) -> bool {
        match self {
            Need::Root => nix::unistd::geteuid().is_root(),
            Need::Python => Path::new("/usr/bin/python3").exists(),
            Need::Ia32 => cfg!(target_arch = "x86_64") && runs_i386(),
            Need::X86 => cfg!(target_arch = "x86_64"),
            Need::Unshare => succeeds(Command::new("unshare").args(["-m", "true"])),
            Need::Busybox => succeeds(Command::new("sh").args(["-c", STATIC_BUSYBOX])),
            Need::Mmdebstrap => succeeds(Command::new("mmdebstrap").arg("--version")),
            Need::LandlockAbi(abi) => landlock_abi() >= abi as i64,
            Need::TightGroups => ["memory", "pids"]
                .iter()
                .all(|of| super::tight::root(of).is_some()),
            Need::MaySetClock => names_this_boot(std::env::var(MAY_SET_CLOCK).ok()),
            Need::CgroupV1 => super::mounts::all().iter().any(|m| m.fs == "cgroup"),
            Need::DockerRegistry => succeeds(Command::new("docker-registry").arg("--version")),
            Need::Skopeo => succeeds(Command::new("skopeo").arg("--version")),
        }
    }

    fn label(self) -> &'static str {
        match self {
            Need::Root => "root",
            Need::Python => "/usr/bin/python3",
            Need::Ia32 => "a kernel with IA32 emulation",
            Need::X86 => "an x86-64 machine",
            Need::Unshare => "unshare of util-linux",
            Need::TightGroups => "memory and pids cgroups at the root",
            Need::MaySetClock => "a machine whose clock may be set",
            Need::CgroupV1 => "cgroup v1 hierarchies",
            Need::DockerRegistry => "docker-registry",
            Need::Skopeo => "skopeo",
            Need::Busybox => "a static /bin/busybox",
            Need::Mmdebstrap => "mmdebstrap",
            Need::LandlockAbi(abi) => LANDLOCK[abi],
        }
    }
}

/// The kernel's Landlock ABI, negative without one; asked here anew, not as the server does.
pub fn landlock_abi() -> i64 {
    // SAFETY: null attributes of size 0 and flag 1 ask for the version (landlock_create_ruleset(2)).
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0usize, 0usize, 1) }
}

fn names_this_boot(value: Option<String>) -> bool {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    matches!((boot, value), (Ok(boot), Some(value)) if value == boot.trim_end())
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs the probe outside any sandbox: what the kernel itself does with `int 0x80`.
fn runs_i386() -> bool {
    succeeds(Command::new(super::probe::path()).arg("i386"))
}

/// Whether the host has everything named; says and records what it lacks. Behind the `needs!` macro.
pub fn all_met(needs: &[Need]) -> bool {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|need| !need.met())
        .map(|need| need.label())
        .collect();
    if missing.is_empty() {
        return true;
    }
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let line = format!("SKIPPED {test}: needs {}\n", missing.join(", "));
    // Straight to the descriptor: the harness swallows what eprintln! writes in a passing test.
    let _ = std::io::stderr().write_all(line.as_bytes());
    let record = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(skip_record());
    record
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("record the skip");
    false
}

/// Where skips are counted.
fn skip_record() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped.txt")
}
