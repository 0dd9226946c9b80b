//! Two things that cargo has no setting for: one defence left out of a debug build, and the tests' probe linked statically.

use std::env::var;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names a defence to leave out, so that the tests that prove it can be seen to fail: `tests/attacks --without NAME`.
const WITHOUT: &str = "CELLBLOCK_WITHOUT";

/// What can be left out; each stands once more in the source, as `cfg!(cellblock_without = "NAME")`.
const DEFENCES: [&str; 8] = [
    "capabilities",
    "cgroup-namespace",
    "landlock",
    "masked-paths",
    "network-namespace",
    "rlimits",
    "role-filters",
    "seccomp",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={WITHOUT}");
    if let Ok(name) = var(WITHOUT) {
        leave_out(&name);
    }
    if var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu") {
        link_examples_statically();
    }
}

fn leave_out(name: &str) {
    assert!(
        DEFENCES.contains(&name),
        "{WITHOUT}={name}: there are {}",
        DEFENCES.join(", ")
    );
    assert!(
        var("PROFILE").is_ok_and(|profile| profile == "debug"),
        "{WITHOUT} is for debug builds alone"
    );
    println!("cargo:rustc-cfg=cellblock_without=\"{name}\"");
    println!("cargo:warning=this build has no {name}: it is for tests alone");
}

/// `+crt-static` would do it, but can't be said of one program. So the linker is shown a directory that it searches first and
/// that has the static libraries only, under the names by which rustc asks for the shared ones. In a static program the
/// unwinder is in libgcc_eh.
fn link_examples_statically() {
    let libraries = PathBuf::from(var("OUT_DIR").expect("cargo sets it")).join("static");
    std::fs::create_dir_all(&libraries).expect("make a directory for the libraries");
    let linker = var("RUSTC_LINKER").unwrap_or_else(|_| "cc".to_owned());
    for name in ["gcc_s", "c", "m", "dl", "rt", "util", "pthread"] {
        let file = format!("lib{}.a", if name == "gcc_s" { "gcc_eh" } else { name });
        let asked = Command::new(&linker)
            .arg(format!("-print-file-name={file}"))
            .output();
        let said = asked.map_or_else(|_| Vec::new(), |output| output.stdout);
        let path = String::from_utf8_lossy(&said).trim().to_owned();
        // A compiler that has no such library repeats its name.
        if !Path::new(&path).is_absolute() {
            println!(
                "cargo:warning=no static {file} here: the probe of the tests can't run in an empty image"
            );
            return;
        }
        let link = libraries.join(format!("lib{name}.a"));
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&path, &link).expect("link a library");
    }
    for arg in ["-static", "-no-pie", &format!("-L{}", libraries.display())] {
        println!("cargo:rustc-link-arg-examples={arg}");
    }
}
