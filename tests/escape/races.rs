//! A tenant that changes its own file tree, as fast as the kernel lets it, while cells are set up and files are read in it.

use crate::needs;
use crate::support::files::{read, write};
use crate::support::mounts::TestDir;
use crate::support::probe::{INSIDE, Probe};
use crate::support::{Runtime, alone, api, bound, eventually, runtime, times};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

/// What a racer exchanges, in /root: the first of a pair is what somebody asks for, the second the trap.
const PAIRS: [&str; 12] = [
    "dir",
    "dir-trap",
    "file",
    "file-trap",
    "tool",
    "tool-trap",
    "fifo-or-file",
    "fifo",
    "/dev",
    "/dev-trap",
    "/proc",
    "/proc-trap",
];

/// A directory of the host that everybody may write to, with a file in it.
fn canary() -> TestDir {
    let canary = TestDir::new();
    let everyone = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(canary.path(), everyone).expect("open the canary to everyone");
    std::fs::write(canary.path().join("file"), "the host's").expect("write a canary");
    canary
}

fn assert_untouched(canary: &TestDir) {
    let names: Vec<_> = std::fs::read_dir(canary.path())
        .expect("list the canary")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["file"], "the host's directory was written to");
    let text = std::fs::read_to_string(canary.path().join("file"));
    assert_eq!(text.ok().as_deref(), Some("the host's"));
}

/// How often each pair was exchanged, and the last errno of those that were not.
type Exchanged = Vec<(String, u64, i32)>;

/// Runs `rounds` of `round`, or as many as there is time for, while the racer runs in the same runtime; it goes on until the
/// last one is over. How many there were, too.
fn raced(canary: &TestDir, rounds: usize, round: impl Fn(&Runtime, usize)) -> (usize, Exchanged) {
    /// The racer is one request, and no request of a test takes longer than 90 s.
    const MOST: Duration = Duration::from_secs(45);
    let probe = Probe::in_runtime(runtime());
    let runtime = &probe.runtime;
    // The path of the canary exists inside as well, so that a link to it is followed to an end wherever it is looked up.
    let target = canary.path().display();
    let set_up = format!(
        "mkdir -p dir '{target}'; echo inside > '{target}/file'; ln -s '{target}' dir-trap; \
         echo mine > file; ln -s '{target}/file' file-trap; echo mine > dir/file; \
         printf '#!/bin/sh\\necho tool\\n' > tool; chmod +x tool; ln -s /proc/1/exe tool-trap; \
         echo mine > fifo-or-file; mkfifo fifo; ln -s '{target}' /dev-trap; ln -s '{target}' /proc-trap"
    );
    runtime.sh(&set_up).assert_code(0);
    let (mut lines, mut done) = (Vec::new(), 0);
    thread::scope(|scope| {
        let racer = scope.spawn(|| {
            let mut args = vec!["exchange", "85"];
            args.extend(PAIRS);
            runtime
                .exec(&json!({"command": INSIDE, "args": args, "cwd": "/root", "timeout_secs": 86}))
        });
        let racing = || runtime.sh("test -e /root/racing").code() == 0;
        assert!(eventually(bound(10_000), racing), "the racer did not start");
        let started = Instant::now();
        while done < rounds && (done < 2 || started.elapsed() < MOST) {
            assert!(!racer.is_finished(), "the racer ended after {done} rounds");
            round(runtime, done);
            done += 1;
        }
        assert!(
            !racer.is_finished(),
            "the racer ended before the last round"
        );
        runtime.sh("touch /root/stop").assert_code(0);
        let exec = racer.join().expect("no panic");
        lines = exec
            .assert_code(0)
            .lines()
            .into_iter()
            .map(str::to_owned)
            .collect();
    });
    let parse = |line: &String| {
        let words: Vec<&str> = line.split(' ').collect();
        let [first, _, exchanged, errno] = words.as_slice() else {
            panic!("{line}");
        };
        let (exchanged, errno) = (exchanged.parse(), errno.parse());
        (
            (*first).to_owned(),
            exchanged.expect("a count"),
            errno.expect("an errno"),
        )
    };
    (done, lines.iter().map(parse).collect())
}

/// Names of the tenant's own changed many times for each round; those that a cell mounts on, never: he has them mounted too.
fn assert_raced(exchanged: &Exchanged, rounds: usize) {
    for (name, count, errno) in exchanged {
        match name.starts_with('/') {
            true => assert_eq!((*count, *errno), (0, libc::EBUSY), "{name}"),
            false => assert!(
                *count > 10 * rounds as u64,
                "{name}: {count} in {rounds} rounds"
            ),
        }
    }
}

#[test]
fn names_exchanged_during_set_up_lead_no_cell_to_the_host() {
    needs!(Root);
    let _turn = alone();
    let canary = canary();
    let target = canary.path().display().to_string();
    let (rounds, exchanged) = raced(&canary, times(500), |runtime, n| {
        let reply = match n % 2 {
            0 => runtime.try_exec(&json!({
                "command": "sh", "cwd": "/root/dir",
                "args": ["-c", "pwd -P; cat file; echo x > made; echo x > /dev/null; echo x > /tmp/x"],
            })),
            _ => runtime.try_exec(&json!({"command": "/root/tool", "cwd": "/"})),
        };
        assert!(matches!(reply.status, 200 | 422), "{}", reply.text());
        assert!(!reply.text().contains("the host's"), "{}", reply.text());
        if reply.status == 200 && n % 2 == 0 {
            let (data, inside) = (reply.json(), format!("{target}\ninside\n"));
            let said = data["data"]["stdout"].as_str().expect("text").to_owned();
            assert!(
                said == "/root/dir\nmine\n"
                    || said == inside
                    || said.starts_with("/root/dir-trap\n"),
                "{said}"
            );
        }
    });
    assert_raced(&exchanged, rounds);
    assert_untouched(&canary);
}

#[test]
fn names_exchanged_during_file_operations_lead_none_to_the_host() {
    needs!(Root);
    let _turn = alone();
    let canary = canary();
    let (rounds, exchanged) = raced(&canary, times(500), |runtime, n| {
        let path = ["dir/file", "file", "fifo-or-file", "tool"][n / 2 % 4];
        let reply = match n % 2 {
            0 => read(api(), runtime, path),
            _ => write(api(), runtime, path, b"from inside"),
        };
        let (status, text) = (reply.status, reply.text());
        assert!(
            matches!(status, 200 | 204 | 403 | 404 | 409 | 422),
            "{status} {text}"
        );
        assert!(!text.contains("the host's"), "read from the host");
        assert!(reply.took < bound(5_000), "{path}: {:?}", reply.took);
    });
    assert_raced(&exchanged, rounds);
    assert_untouched(&canary);
}

#[test]
fn a_runtime_deleted_while_its_names_are_exchanged_takes_nothing_of_the_host_along() {
    needs!(Root);
    let _turn = alone();
    let canary = canary();
    for _ in 0..times(8) {
        let probe = Probe::in_runtime(runtime());
        let target = canary.path().display();
        let line = format!("mkdir dir; ln -s '{target}' trap");
        probe.runtime.sh(&line).assert_code(0);
        let body = json!({"command": INSIDE, "args": ["exchange", "60", "dir", "trap"], "timeout_secs": 70});
        thread::scope(|scope| {
            let racer = scope.spawn(|| probe.runtime.try_exec(&body));
            let racing = || probe.runtime.sh("test -e /root/racing").code() == 0;
            assert!(eventually(bound(10_000), racing), "the racer did not start");
            let path = format!("/v1/runtimes/{}", probe.runtime.id);
            api().delete(&path).data(200);
            racer.join().expect("no panic");
        });
    }
    assert_untouched(&canary);
}
