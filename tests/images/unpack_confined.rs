//! The process that reads the archive: what it could do if the archive took it over.

use crate::archives::{Head, Place, Tar, unpacker};
use crate::needs;
use crate::support::{bound, eventually, mounts, procs};
use cellblock::config::DEFAULT_UID_BASE;
use cellblock::image::unpack::{Bounds, ROLE, UnpackError, Unpacked};
use std::fs;
use std::io::{PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::JoinHandle;

/// An unpacker that waits for the rest of its archive.
struct Stalled {
    place: Place,
    rest: PipeWriter,
    thread: JoinHandle<Result<Unpacked, UnpackError>>,
    /// The process that waits for the other one.
    outer: u32,
    /// The one that reads.
    inner: u32,
    /// The file that it writes.
    name: String,
}

fn stalled() -> Stalled {
    let (read, mut rest) = std::io::pipe().expect("make a pipe");
    let place = Place::new();
    // Other tests run unpackers at the same time: this one's has a file that no other has.
    let name = format!("waits-{}", procs::marker());
    let mut head = Head::new(&name, b'0');
    head.size = 10;
    let begin = Tar::new().file("first", b"x").entry(&head, b"");
    rest.write_all(&begin.0).expect("write the beginning");
    let fs = place.fs();
    let thread = std::thread::spawn(move || {
        let source = OwnedFd::from(read);
        unpacker().layer(source, None, &fs, &Bounds::default(), &mut |_| {})
    });
    let begun = eventually(bound(10_000), || place.at(&name).exists());
    assert!(begun, "it did not begin; ended: {}", thread.is_finished());
    let sees = |pid: &u32| Path::new(&format!("/proc/{pid}/root/0/{name}")).exists();
    let inner = procs::with_arg(ROLE).into_iter().find(sees);
    let inner = inner.expect("the confined process");
    let outer = procs::parent(inner).expect("the process that waits for it");
    Stalled {
        place,
        rest,
        thread,
        name,
        outer,
        inner,
    }
}

impl Stalled {
    fn status(&self, key: &str) -> String {
        procs::status(self.inner, key).expect("a status")
    }

    /// A file of the process's in /proc.
    fn text(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.inner)).expect("read")
    }

    /// Names in a directory as the process sees it.
    fn names(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(format!("/proc/{}/root{dir}", self.inner)).expect("list");
        let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("UTF-8");
        let mut names: Vec<_> = entries.flatten().map(name).collect();
        names.sort();
        names
    }

    /// The archive ends, and with it the process.
    fn end(self) {
        drop(self.rest);
        let refused = self
            .thread
            .join()
            .expect("no panic")
            .expect_err("it ends early");
        assert_eq!(
            refused.to_string(),
            format!("entry \"{}\": ends early", self.name)
        );
        for pid in [self.inner, self.outer] {
            let gone = || procs::state(pid).is_none_or(|state| state == 'Z');
            assert!(eventually(bound(2_000), gone), "{pid} is still there");
        }
        self.place.assert_untouched();
    }
}

#[test]
fn it_is_nobody_and_may_do_nothing_but_to_the_files_of_the_image() {
    needs!(Root);
    let stalled = stalled();
    let own = DEFAULT_UID_BASE + 1;
    let ids = format!("{own}\t{own}\t{own}\t{own}");
    assert_eq!(
        (stalled.status("Uid"), stalled.status("Gid")),
        (ids.clone(), ids)
    );
    assert_eq!(stalled.status("Groups"), "");
    let map = stalled.text("uid_map");
    let map: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(map, ["0", own.to_string().as_str(), "65535"]);
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID.
    let four = format!("{:016x}", 1 | 1 << 1 | 1 << 3 | 1 << 4);
    assert_eq!(
        (stalled.status("CapEff"), stalled.status("CapPrm")),
        (four.clone(), four)
    );
    for set in ["CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(stalled.status(set), "0000000000000000", "{set}");
    }
    stalled.end();
}

#[test]
fn its_system_calls_and_its_means_are_limited() {
    needs!(Root);
    let stalled = stalled();
    assert_eq!(stalled.status("NoNewPrivs"), "1");
    assert_eq!(stalled.status("Seccomp"), "2");
    assert_eq!(stalled.status("Threads"), "1");
    let limits = stalled.text("limits");
    for (limit, value) in [("Max address space", "1073741824"), ("Max processes", "0")] {
        let line = limits
            .lines()
            .find(|line| line.starts_with(limit))
            .expect("a limit");
        assert!(line.contains(value), "{line}");
    }
    stalled.end();
}

#[test]
fn its_namespaces_are_its_own_and_its_network_is_empty() {
    needs!(Root);
    let stalled = stalled();
    for namespace in ["user", "mnt", "pid", "net", "ipc", "uts"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).expect("a link");
        assert_ne!(of(&stalled.inner.to_string()), of("self"), "{namespace}");
    }
    let net = stalled.text("net/dev");
    let names = net
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next());
    assert_eq!(names.map(str::trim).collect::<Vec<_>>(), ["lo"]);
    stalled.end();
}

#[test]
fn it_sees_nothing_but_its_directory() {
    needs!(Root);
    let stalled = stalled();
    let mut seen = mounts::of(&stalled.inner.to_string());
    seen.sort_by(|one, other| one.point.cmp(&other.point));
    let points: Vec<_> = seen.iter().map(|m| m.point.display().to_string()).collect();
    assert_eq!(points, ["/", "/0"], "{seen:?}");
    for (mount, option) in seen.iter().zip(["ro", "idmapped"]) {
        for option in ["nosuid", "nodev", "noexec", option] {
            let has = mount.options.split(',').any(|o| o == option);
            assert!(has, "{option}: {mount:?}");
        }
    }
    assert_eq!(stalled.names("/"), ["0"]);
    assert_eq!(stalled.names("/0"), ["first", &stalled.name]);
    stalled.end();
}

#[test]
fn it_holds_its_socket_its_archive_and_its_directory() {
    needs!(Root);
    let stalled = stalled();
    assert_eq!(stalled.text("environ"), "");
    let fds = fs::read_dir(format!("/proc/{}/fd", stalled.inner)).expect("list");
    let mut held: Vec<String> = Vec::new();
    for fd in fds.flatten() {
        let target = fs::read_link(fd.path())
            .expect("a link")
            .display()
            .to_string();
        held.push(target.split(':').next().unwrap_or_default().to_owned());
    }
    held.sort();
    // The directory, the one it works in at the moment, the file it writes; that which it sends progress with.
    let file = format!("/0/{}", stalled.name);
    let expected = [
        "/0",
        "/0",
        &file,
        "/dev/null",
        "/dev/null",
        "pipe",
        "socket",
        "socket",
    ];
    assert_eq!(held, expected);
    stalled.end();
}

#[test]
fn it_dies_with_the_process_that_waits_for_it() {
    needs!(Root);
    let stalled = stalled();
    let outer = nix::unistd::Pid::from_raw(stalled.outer as i32);
    nix::sys::signal::kill(outer, nix::sys::signal::Signal::SIGKILL).expect("kill it");
    let ended = eventually(bound(10_000), || stalled.thread.is_finished());
    assert!(ended, "the other one goes on");
    let ended = stalled.thread.join().expect("no panic");
    assert!(matches!(ended, Err(UnpackError::Ended(_))), "{ended:?}");
    // It may take a moment for someone to reap it.
    let gone = || procs::state(stalled.inner).is_none_or(|state| state == 'Z');
    assert!(eventually(bound(2_000), gone), "it is still there");
    drop(stalled.rest);
}

#[test]
fn the_role_does_nothing_for_a_person() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cellblock"));
    let output = command
        .arg(ROLE)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("run it");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
}
