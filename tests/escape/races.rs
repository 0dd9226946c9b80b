//! A tenant that changes its own file tree while cells are being set up in it.

use crate::needs;
use crate::support::mounts::TestDir;
use crate::support::{alone, runtime, times};
use serde_json::json;
use std::thread;

#[test]
fn swapping_mount_points_for_links_during_set_up_creates_nothing_on_the_host() {
    needs!(Root);
    let _turn = alone();
    let canary = TestDir::new();
    std::fs::set_permissions(
        canary.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .expect("open the canary to everyone");
    let runtime = runtime();
    let target = canary.path().display();
    // The root directory is the tenant's own: whatever can be renamed in it is swapped, as fast as a shell can.
    let swap = format!(
        "cd /; mkdir -p mnt2; while :; do for d in tmp root mnt2 dev proc; do \
         mv $d $d.away && ln -s '{target}' $d; rm -f $d; mv $d.away $d; done; done 2>/dev/null"
    );
    thread::scope(|scope| {
        let rounds = times(500);
        let swapper = scope.spawn(|| {
            runtime.try_exec(&json!({
                "command": "sh", "args": ["-c", swap], "timeout_secs": 30,
            }))
        });
        let (mut done, mut ran) = (0, 0);
        while done < rounds && !swapper.is_finished() {
            let reply = runtime.try_exec(&json!({
                "command": "sh", "args": ["-c", "echo x > /tmp/x; echo x > /dev/null"], "cwd": "/",
            }));
            // A cell whose mount points are away can't be built.
            assert!(matches!(reply.status, 200 | 422 | 500), "{}", reply.text());
            done += 1;
            ran += usize::from(reply.status == 200);
        }
        assert!(
            done >= rounds.min(8) && ran > 0,
            "{done} rounds, {ran} of them ran: nothing was raced"
        );
        crate::support::api()
            .delete(&format!("/v1/runtimes/{}", runtime.id))
            .data(200);
        swapper.join().expect("no panic");
    });
    let left: Vec<_> = std::fs::read_dir(canary.path())
        .expect("list the canary")
        .flatten()
        .collect();
    assert!(
        left.is_empty(),
        "the host's directory was written to: {left:?}"
    );
}
