//! Who the server's processes are, seen from the host.

use crate::needs;
use crate::support::server::Options;
use crate::support::{Runtime, Server, alone, procs};
use cellblock::roles::powers;
use serde_json::json;

#[test]
fn the_api_has_no_privilege_left() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let pid = server.api_pid();
    let value = |key| procs::status(pid, key).unwrap_or_default();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(value(set), "0000000000000000", "{set}");
    }
    assert_eq!(value("NoNewPrivs"), "1");
    assert_eq!(value("Groups"), "", "supplementary groups");
    for key in ["Uid", "Gid"] {
        assert!(
            value(key).split_whitespace().all(|id| id != "0"),
            "{key}: {}",
            value(key)
        );
    }
}

/// Filters are inherited by what a thread starts, so one that was started too early would have none.
#[test]
fn every_thread_of_api_and_warden_is_filtered() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 64}}));
    // A command has its profile's three beside the warden's.
    let seen = runtime.sh("grep -E '^(Seccomp|NoNewPrivs)' /proc/self/status");
    seen.assert_code(0);
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(seen.stdout().contains(line), "{}", seen.stdout());
    }
    for (pid, least) in [(server.api_pid(), 3), (server.warden_pid(), 1)] {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("list threads");
        let mut count = 0;
        for task in tasks.flatten() {
            let text = std::fs::read_to_string(task.path().join("status"));
            let text = text.expect("a thread's status");
            for (key, value) in [("Seccomp", "2"), ("NoNewPrivs", "1")] {
                let found = procs::status_value(&text, key);
                assert_eq!(found.as_deref(), Some(value), "{key} of {:?}", task.path());
            }
            count += 1;
        }
        assert!(count >= least, "{count} threads of {pid}");
    }
}

/// Bits of capabilities as in a status file.
fn bits(capabilities: &[caps::Capability]) -> String {
    let mask = capabilities
        .iter()
        .fold(0, |mask, one| mask | one.bitmask());
    format!("{mask:016x}")
}

#[test]
fn warden_and_supervisor_keep_what_is_listed_and_no_more() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let children = [&powers::WARDEN[..], &powers::API_START].concat();
    let sets = |permitted: &[_], effective: &[_], bounding: &[_]| {
        [
            ("CapPrm", permitted),
            ("CapEff", effective),
            ("CapBnd", bounding),
            ("CapInh", &[]),
            ("CapAmb", &[]),
        ]
        .map(|(set, list)| (set, bits(list)))
    };
    let warden = sets(&powers::WARDEN, &powers::WARDEN, &powers::TOOLS);
    let supervisor = sets(&children, &powers::SUPERVISOR, &children);
    for (pid, wanted) in [(server.warden_pid(), warden), (server.pid, supervisor)] {
        for (set, mask) in wanted {
            assert_eq!(procs::status(pid, set), Some(mask), "{set} of {pid}");
        }
    }
}

#[test]
fn every_thread_of_the_api_has_dropped_them_too() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let pid = server.api_pid();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("list threads");
    for task in tasks.flatten() {
        let text = std::fs::read_to_string(task.path().join("status")).expect("a thread's status");
        let value = |key| procs::status_value(&text, key).unwrap_or_default();
        assert_eq!(value("CapEff"), "0000000000000000", "{:?}", task.path());
        assert_eq!(value("NoNewPrivs"), "1", "{:?}", task.path());
        assert!(
            !value("Uid").split_whitespace().any(|id| id == "0"),
            "{:?}",
            task.path()
        );
    }
}

#[test]
fn the_api_sees_neither_runtimes_nor_images() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let root = format!("/proc/{}/root", server.api_pid());
    for path in [
        server.data_dir(),
        "/etc/passwd".into(),
        "/proc".into(),
        "/usr".into(),
    ] {
        let seen = format!("{root}{}", path.display());
        assert!(
            !std::path::Path::new(&seen).exists(),
            "the api sees {}",
            path.display()
        );
    }
    assert!(std::path::Path::new(&format!("{root}/state/cellblock.db")).exists());
}

#[test]
fn the_warden_has_one_thread_and_no_network_socket() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 64}}));
    runtime.sh("true").assert_code(0);
    let pid = server.warden_pid();
    assert_eq!(procs::status(pid, "Threads").as_deref(), Some("1"));
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("list descriptors")
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            link.to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')
                .map(str::to_owned)
        })
        .collect();
    let net = format!("/proc/{pid}/net");
    for table in ["tcp", "tcp6", "udp", "udp6", "raw"] {
        let text = std::fs::read_to_string(format!("{net}/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let inode = line.split_whitespace().nth(9).unwrap_or_default();
            assert!(
                !sockets.iter().any(|socket| socket == inode),
                "{table}: {line}"
            );
        }
    }
}

#[test]
fn the_binary_that_runs_is_a_sealed_copy() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    for pid in [server.api_pid(), server.warden_pid()] {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).expect("its program");
        assert!(
            exe.display().to_string().contains("memfd:"),
            "{}",
            exe.display()
        );
        let write = std::fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/{pid}/exe"));
        assert!(write.is_err(), "the running program can be written to");
    }
}
