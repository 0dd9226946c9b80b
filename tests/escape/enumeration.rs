//! What a command finds out about the machine: all that its probe reads is on the list of SECURITY.md, and nothing names the
//! host.

use crate::needs;
use crate::support::probe::Probe;
use crate::support::{Runtime, image, mounts::TestDir, runtime, runtime_with, server, together};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;

/// Patterns of the list: in its section, the words in backticks that begin with `/proc`.
fn listed() -> Vec<&'static str> {
    let text = include_str!("../../SECURITY.md");
    let (_, section) = text
        .split_once("\n## What a cell knows of the host\n")
        .expect("the list");
    let section = section.split("\n## ").next().expect("a part");
    let words = section.split('`').skip(1).step_by(2);
    words.filter(|word| word.starts_with("/proc")).collect()
}

/// `*` is any part of one name, `**` at the end all that is below.
fn matches(pattern: &str, path: &str) -> bool {
    if let Some(above) = pattern.strip_suffix("/**") {
        return path
            .strip_prefix(above)
            .is_some_and(|rest| rest.starts_with('/'));
    }
    let (names, parts) = (path.split('/'), pattern.split('/'));
    names.clone().count() == parts.clone().count()
        && names.zip(parts).all(|(name, part)| one_matches(part, name))
}

fn one_matches(part: &str, name: &str) -> bool {
    match part.split_once('*') {
        Some((start, end)) => {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
        None => part == name,
    }
}

#[test]
fn patterns_match_names_and_no_more() {
    assert!(matches("/proc/sys/net/**", "/proc/sys/net/ipv4/x"));
    assert!(!matches("/proc/sys/net/**", "/proc/sys/network"));
    assert!(matches("/proc/*/status", "/proc/1/status") && !matches("/proc/*", "/proc/1/status"));
    assert!(!matches("/proc/stat", "/proc/status"));
}

/// What names this machine or its people.
fn names_of_the_host() -> BTreeSet<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut names = BTreeSet::new();
    names.insert(
        nix::unistd::gethostname()
            .map_or(String::new(), |name| name.to_string_lossy().into_owned()),
    );
    names.insert(read("/etc/machine-id").trim().to_owned());
    names.insert(read("/proc/cmdline").trim().to_owned());
    for word in read("/proc/cmdline").split_whitespace() {
        names.extend(
            word.split_once('=')
                .filter(|(key, _)| key.contains("root"))
                // The mount table names the device that /usr is on.
                .filter(|(_, value)| !value.starts_with("/dev/"))
                .map(|(_, value)| value.to_owned()),
        );
    }
    for device in std::fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten()
    {
        let address = read(&device.path().join("address").display().to_string());
        names.insert(address.trim().to_owned());
    }
    for address in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let text = address
            .address
            .and_then(|address| Some(address.as_sockaddr_in()?.ip().to_string()));
        names.extend(text);
    }
    names.insert(server().data_dir().display().to_string());
    names.insert(env!("CARGO_MANIFEST_DIR").to_owned());
    let usual = ["localhost", "127.0.0.1", "00:00:00:00:00:00"];
    names.retain(|name| name.len() > 4 && !usual.contains(&name.as_str()));
    names
}

/// The findings of the probe in a runtime: (kind, what, detail).
fn look(runtime: Runtime) -> Vec<(String, String, String)> {
    let probe = Probe::in_runtime(runtime);
    let body = json!({"command": crate::support::probe::INSIDE, "args": ["look"], "max_output_bytes": 8 << 20});
    let exec = probe.runtime.exec(&body);
    exec.assert_code(0);
    assert_ne!(exec.data["stdout_truncated"], true);
    let lines = exec.lines();
    let found = lines.iter().filter_map(|line| {
        let mut words = line.splitn(3, '\t').map(str::to_owned);
        Some((words.next()?, words.next()?, words.next()?))
    });
    found.collect()
}

/// Holds what was found against the list; `places` may be there, of those that hold things of the host elsewhere.
fn assert_listed(found: &[(String, String, String)], places: &[&str]) {
    let of = |wanted: &str| -> Vec<&str> {
        let these = found.iter().filter(|(kind, _, _)| kind == wanted);
        these.map(|(_, what, _)| what.as_str()).collect()
    };
    let listed = listed();
    assert!(listed.len() > 20, "{listed:?}");
    let read = of("read");
    assert!(read.len() > 100, "it read next to nothing: {read:?}");
    let unlisted: Vec<&&str> = read
        .iter()
        .filter(|path| !listed.iter().any(|pattern| matches(pattern, path)))
        .collect();
    assert!(
        unlisted.is_empty(),
        "readable and not on the list of SECURITY.md: {unlisted:#?}"
    );
    // Opened only: the kernel refuses what is written to these of another process, as `powers` sees.
    let opened =
        |path: &&str| path.starts_with("/proc/1/attr/") || *path == "/proc/1/timerslack_ns";
    let foreign: Vec<&str> = of("write")
        .into_iter()
        .filter(|path| !path.starts_with("/proc/self/") && !opened(path))
        .collect();
    assert!(foreign.is_empty(), "can be opened for writing: {foreign:?}");
    let devices = of("device");
    let strange = |path: &&&str| !path.starts_with("/dev/");
    assert!(
        !devices.is_empty() && !devices.iter().any(|path| strange(&path)),
        "{devices:?}"
    );
    let set_id = of("set-id");
    assert!(
        set_id.iter().all(|path| path.starts_with("/usr/")),
        "{set_id:?}"
    );
    assert_eq!(of("socket"), Vec::<&str>::new());
    assert_eq!(
        of("interface"),
        ["lo", "lo", "lo"][..of("interface").len().min(3)]
    );
    let strange = |place: &&str| !places.contains(place);
    assert!(!of("place").iter().any(strange), "{:?}", of("place"));
    for (_, kind, link) in found.iter().filter(|(kind, _, _)| kind == "namespace") {
        let host = std::fs::read_link(Path::new("/proc/self/ns").join(kind)).expect("a namespace");
        assert_ne!(*link, host.display().to_string(), "{kind}");
    }
    let variables = BTreeSet::from_iter(of("variable"));
    let given = BTreeSet::from([
        "HOME", "HOSTNAME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "USER",
    ]);
    assert!(variables.is_subset(&given), "{variables:?}");
    for name in names_of_the_host() {
        let telling: Vec<_> = found
            .iter()
            .filter(|(_, _, detail)| detail.contains(&name))
            .collect();
        assert!(telling.is_empty(), "{name}: {telling:?}");
    }
}

/// With the image `host`, where the machine has any.
const MODULES: [&str; 1] = ["/lib/modules"];

#[test]
fn all_that_is_found_of_the_host_is_on_the_list() {
    needs!(Root);
    let _turn = together();
    assert_listed(&look(runtime()), &MODULES);
}

#[test]
fn nor_is_there_more_under_the_strict_profile_or_in_another_image() {
    needs!(Root);
    let _turn = together();
    let strict = runtime_with(json!({"profile": "strict"}));
    assert_listed(&look(strict), &MODULES);
    let dir = TestDir::new();
    let rootfs = dir.path().join("rootfs");
    image::rootfs(&rootfs);
    image::add_program(&rootfs, Path::new("/bin/chmod"), "bin/chmod");
    image::add(server(), "enumerated", &rootfs).expect("add the image");
    let imported = runtime_with(json!({"image": "enumerated"}));
    assert_listed(&look(imported), &[]);
}
