//! An image with nothing in it but the probe: no shell, no library, no loader. What is refused, is refused by the cell and
//! not for want of a tool.

use crate::needs;
use crate::support::mounts::TestDir;
use crate::support::{Runtime, probe, runtime_with, server, together};
use serde_json::json;
use std::fs;

/// A runtime of that image.
fn bare(name: &str) -> Runtime {
    let dir = TestDir::new();
    let rootfs = dir.path().join("rootfs");
    fs::create_dir(&rootfs).expect("make the rootfs");
    let (from, to) = (probe::path(), rootfs.join("probe"));
    fs::copy(&from, &to).expect("copy the probe");
    let imported = crate::support::server::run(
        &["image", "import", name, &rootfs.display().to_string()],
        &[("CELLBLOCK_DATA_DIR", &server().data_dir())],
    );
    let said = String::from_utf8_lossy(&imported.stderr);
    assert!(imported.status.success(), "{said}");
    runtime_with(json!({"image": name}))
}

#[test]
fn the_probe_needs_nothing_of_an_image() {
    needs!(Root);
    let _turn = together();
    let runtime = bare("bare");
    let run = |args: &[&str]| runtime.exec(&json!({"command": "/probe", "args": args}));
    run(&["threads", "4"]).assert_stdout("4\n");
    let walked = run(&["walk"]);
    assert_eq!(walked.assert_code(0).lines().len(), 1, "{walked:?}");
    // The second are of one architecture.
    let calls = if cfg!(target_arch = "x86_64") { 50 } else { 0 };
    for (tricks, least) in [
        (&["powers"][..], 80),
        (&["refused"], calls),
        (&["into", "1"], 30),
    ] {
        let exec = run(tricks);
        exec.assert_code(0);
        assert!(exec.lines().len() >= least, "{tricks:?}: {exec:?}");
        let refused = ["\t1", "\t38", "\t13", "\t30"];
        let through: Vec<&str> = exec
            .lines()
            .into_iter()
            .filter(|line| !refused.iter().any(|errno| line.ends_with(errno)))
            .collect();
        assert_eq!(through, Vec::<&str>::new(), "{tricks:?}");
    }
    // Nothing else is there: not even what a wrong answer could be mistaken for.
    let shell = runtime.try_exec(&json!({"command": "sh", "args": ["-c", "true"]}));
    assert_eq!(shell.json()["data"]["exit_code"], 127, "{}", shell.text());
}
