//! What the kernel counts per user must be counted per runtime, and what an exec used must be free for the next one.

use crate::needs;
use crate::support::{runtime, runtime_with, together};
use serde_json::json;

/// Takes inotify instances until there are no more; prints how many there were.
const TAKE_INOTIFY: &str = "
import ctypes, os, time
libc, count = ctypes.CDLL(None), 0
while libc.inotify_init1(0) >= 0: count += 1
print(count, flush=True)
";

#[test]
fn one_runtime_cannot_take_the_inotify_instances_of_another_or_of_root() {
    needs!(Root, Python);
    let _turn = together();
    let (greedy, other) = (runtime(), runtime());
    let number = |text: &str| text.trim().parse::<u32>().expect("a count");
    let hold = "\nopen('/root/taken', 'w').close()\nwhile not os.path.exists('/root/stop'): time.sleep(0.05)";
    let taken = std::thread::scope(|scope| {
        let held = scope.spawn(|| greedy.python(&format!("{TAKE_INOTIFY}{hold}")));
        let wait =
            "i=0; while [ ! -e /root/taken ] && [ $i -lt 300 ]; do sleep 0.05; i=$((i+1)); done";
        greedy.sh(wait).assert_code(0);
        let others = other.python(TAKE_INOTIFY);
        let roots = std::process::Command::new("/usr/bin/python3")
            .args(["-c", TAKE_INOTIFY])
            .output()
            .expect("run python on the host");
        greedy.sh("touch /root/stop").assert_code(0);
        assert!(number(others.stdout()) > 0, "another runtime gets none");
        assert!(
            number(&String::from_utf8_lossy(&roots.stdout)) > 0,
            "root gets none"
        );
        number(held.join().expect("the greedy exec").stdout())
    });
    assert!(taken > 0, "it took none itself");
}

#[test]
fn shared_memory_of_an_ended_exec_is_not_charged_to_the_next() {
    needs!(Root, Python);
    let _turn = together();
    let runtime = runtime_with(json!({"resources": {"requests": {"memory_mib": 64}}}));
    for _ in 0..4 {
        runtime
            .sh("head -c 40000000 /dev/zero > /dev/shm/x")
            .assert_code(0);
        runtime
            .python("a = bytearray(30 << 20); print(len(a))")
            .assert_code(0);
    }
}
