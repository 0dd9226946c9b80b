//! A small rootfs directory for `cellblock image add`: a shell, a few tools and the libraries they load.

use super::server::Server;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the rootfs can run.
const TOOLS: &[&str] = &["sh", "cat", "ls", "id", "true", "sleep"];

/// Fills a directory with a rootfs whose `/dev`, `/proc`, `/tmp` and so on are empty directories.
pub fn rootfs(dir: &Path) {
    for name in [
        "bin",
        "dev",
        "etc",
        "proc",
        "root",
        "tmp",
        "sys",
        "usr/bin",
        "home/user",
    ] {
        fs::create_dir_all(dir.join(name)).expect("make the rootfs");
    }
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod tmp");
    fs::write(dir.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").expect("write passwd");
    for tool in TOOLS {
        add_program(
            dir,
            &PathBuf::from("/bin").join(tool),
            &format!("bin/{tool}"),
        );
    }
}

/// Copies a program of the host and the libraries it loads.
pub fn add_program(dir: &Path, program: &Path, to: &str) {
    fs::copy(program, dir.join(to)).expect("copy a program");
    for library in libraries(program) {
        let target = dir.join(library.strip_prefix("/").expect("an absolute path"));
        fs::create_dir_all(target.parent().expect("a parent")).expect("make a library directory");
        if !target.exists() {
            fs::copy(&library, target).expect("copy a library");
        }
    }
}

/// Absolute paths that ldd(1) prints.
fn libraries(program: &Path) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("run ldd");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// Adds a directory to a server's images. Gives what the program printed where it refused.
pub fn add(server: &Server, name: &str, dir: &Path) -> Result<(), String> {
    let dir = dir.display().to_string();
    let data = server.data_dir();
    let output = super::server::run(
        &["image", "add", name, &dir],
        &[("CELLBLOCK_DATA_DIR", &data)],
    );
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
