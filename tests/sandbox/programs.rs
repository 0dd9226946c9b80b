//! Programs that are odd, and limits they are born with.

use crate::needs;
use crate::support::probe::Probe;
use crate::support::{alone, runtime, times, together};

#[test]
fn a_core_dump_is_handed_to_no_helper_of_the_host() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let exec = runtime.sh("grep 'core file' /proc/self/limits");
    let words: Vec<&str> = exec.stdout().split_whitespace().collect();
    // 1, not 0: core(5) hands a dump to a helper even where the limit is 0, but not where it is 1.
    assert_eq!(words, ["Max", "core", "file", "size", "1", "1", "bytes"]);
    let crash = runtime.sh("cd /root; kill -SEGV $$");
    assert_eq!(
        (crash.code(), crash.data["signal"].as_str()),
        (139, Some("SEGV")),
        "{crash:?}"
    );
    runtime.sh("ls -A /root").assert_stdout("");
}

#[test]
fn limits_cannot_be_raised() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let exec = runtime.sh("cat /proc/self/limits");
    assert!(
        exec.lines()
            .iter()
            .any(|line| line.starts_with("Max open files")),
        "{exec:?}"
    );
    runtime
        .sh("ulimit -H -n $(( $(ulimit -H -n) + 1 ))")
        .assert_failed();
    runtime.sh("ulimit -c unlimited").assert_failed();
}

#[test]
fn a_script_runs_with_its_interpreter() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime.sh("printf '#!/usr/bin/awk -f\\nBEGIN { print 6*7 }\\n' > /root/s; chmod +x /root/s; /root/s")
        .assert_stdout("42\n");
}

#[test]
fn a_pipeline_ends_quietly() {
    needs!(Root);
    let _turn = together();
    let exec = runtime().sh("yes | head -1; yes | head -c 3 | wc -c");
    assert_eq!((exec.stdout(), exec.stderr()), ("y\n3\n", ""), "{exec:?}");
}

#[test]
fn a_program_just_written_is_never_busy() {
    needs!(Root);
    let _turn = alone();
    let probe = Probe::in_runtime(runtime());
    let (threads, loops) = (4, 50);
    let rounds = times(10_000) / (threads * loops);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..rounds.max(1) {
                    probe
                        .run(&["write-exec", &loops.to_string()])
                        .assert_stdout("0\n");
                }
            });
        }
    });
}

#[test]
fn a_program_that_deletes_itself_or_its_directory_still_ends_well() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime
        .sh("cp /bin/sh /root/me; exec /root/me -c 'rm /root/me; echo gone'")
        .assert_stdout("gone\n");
    runtime
        .sh("mkdir /root/d; cd /root/d; rmdir /root/d; echo still")
        .assert_stdout("still\n");
    runtime.sh("rm -rf /root; exit 0");
    runtime
        .sh_with("mkdir -p /root; echo back", serde_json::json!({"cwd": "/"}))
        .assert_stdout("back\n");
}
