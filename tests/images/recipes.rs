//! The README's images that need no registry, made as it says and run.

use crate::fixtures::{Place, succeeded};
use crate::needs;
use crate::support::server::{Options, Server};
use crate::support::{Runtime, together};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn a_static_busybox_makes_an_image() {
    needs!(Root, Busybox);
    let _turn = together();
    let server = Server::start(Options::default());
    let place = Place::new();
    let line = "mkdir -p bb/bin && cp /bin/busybox bb/bin/ && chroot bb /bin/busybox --install -s /bin \\
        && tar -C bb -c . | \"$1\" image import busybox - --data-dir \"$2\"";
    let output = Command::new("sh")
        .args(["-ec", line, "sh", env!("CARGO_BIN_EXE_cellblock")])
        .arg(server.data_dir())
        .current_dir(place.path(""))
        .output();
    succeeded(&output.expect("run a shell"));
    let runtime = Runtime::create(&server.api, &json!({ "image": "busybox" }));
    runtime
        .sh("readlink /bin/sh; echo a b | awk '{print $2}'; ls -d /usr 2>&1 || true")
        .assert_stdout("/bin/busybox\nb\nls: /usr: No such file or directory\n");
}

#[test]
fn a_minimal_debian_makes_an_image() {
    needs!(Root, Mmdebstrap);
    let _turn = together();
    let server = Server::start(Options::default());
    let place = Place::new();
    let imported = place.import_into(&server.data_dir(), "debian", &debian());
    succeeded(&imported);
    let runtime = Runtime::create(&server.api, &json!({ "image": "debian" }));
    let exec = runtime
        .sh(". /etc/os-release; echo $ID; perl -e 'print 6*7, \"\\n\"'; stat -c %a /usr/bin/su");
    // Its setuid bit is gone.
    exec.assert_stdout("debian\n42\n755\n");
}

/// The archive, made once for all runs: that takes a minute.
fn debian() -> PathBuf {
    let archive = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian.tar");
    if !archive.exists() {
        let new = archive.with_extension("new.tar");
        let output = Command::new("mmdebstrap")
            .args(["--variant=minbase", "--skip=output/dev"])
            // A mirror that stands still is as good here.
            .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
            .arg("stable")
            .arg(&new)
            .output();
        succeeded(&output.expect("run mmdebstrap"));
        fs::rename(&new, &archive).expect("rename");
    }
    archive
}
