//! Files of the host, asked for through the file operations: whatever a command put in the way, they reach what a command
//! reaches and no more, and wait for nothing.

use crate::needs;
use crate::support::files::{begin, head, must_read, must_write, read, uri, write};
use crate::support::mounts::TestDir;
use crate::support::{
    Runtime, alone, api, bound, eventually, in_uids, procs, runtime, server, times, together,
};
use serde_json::json;
use std::io::{BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::thread;

/// A directory of the host that everybody may write to, with a file that everybody may read and write.
fn canary() -> TestDir {
    let dir = TestDir::new();
    let everyone = |path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    };
    everyone(dir.path().to_owned(), 0o777);
    std::fs::write(dir.path().join("kept"), "the host's").expect("write a canary");
    everyone(dir.path().join("kept"), 0o666);
    dir
}

fn assert_untouched(canary: &TestDir) {
    let names: Vec<_> = std::fs::read_dir(canary.path())
        .expect("list the canary")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["kept"], "something was made on the host");
    let kept = std::fs::read_to_string(canary.path().join("kept"));
    assert_eq!(kept.ok().as_deref(), Some("the host's"));
}

#[test]
fn no_link_leads_a_file_operation_to_the_host() {
    needs!(Root);
    let _turn = alone();
    let canary = canary();
    let path = canary.path().display().to_string();
    let shadow = std::fs::read("/etc/shadow").expect("the host's shadow file");
    let runtime = runtime();
    let line = format!(
        "ln -s /etc/shadow shadow; ln -s '{path}' dir; ln -s '{path}/kept' kept; ln -s ../../../../../..{path}/kept up; \
         ln -s /proc/1/root root1; ln -s /proc/self/root root; ln -s /proc/self/cwd cwd"
    );
    runtime.sh(&line).assert_code(0);
    let mut paths = vec![
        "shadow".to_owned(),
        "kept".to_owned(),
        "up".to_owned(),
        "dir/kept".to_owned(),
        format!("{path}/kept"),
        format!("/../../..{path}/kept"),
        format!("root/../..{path}/kept"),
        format!("cwd/../../..{path}/kept"),
    ];
    for root in [
        "root1",
        "root",
        "/proc/1/root",
        "/proc/self/root",
        "/proc/thread-self/root",
        "/proc/2/root",
    ] {
        paths.push(format!("{root}{path}/kept"));
        paths.push(format!("{root}/etc/shadow"));
    }
    for path in &paths {
        let reply = read(api(), &runtime, path);
        assert!(
            (400..500).contains(&reply.status) || reply.body.is_empty(),
            "{path}: {}",
            reply.text()
        );
        assert!(reply.body != shadow, "{path}");
        assert!(reply.took < bound(1_000), "{path}: {:?}", reply.took);
    }
    assert_untouched(&canary);
    // Written through a link, the file lands inside, at that path, and nowhere else.
    for path in &paths {
        let reply = write(api(), &runtime, path, b"from inside");
        assert!(
            matches!(reply.status, 204 | 403 | 422),
            "{path}: {}",
            reply.text()
        );
    }
    assert_untouched(&canary);
    assert!(std::fs::read("/etc/shadow").expect("the host's shadow file") == shadow);
    runtime
        .sh(&format!("cat '{path}/kept' /etc/shadow"))
        .assert_stdout("from insidefrom inside");
    api()
        .delete(&format!("/v1/runtimes/{}", runtime.id))
        .data(200);
    assert_untouched(&canary);
}

#[test]
fn no_descriptor_of_the_service_can_be_read_or_written() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let mut paths: Vec<String> = (0..24).map(|n| format!("/proc/self/fd/{n}")).collect();
    paths.extend((0..24).map(|n| format!("/proc/1/fd/{n}")));
    paths.extend((0..4).map(|n| format!("/dev/fd/{n}")));
    for name in [
        "exe",
        "mem",
        "environ",
        "maps",
        "cmdline",
        "root",
        "cwd/x",
        "attr/current",
        "ns/mnt",
        "map_files/x",
    ] {
        paths.push(format!("/proc/self/{name}"));
        paths.push(format!("/proc/1/{name}"));
    }
    for name in [
        "kcore",
        "kallsyms",
        "keys",
        "kmsg",
        "timer_list",
        "sysrq-trigger",
        "sys/kernel/core_pattern",
        "mounts",
    ] {
        paths.push(format!("/proc/{name}"));
    }
    paths.extend(["/dev/stdin", "/dev/stdout", "/dev/stderr"].map(str::to_owned));
    for path in &paths {
        for reply in [
            read(api(), &runtime, path),
            write(api(), &runtime, path, b"x"),
        ] {
            assert!(
                (400..500).contains(&reply.status),
                "{path}: {} {}",
                reply.status,
                reply.text()
            );
            assert!(reply.took < bound(1_000), "{path}: {:?}", reply.took);
        }
    }
    // Nor is anything made that is called like what such a link shows.
    runtime
        .sh("ls -d /memfd* /pipe* /*deleted* /anon* 2>/dev/null")
        .assert_failed();
}

/// The process in a runtime's uid range that is no init, and a look at it while an upload waits.
fn while_uploading<T>(runtime: &Runtime, look: impl FnOnce(u32) -> T) -> T {
    let uids = runtime.host_uids();
    let gone = || in_uids(&uids).is_empty();
    assert!(eventually(bound(5_000), gone), "something runs already");
    let headers = "Content-Length: 10\r\nExpect: 100-continue\r\n";
    let stream = begin(api(), "PUT", &uri(runtime, "upload"), headers);
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    // The file is open by then.
    assert_eq!(head(&mut reader).status, 100);
    let pids = in_uids(&uids);
    let payload = pids
        .iter()
        .copied()
        .find(|pid| pids.contains(&procs::parent(*pid).unwrap_or(0)));
    let result = look(payload.unwrap_or_else(|| panic!("no payload among {pids:?}")));
    (&stream).write_all(b"0123456789").expect("send the body");
    assert_eq!(head(&mut reader).status, 204);
    result
}

#[test]
fn who_touches_a_tenants_file_has_no_more_rights_than_a_command() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let of_a_command = runtime.sh("cat /proc/self/status; readlink /proc/self/ns/* | sort");
    while_uploading(&runtime, |pid| {
        let value = |key| procs::status(pid, key).unwrap_or_default();
        for key in [
            "CapInh",
            "CapPrm",
            "CapEff",
            "CapBnd",
            "CapAmb",
            "NoNewPrivs",
            "Seccomp",
            "Seccomp_filters",
        ] {
            let commands = procs::status_value(of_a_command.stdout(), key).unwrap_or_default();
            assert_eq!(value(key), commands, "{key}");
        }
        assert_eq!(
            (value("CapEff").as_str(), value("NoNewPrivs").as_str()),
            ("0000000000000000", "1")
        );
        assert_eq!(value("Seccomp"), "2");
        let link = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).ok();
        for namespace in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            let name = format!("ns/{namespace}");
            let hosts = std::fs::read_link(format!("/proc/self/{name}")).ok();
            assert!(link(&name).is_some() && link(&name) != hosts, "{namespace}");
        }
        // Its three streams and the directories and the file that it works on: nothing of the service's.
        let open: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("list its descriptors")
            .flatten()
            .filter_map(|entry| Some(std::fs::read_link(entry.path()).ok()?.display().to_string()))
            .collect();
        let pipes = open.iter().filter(|name| name.starts_with("pipe:")).count();
        let files = open.iter().filter(|name| name.starts_with("/root")).count();
        assert_eq!((pipes, files), (3, open.len() - 3), "{open:?}");
    });
    runtime.sh("cat upload").assert_stdout("0123456789");
}

#[test]
fn swapping_links_during_file_operations_reaches_nothing_of_the_host() {
    needs!(Root);
    let _turn = alone();
    let canary = canary();
    let path = canary.path().display().to_string();
    let runtime = runtime();
    // What a check might have seen is something else a moment later: a file, a link out, a FIFO, a directory, a device.
    let swap = format!(
        "mkdir -p d e; echo mine > d/kept; echo mine > e/kept; mkfifo fifo; \
         while [ -e d ] || [ -L d ]; do \
         mv d d.away; ln -s '{path}' d; ln -sf '{path}/kept' d.away/kept; rm d; ln -s /proc/self/fd d; rm d; \
         ln -s /dev d; rm d; mv d.away d; ln -sf ../fifo d/kept; rm d/kept; echo mine > d/kept; \
         mkdir d/x; rmdir d/x; done 2>/dev/null"
    );
    thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            runtime.try_exec(&json!({"command": "sh", "args": ["-c", swap], "timeout_secs": 60}))
        });
        let started = || read(api(), &runtime, "fifo").status == 422;
        assert!(eventually(bound(10_000), started));
        let rounds = times(300);
        for n in 0..rounds {
            let reply = match n % 2 {
                0 => read(api(), &runtime, "d/kept"),
                _ => write(api(), &runtime, "d/kept", b"from inside"),
            };
            let (status, text) = (reply.status, reply.text());
            assert!(
                matches!(status, 200 | 204 | 403 | 404 | 409 | 422),
                "{status} {text}"
            );
            assert!(!text.contains("the host's"), "read from the host");
            assert!(reply.took < bound(2_000), "{:?}", reply.took);
        }
        api()
            .delete(&format!("/v1/runtimes/{}", runtime.id))
            .data(200);
        swapper.join().expect("no panic");
    });
    assert_untouched(&canary);
}

#[test]
fn a_lease_does_not_hold_an_operation_up() {
    needs!(Root, Python);
    let _turn = alone();
    let runtime = runtime();
    must_write(api(), &runtime, "file", b"leased");
    // Breaking a lease takes its holder's consent, or 45 seconds (/proc/sys/fs/lease-break-time).
    let holder = "import fcntl,os,signal,time\n\
                  signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
                  f=os.open('file',os.O_RDWR)\n\
                  try:\n  fcntl.fcntl(f,fcntl.F_SETLEASE,fcntl.F_WRLCK)\n\
                  except OSError as e: print(e.errno)\n\
                  open('held','w').close()\n\
                  while os.path.exists('held'): time.sleep(0.02)\n";
    thread::scope(|scope| {
        let holding = scope.spawn(|| runtime.python(holder));
        let held = || read(api(), &runtime, "held").status == 200;
        assert!(eventually(bound(10_000), held));
        let reply = read(api(), &runtime, "file");
        assert!(matches!(reply.status, 200 | 409), "{}", reply.text());
        assert!(reply.took < bound(1_000), "{:?}", reply.took);
        let reply = write(api(), &runtime, "file", b"replaced");
        assert_eq!(reply.status, 204, "{}", reply.text());
        assert!(reply.took < bound(1_000), "{:?}", reply.took);
        runtime.sh("rm held").assert_code(0);
        holding.join().expect("no panic").assert_code(0);
    });
    assert_eq!(must_read(api(), &runtime, "file"), b"replaced");
}

#[test]
fn one_runtimes_files_are_no_others() {
    needs!(Root);
    let _turn = together();
    let (mine, theirs) = (runtime(), runtime());
    must_write(api(), &mine, "secret", b"mine");
    let reply = read(api(), &theirs, "secret");
    assert_eq!(reply.status, 404, "{}", reply.text());
    for runtime in [&mine, &theirs] {
        let data = server().data_dir().join("runtimes").join(&runtime.id);
        let reply = read(api(), &theirs, data.join("disk.img").display().to_string());
        assert_eq!(reply.status, 404, "{}", reply.text());
    }
}
