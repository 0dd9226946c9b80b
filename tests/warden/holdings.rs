//! What the two roles of a running service hold: what is listed here, and no more.

use crate::needs;
use crate::support::server::Options;
use crate::support::{Server, alone, bound, eventually, mounts, procs};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// A copy of a descriptor of another process's.
pub fn steal(pid: u32, number: u64) -> Option<OwnedFd> {
    // SAFETY: numbers only; what is returned is a new descriptor of this process's.
    unsafe {
        let pidfd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        assert!(pidfd >= 0, "{}", std::io::Error::last_os_error());
        let pidfd = OwnedFd::from_raw_fd(pidfd as i32);
        let number = number as i32;
        let fd = libc::syscall(
            libc::SYS_pidfd_getfd,
            std::os::fd::AsRawFd::as_raw_fd(&pidfd),
            number,
            0,
        );
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd as i32))
    }
}

/// What a descriptor is, in words.
fn word(pid: u32, number: u64, target: &str) -> String {
    let status = fs::metadata(format!("/proc/{pid}/fd/{number}"));
    if status
        .as_ref()
        .is_ok_and(|status| status.file_type().is_socket())
        && let Some(socket) = steal(pid, number)
    {
        use rustix::net::sockopt;
        let domain = sockopt::socket_domain(&socket).expect("a family").as_raw();
        let kind = sockopt::socket_type(&socket).expect("a kind").as_raw();
        let listens = sockopt::socket_acceptconn(&socket).expect("whether it listens");
        return format!("socket of family {domain}, type {kind}, listens: {listens}");
    }
    let plain: String = target.chars().filter(|c| !c.is_ascii_digit()).collect();
    match status {
        Ok(status) if status.is_dir() => format!("directory of device {}", status.dev()),
        _ if target.starts_with('/') => target.to_owned(),
        _ => plain,
    }
}

/// All that a process has open, counted by what it is.
fn held(pid: u32) -> BTreeMap<String, usize> {
    let mut held = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("list")
        .flatten()
    {
        let number = entry
            .file_name()
            .to_string_lossy()
            .parse()
            .expect("a number");
        let target = fs::read_link(entry.path()).unwrap_or_default();
        *held
            .entry(word(pid, number, &target.to_string_lossy()))
            .or_insert(0) += 1;
    }
    held
}

/// Asserts that a process comes to hold exactly this.
#[track_caller]
fn assert_holds(pid: u32, wanted: &[(String, usize)]) {
    let wanted: BTreeMap<String, usize> = wanted.iter().cloned().collect();
    let mut now = held(pid);
    eventually(bound(20_000), || {
        now = held(pid);
        now == wanted
    });
    assert_eq!(now, wanted, "(left: held, right: listed)");
}

fn socket(family: i32, kind: i32, listens: bool) -> String {
    format!("socket of family {family}, type {kind}, listens: {listens}")
}

/// The starter's log, for stdout and stderr.
fn log(server: &Server) -> String {
    let log = server
        .data_dir()
        .parent()
        .expect("its directory")
        .join("log");
    log.display().to_string()
}

fn lock(server: &Server) -> String {
    server.data_dir().join("lock").display().to_string()
}

#[test]
fn the_api_process_holds_its_sockets_and_its_data_and_no_more() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let state = |name: &str| format!("/state/cellblock.db{name}");
    let wanted = [
        ("/dev/null".to_owned(), 1),
        (log(&server), 2),
        (lock(&server), 1),
        // To the supervisor and to the warden.
        (socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, false), 2),
        (socket(libc::AF_INET, libc::SOCK_STREAM, true), 1),
        // The async runtime's own: signals, one of them twice; the reactor's, also for itself.
        (socket(libc::AF_UNIX, libc::SOCK_STREAM, false), 3),
        ("anon_inode:[eventpoll]".to_owned(), 2),
        ("anon_inode:[eventfd]".to_owned(), 1),
        // One connection writes, one reads.
        (state(""), 2),
        (state("-wal"), 2),
        (state("-shm"), 1),
    ];
    assert_holds(server.api_pid(), &wanted);
    // Of all files only those two are not its own.
    for file in [lock(&server), log(&server)] {
        let status = fs::metadata(&file).expect("look");
        assert_eq!(
            (status.uid(), status.mode() & 0o077 & 0o022),
            (0, 0),
            "{file}"
        );
    }
}

#[test]
fn the_warden_holds_two_sockets_and_a_template_for_each_runtime_in_use() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let body = serde_json::json!({"command": "true"});
    server
        .api
        .post("/v1/runtimes/example/exec", &body)
        .data(200);
    let pid = server.warden_pid();
    // The root of the runtime's disk, on a device of its own.
    let disk = |held: &BTreeMap<String, usize>| {
        held.keys()
            .find(|kind| kind.starts_with("directory"))
            .cloned()
    };
    let disk = disk(&held(pid)).expect("a mounted disk");
    let host = fs::metadata("/").expect("look").dev();
    assert_ne!(
        disk,
        format!("directory of device {host}"),
        "a directory of the host's"
    );
    let wanted = [
        ("/dev/null".to_owned(), 2),
        (log(&server), 1),
        (lock(&server), 1),
        // To the supervisor and to the api process.
        (socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, false), 2),
        ("anon_inode:[eventpoll]".to_owned(), 1),
        ("mnt:[]".to_owned(), 1),
        (disk, 1),
    ];
    assert_holds(pid, &wanted);
}

#[test]
fn the_root_directory_of_the_api_process_holds_its_state_alone() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let pid = server.api_pid();
    let entries = fs::read_dir(format!("/proc/{pid}/root")).expect("list its root");
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["state"]);
    let mut mounts = mounts::of(&pid.to_string());
    mounts.sort_by(|a, b| a.point.cmp(&b.point));
    let points: Vec<_> = mounts.iter().map(|mount| mount.point.as_path()).collect();
    assert_eq!(
        points,
        [std::path::Path::new("/"), std::path::Path::new("/state")]
    );
    for mount in &mounts {
        let has = |option| mount.options.split(',').any(|one| one == option);
        assert!(has("nosuid") && has("nodev") && has("noexec"), "{mount:?}");
    }
    assert!(mounts[0].options.starts_with("ro,"), "{:?}", mounts[0]);
    // What is in its state is its own, and nobody else's to read.
    let state = server.data_dir().join("state");
    let own = procs::uid(pid).expect("its id");
    for entry in fs::read_dir(&state).expect("list").flatten() {
        let status = entry.metadata().expect("look");
        assert_eq!(status.uid(), own, "{:?}", entry.path());
    }
    let status = fs::metadata(&state).expect("look");
    assert_eq!((status.uid(), status.mode() & 0o7777), (own, 0o700));
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).expect("its directory");
    assert_eq!(cwd, std::path::Path::new("/"));
}
