//! What a warden holds and the host has, to be compared.

use crate::support::{leaks, mounts};
use std::fs;
use std::path::{Path, PathBuf};

/// What only root of the host may read, in the file `secret` of the host's tree.
pub const SECRET: &str = "only the host knows this";

/// What must not change, whatever is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct State {
    fds: Vec<(String, usize)>,
    /// Of the mounts that it sees: the host's are here too, and come and go.
    own_mounts: Vec<String>,
    host: Vec<(PathBuf, String)>,
    loops: usize,
    directories: Vec<String>,
}

impl State {
    /// As it is now, of a warden, the directory of its data and of the host's tree, and the name of its groups.
    pub fn of(pid: u32, dir: &Path, group: &str) -> State {
        let (data, host) = (&dir.join("data"), &dir.join("host"));
        let name = dir.file_name().expect("a name").to_string_lossy();
        let mut directories = Vec::new();
        for place in ["", "runtimes", "checkpoints", "images"] {
            for entry in fs::read_dir(data.join(place)).into_iter().flatten() {
                let name = entry.expect("an entry").file_name();
                directories.push(format!("{place}/{}", name.to_string_lossy()));
            }
        }
        directories.sort();
        State {
            fds: leaks::descriptors(&[pid]),
            own_mounts: mounts::naming(&pid.to_string(), &[&name, group]),
            host: tree(host),
            loops: leaks::loops(data),
            directories,
        }
    }
}

/// A few files and directories.
pub fn host_tree(at: &Path) {
    fs::create_dir_all(at.join("directory/below")).expect("make the host's tree");
    fs::write(at.join("secret"), SECRET).expect("write the secret");
    fs::write(at.join("directory/file"), "a file").expect("write a file");
    std::os::unix::fs::symlink("secret", at.join("link")).expect("link");
}

/// Everything below a directory, with what shows that it was touched.
fn tree(at: &Path) -> Vec<(PathBuf, String)> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let mut open = vec![at.to_owned()];
    while let Some(path) = open.pop() {
        let status = fs::symlink_metadata(&path).expect("look");
        if status.is_dir() {
            let entries = fs::read_dir(&path).expect("list");
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
        let (owner, mode) = ((status.uid(), status.gid()), status.mode());
        let changed = (status.ctime(), status.ctime_nsec(), status.size());
        found.push((path, format!("{owner:?} {mode:o} {changed:?}")));
    }
    found.sort();
    found
}
