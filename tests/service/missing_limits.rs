//! A host on which a limit cannot be enforced: refused with the remedy, or started only when told so. The controller is
//! taken away in a mount namespace of the server's own; the host's is never touched.

use crate::needs;
use crate::support::mounts::{self, TestDir};
use crate::support::server::Options;
use crate::support::timing::{bound, eventually};
use crate::support::{Server, alone};
use std::fs;
use std::path::PathBuf;

/// A machine without a controller, for the servers that are started with `options`.
struct Without {
    options: Options,
    /// Version 2: a group of ours that passes on every controller but one, and the one in it that servers take for the
    /// root of the tree.
    groups: Vec<PathBuf>,
}

/// Version 1: the controller's hierarchy is unmounted. Version 2: the tree is seen from a group that has no such controller.
fn without(controller: &str) -> Without {
    let (before, groups) = if mounts::all().iter().any(|mount| mount.fs == "cgroup") {
        (format!("umount /sys/fs/cgroup/{controller}"), Vec::new())
    } else {
        let outer = PathBuf::from(format!(
            "/sys/fs/cgroup/without-{controller}-{}",
            std::process::id()
        ));
        let inner = outer.join("root");
        fs::create_dir(&outer).expect("a group of our own");
        let others = ["memory", "pids", "cpu"]
            .into_iter()
            .filter(|name| *name != controller);
        for other in others {
            fs::write(outer.join("cgroup.subtree_control"), format!("+{other}"))
                .expect("enable a controller");
        }
        fs::create_dir(&inner).expect("a group in it");
        let before = format!("mount --bind {} /sys/fs/cgroup", inner.display());
        (before, vec![inner, outer])
    };
    let options = Options {
        before: Some(before),
        ..Options::default()
    };
    Without { options, groups }
}

impl Drop for Without {
    fn drop(&mut self) {
        for group in &self.groups {
            // A killed server's groups may be busy for a moment.
            let removed = eventually(bound(2000), || fs::remove_dir(group).is_ok());
            assert!(removed || std::thread::panicking(), "{group:?} is left");
        }
    }
}

/// What the refusal says may be accepted as missing.
fn remedies(said: &str) -> Vec<String> {
    let flags = said.split("--allow-missing-limits=").skip(1);
    let names = flags.map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_'));
    names
        .filter_map(|mut names| names.next().map(str::to_owned))
        .collect()
}

#[test]
fn a_missing_controller_stops_the_start_with_the_remedy() {
    needs!(Root, Unshare);
    let _turn = alone();
    for controller in ["memory", "pids"] {
        let machine = without(controller);
        let said = Server::start_in(TestDir::new(), machine.options.clone()).err();
        let said = said.unwrap_or_else(|| panic!("it started without {controller}"));
        assert!(said.contains(controller), "{said}");
        assert!(
            said.contains("--allow-missing-limits"),
            "no remedy in {said}"
        );
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn an_explicit_flag_starts_without_and_readyz_says_so() {
    needs!(Root, Unshare);
    let _turn = alone();
    let machine = without("memory");
    let mut options = machine.options.clone();
    // As an operator would: start again with what the refusals name, until there is none.
    let mut allowed = Vec::new();
    while allowed.is_empty() || allowed.len() < 9 {
        let Err(said) = Server::start_in(TestDir::new(), options.clone()) else {
            break;
        };
        allowed.extend(remedies(&said));
        options.args = vec![format!("--allow-missing-limits={}", allowed.join(","))];
    }
    assert!(allowed.contains(&"memory".to_owned()), "{allowed:?}");
    let server = Server::start(options);
    let ready = server.api.with_token("").get("/readyz");
    assert_eq!(ready.status, 200, "{}", ready.text());
    assert!(ready.text().contains("memory"), "{}", ready.text());
    let body = serde_json::json!({"command": "echo", "args": ["hi"]});
    let data = server
        .api
        .post("/v1/runtimes/example/exec", &body)
        .data(200);
    assert_eq!(data["stdout"], "hi\n");
}

#[test]
fn allowing_one_limit_to_be_missing_allows_no_other() {
    needs!(Root, Unshare);
    let _turn = alone();
    let machine = without("memory");
    let mut options = machine.options.clone();
    options.args = vec!["--allow-missing-limits=pids".to_owned()];
    let said = Server::start_in(TestDir::new(), options)
        .err()
        .expect("it started");
    assert!(said.contains("memory"), "{said}");
}
