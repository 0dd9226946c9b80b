//! What a tenant does to the directories of his own tree is his affair: it may keep a command or a file from him, but no cell
//! from being built.

use crate::needs;
use crate::support::files::{read, write};
use crate::support::{Runtime, alone, api, runtime_with};
use serde_json::json;

/// What is done, then the statuses of: a command at home, one in `/`, reading and writing a file at home.
const CASES: [(&str, [u16; 4]); 11] = [
    ("chmod 000 /", [422, 422, 403, 403]),
    ("chmod 600 /", [422, 422, 403, 403]),
    ("chmod 000 /root", [422, 200, 403, 403]),
    ("rm -r /root", [422, 200, 404, 204]),
    ("rm -r /root; echo > /root", [422, 200, 422, 422]),
    ("rm -r /root; ln -s /etc /root", [200, 200, 404, 204]),
    ("rm -r /root; ln -s /nowhere /root", [422, 200, 404, 404]),
    ("rm -r /root; ln -s /root /root", [422, 200, 422, 422]),
    ("rm -r /tmp /etc /var", [200, 200, 404, 204]),
    ("chmod 000 /tmp /etc /var", [200, 200, 404, 204]),
    // Nobody can, while they are mounted; if anybody could, the next cell would have no place to mount on.
    (
        "chmod 000 /dev /dev/pts /dev/shm /proc; mv /dev /d; mv /proc /p; rm -rf /dev; rmdir /proc; mount --move /proc /p",
        [200, 200, 404, 204],
    ),
];

fn statuses(runtime: &Runtime) -> [u16; 4] {
    let exec = |cwd| runtime.try_exec(&json!({"command": "echo", "args": ["here"], "cwd": cwd}));
    let execs = [exec(None), exec(Some("/"))];
    for exec in &execs {
        match exec.status {
            200 => assert_eq!(exec.json()["data"]["stdout"], "here\n", "{}", exec.text()),
            _ => assert_eq!(
                exec.json()["error"]["details"]["field"],
                "cwd",
                "{}",
                exec.text()
            ),
        }
    }
    let [home, root] = execs;
    let (got, put) = (
        read(api(), runtime, "file"),
        write(api(), runtime, "file", b""),
    );
    [home.status, root.status, got.status, put.status]
}

#[test]
fn no_mode_and_no_missing_directory_of_his_keeps_a_cell_from_being_built() {
    needs!(Root);
    let _turn = alone();
    std::thread::scope(|scope| {
        for (line, expected) in CASES {
            scope.spawn(move || {
                let runtime = runtime_with(json!({"limits": {"disk_mib": 32}}));
                runtime.sh(line);
                assert_eq!(statuses(&runtime), expected, "{line}");
                for operation in ["stop", "start"] {
                    let path = format!("/v1/runtimes/{}/{operation}", runtime.id);
                    api().send("POST", &path, &[], None).data(200);
                }
                let expected = match expected[3] {
                    // The file is there now, and with it the home.
                    204 => [200, 200, 200, 204],
                    _ => expected,
                };
                assert_eq!(statuses(&runtime), expected, "{line}, started again");
            });
        }
    });
}
