//! A host on which a limit cannot be enforced: refused with the remedy, or started only when told so. The controller is
//! taken away in a mount namespace of the server's own; the host's is never touched.

use crate::needs;
use crate::support::mounts::TestDir;
use crate::support::server::Options;
use crate::support::{Server, alone};

/// A shell line that takes a v1 controller's hierarchy away.
fn without(controller: &str) -> Options {
    let before = Some(format!("umount /sys/fs/cgroup/{controller}"));
    Options {
        before,
        ..Options::default()
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
    needs!(Root, Unshare, CgroupV1);
    let _turn = alone();
    for controller in ["memory", "pids"] {
        let said = Server::start_in(TestDir::new(), without(controller)).err();
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
    needs!(Root, Unshare, CgroupV1);
    let _turn = alone();
    let mut options = without("memory");
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
    needs!(Root, Unshare, CgroupV1);
    let _turn = alone();
    let mut options = without("memory");
    options.args = vec!["--allow-missing-limits=pids".to_owned()];
    let said = Server::start_in(TestDir::new(), options)
        .err()
        .expect("it started");
    assert!(said.contains("memory"), "{said}");
}
