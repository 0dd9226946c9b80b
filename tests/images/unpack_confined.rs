//! The process that reads the archive: what it could do if the archive took it over.

use crate::archives::{Head, Place, Tar, unpacker};
use crate::needs;
use crate::support::{bound, eventually, mounts, procs};
use cellblock::config::DEFAULT_UID_BASE;
use cellblock::image::unpack::{Bounds, ROLE, UnpackError, Unpacked};
use std::fs;
use std::io::{PipeWriter, Write};
use std::os::fd::OwnedFd;
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
}

fn stalled() -> Stalled {
    let (read, mut rest) = std::io::pipe().expect("make a pipe");
    let mut head = Head::new("second", b'0');
    head.size = 10;
    let begin = Tar::new().file("first", b"x").entry(&head, b"");
    rest.write_all(&begin.0).expect("write the beginning");
    let place = Place::new();
    let fs = place.fs();
    let before = procs::with_arg(ROLE);
    let thread = std::thread::spawn(move || {
        let source = OwnedFd::from(read);
        unpacker().layer(source, None, &fs, &Bounds::default(), &mut |_| {})
    });
    let begun = eventually(bound(10_000), || place.at("second").exists());
    assert!(
        begun,
        "it did not begin: {:?}",
        thread.is_finished().then(|| thread.join())
    );
    let mut new = procs::with_arg(ROLE);
    new.retain(|pid| !before.contains(pid));
    // The children of a thread are those of its process.
    let outer = *new
        .iter()
        .find(|pid| procs::parent(**pid) == Some(std::process::id()))
        .expect("the role's first process");
    let inner = *new
        .iter()
        .find(|pid| procs::parent(**pid) == Some(outer))
        .expect("the confined process");
    Stalled {
        place,
        rest,
        thread,
        outer,
        inner,
    }
}

#[test]
fn it_has_no_right_and_sees_nothing_but_its_directory() {
    needs!(Root);
    let _turn = crate::support::alone();
    let stalled = stalled();
    let pid = stalled.inner;
    let status = |key: &str| procs::status(pid, key).expect("a status");

    let own = DEFAULT_UID_BASE + 1;
    let ids = format!("{own}\t{own}\t{own}\t{own}");
    assert_eq!(
        (status("Uid"), status("Gid"), status("Groups")),
        (ids.clone(), ids, String::new())
    );
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID.
    let four = format!("{:016x}", 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4);
    assert_eq!((status("CapEff"), status("CapPrm")), (four.clone(), four));
    for set in ["CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(status(set), "0000000000000000", "{set}");
    }
    assert_eq!(
        (status("NoNewPrivs"), status("Seccomp")),
        ("1".to_owned(), "2".to_owned())
    );
    assert_eq!(status("Threads"), "1");
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).expect("read the map");
    let map: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(map, ["0", own.to_string().as_str(), "65535"]);

    for namespace in ["user", "mnt", "pid", "net", "ipc", "uts"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).expect("a link");
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
    }
    let mut seen = mounts::of(&pid.to_string());
    seen.sort_by(|one, other| one.point.cmp(&other.point));
    let points: Vec<_> = seen
        .iter()
        .map(|m| (m.point.display().to_string(), m.fs == "tmpfs"))
        .collect();
    assert_eq!(
        points,
        [("/".to_owned(), true), ("/0".to_owned(), false)],
        "{seen:?}"
    );
    assert!(seen[0].options.starts_with("ro,"), "{seen:?}");
    for (mount, option) in seen.iter().zip(["ro", "idmapped"]) {
        for option in ["nosuid", "nodev", "noexec", option] {
            assert!(
                mount.options.split(',').any(|o| o == option),
                "{option}: {mount:?}"
            );
        }
    }
    let names = |dir: &str| -> Vec<_> {
        let entries = fs::read_dir(format!("/proc/{pid}/root{dir}")).expect("list");
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(
        (names("/"), names("/0")),
        (vec!["0".into()], vec!["first".into(), "second".into()])
    );

    let net = fs::read_to_string(format!("/proc/{pid}/net/dev")).expect("read net/dev");
    let devices: Vec<_> = net
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(
        devices.iter().map(|name| name.trim()).collect::<Vec<_>>(),
        ["lo"]
    );
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("read limits");
    for (limit, value) in [("Max address space", "1073741824"), ("Max processes", "0")] {
        let line = limits
            .lines()
            .find(|line| line.starts_with(limit))
            .expect("a limit");
        assert!(line.contains(value), "{line}");
    }
    assert!(
        fs::read(format!("/proc/{pid}/environ"))
            .expect("read environ")
            .is_empty()
    );
    for fd in fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("list")
        .flatten()
    {
        let target = fs::read_link(fd.path())
            .expect("a link")
            .display()
            .to_string();
        let harmless = ["socket:", "pipe:", "/dev/null", "/0"];
        assert!(
            harmless.iter().any(|begin| target.starts_with(begin)),
            "{target}"
        );
    }

    drop(stalled.rest);
    let refused = stalled
        .thread
        .join()
        .expect("no panic")
        .expect_err("it ends early");
    assert_eq!(refused.to_string(), "entry \"second\": ends early");
    assert_eq!(procs::with_arg(ROLE), [] as [u32; 0], "nobody is left");
    stalled.place.assert_untouched();
}

#[test]
fn it_dies_with_the_process_that_waits_for_it() {
    needs!(Root);
    let _turn = crate::support::alone();
    let stalled = stalled();
    let outer = nix::unistd::Pid::from_raw(stalled.outer as i32);
    nix::sys::signal::kill(outer, nix::sys::signal::Signal::SIGKILL).expect("kill it");
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
