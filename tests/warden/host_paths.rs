//! Paths in a command or an operation on files: they are the payload's, and lead nowhere that a command is not.

use crate::needs;
use crate::raw::Raw;
use crate::requests::{exec, shell};
use crate::state::SECRET;
use crate::support::together;
use cellblock::cell::file::{Operation, Refusal, Report};
use cellblock::warden::protocol::{CellEnd, Filesystem};
use std::ffi::CString;
use uuid::Uuid;

#[test]
fn no_working_directory_leads_to_the_host() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let host = raw.host().display().to_string();
    let line =
        format!("cat secret {host}/secret ../secret ../host/secret; ls /proc/self/cwd/; pwd");
    let magic = (0..100).flat_map(|fd| {
        let own = format!("/proc/self/fd/{fd}");
        [format!("{own}{host}"), own]
    });
    let links = [
        "/proc/1/root",
        "/proc/self/root",
        "/proc/1/cwd",
        "/proc/self/cwd",
        "/proc/thread-self/root",
    ];
    for cwd in magic.chain(links.map(str::to_owned)) {
        let ran = raw.run(exec(raw.runtime), &shell(&cwd, &line).encode());
        assert!(matches!(ran.end, CellEnd::CwdRefused(_)), "{cwd}: {ran:?}");
    }
    let up = "/..".repeat(40) + &host;
    for cwd in [
        &host,
        &up,
        "../../..",
        "",
        "proc/self/root",
        "/proc/self/task/../../1/root",
    ] {
        let ran = raw.run(exec(raw.runtime), &shell(cwd, &line).encode());
        assert!(!ran.text().contains(SECRET), "{cwd}: {ran:?}");
    }
    raw.assert_well("working directories");
}

/// A read's report and what came of the file.
fn read(raw: &Raw, runtime: Uuid, path: &str) -> (Report, Vec<u8>) {
    let path = CString::new(path).expect("no NUL");
    let ran = raw.run(exec(runtime), &Operation::Read(path).encode());
    let report = ran.err.try_into().expect("one report");
    (Report::decode(report).expect("a report"), ran.out)
}

#[test]
fn no_path_of_a_file_operation_reads_what_is_the_hosts() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let id = Uuid::now_v7();
    raw.create(id, Filesystem::Persistent);
    let host = raw.host().display().to_string();
    let tree = format!(
        "mkdir -p /t/deep && cd /t && ln -s /etc/shadow shadow && ln -s {host}/secret secret && ln -s {host} host \
         && ln -s ../../../../../../../../..{host}/secret up && ln -s /proc/1/root root && ln -s /proc/self/fd fds \
         && ln -s loop loop && ln -s /proc/self/mem mem && mkfifo fifo && echo own > own"
    );
    let ran = raw.sh(id, &tree);
    assert_eq!(
        ran.end,
        CellEnd::Exited(0),
        "{}",
        String::from_utf8_lossy(&ran.err)
    );
    let mut paths = vec![
        format!("{host}/secret"),
        format!("{}{host}/secret", "/..".repeat(30)),
        format!("/proc/1/root{host}/secret"),
        format!("/proc/self/root{host}/secret"),
        format!("/proc/self/cwd{host}/secret"),
        format!("/t/root{host}/secret"),
    ];
    let inside = [
        "secret",
        "host/secret",
        "up",
        "root/etc/shadow",
        "fds/3",
        "fds/0",
        "loop",
        "mem",
        "fifo",
        ".",
    ];
    paths.extend(inside.map(|name| format!("/t/{name}")));
    let others = [
        "",
        "/",
        "..",
        "etc/shadow",
        "/proc/kcore",
        "/dev/zero",
        "/proc/1/environ",
        "/dev/fd/3",
    ];
    paths.extend(others.map(str::to_owned));
    paths.extend((3..30).map(|fd| format!("/proc/self/fd/{fd}")));
    for path in paths {
        let (report, bytes) = read(&raw, id, &path);
        assert!(matches!(report, Report::Refused(_)), "{path}: {report:?}");
        assert_eq!(bytes, b"", "{path}");
    }
    // The runtime has a file of that name of its own, or none: the host's it never is.
    let shadow = std::fs::read("/etc/shadow").expect("the host's");
    for path in [
        "/etc/shadow",
        "/t/shadow",
        "/../../etc/shadow",
        "/t/root/../etc/shadow",
    ] {
        let (report, bytes) = read(&raw, id, path);
        assert!(bytes != shadow || bytes.is_empty(), "{path}: {report:?}");
    }
    assert_eq!(
        read(&raw, id, "/t/own"),
        (Report::Ready(4), b"own\n".to_vec())
    );
    raw.delete(id);
    raw.assert_well("reads of the host's files");
}

/// What is written at a path of the host's is a file of the runtime's.
#[test]
fn no_path_of_a_file_operation_writes_to_the_host() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let id = Uuid::now_v7();
    raw.create(id, Filesystem::Persistent);
    let host = raw.host().display().to_string();
    let links = format!("ln -s {host}/secret /link && ln -s {host}/directory /directory");
    let ran = raw.sh(id, &links);
    let said = String::from_utf8_lossy(&ran.err);
    assert_eq!(ran.end, CellEnd::Exited(0), "{said}");
    // Its stdin is at its end at once, so no write is completed: what counts is where the way leads.
    for path in [
        format!("{host}/secret"),
        format!("{host}/new"),
        format!("/proc/1/root{host}/new"),
        "/link".to_owned(),
        "/directory/new".to_owned(),
        "/proc/sysrq-trigger".to_owned(),
        "/proc/sys/kernel/core_pattern".to_owned(),
        "/sys/fs/cgroup/x".to_owned(),
        "/usr/bin/true".to_owned(),
        "/dev/null".to_owned(),
        "relative".to_owned(),
    ] {
        let operation = Operation::Write(CString::new(path.as_str()).expect("no NUL"));
        let ran = raw.run(exec(id), &operation.encode());
        let done = ran
            .err
            .chunks_exact(Report::LENGTH)
            .filter_map(|bytes| Report::decode(bytes.try_into().expect("so long")));
        let done: Vec<Report> = done.collect();
        assert!(!done.contains(&Report::Done), "{path}: {done:?}");
        if path.starts_with("/usr") || path.starts_with("/proc/sys") {
            assert!(
                matches!(
                    done[..],
                    [Report::Refused(Refusal::Elsewhere | Refusal::Kernel(_))]
                ),
                "{path}: {done:?}"
            );
        }
    }
    raw.delete(id);
    raw.assert_well("writes to the host's files");
}
