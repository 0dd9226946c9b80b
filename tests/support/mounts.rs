//! The mount table, and the removal of a test's directory: a recursive delete must never walk into a mount.

use std::io;
use std::path::{Path, PathBuf};

/// One line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted, in the namespace that was asked.
    pub point: PathBuf,
    /// File system type.
    pub fs: String,
    /// Mount options and, after a comma, those of the file system.
    pub options: String,
    /// What is mounted: a device, or a word.
    pub source: String,
}

/// Parses a mountinfo file. Octal escapes (`\040`) are undone.
pub fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    Some(Mount {
        point: PathBuf::from(left.get(4)?.replace("\\040", " ")),
        fs: (*right.first()?).to_owned(),
        options: format!("{},{}", left.get(5)?, right.get(2)?),
        source: (*right.get(1)?).to_owned(),
    })
}

/// The mounts of this process's namespace.
pub fn all() -> Vec<Mount> {
    of("self")
}

/// The mounts that a process sees; none if it is gone.
pub fn of(pid: &str) -> Vec<Mount> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default())
}

/// The lines of a process's mountinfo with one of these words in them: where something is mounted, out of which directory of
/// its file system, or what.
pub fn naming(pid: &str, words: &[&str]) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let names = |line: &&str| words.iter().any(|word| line.contains(word));
    text.lines().filter(names).map(str::to_owned).collect()
}

/// Mounts at or below a directory.
pub fn below(dir: &Path) -> Vec<Mount> {
    all()
        .into_iter()
        .filter(|mount| mount.point.starts_with(dir))
        .collect()
}

/// A test's own directory, removed at the end. Not [`tempfile::TempDir`]'s own removal: that one would delete what a
/// left-behind mount shows.
#[derive(Debug)]
pub struct TestDir(PathBuf);

impl TestDir {
    /// A new one, 0700, where temporary files go.
    pub fn new() -> TestDir {
        let dir = tempfile::Builder::new()
            .prefix("cellblock-test-")
            .tempdir()
            .expect("temp dir");
        // A canonical path, as mountinfo writes it.
        TestDir(dir.keep().canonicalize().expect("canonical temp dir"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if let Err(why) = remove(&self.0) {
            eprintln!("left {} behind: {why}", self.0.display());
        }
    }
}

/// Deletes a directory tree, unless something is mounted in it.
pub fn remove(dir: &Path) -> io::Result<()> {
    if let Some(mount) = below(dir).first() {
        let text = format!(
            "{} is still mounted, nothing was deleted",
            mount.point.display()
        );
        return Err(io::Error::other(text));
    }
    std::fs::remove_dir_all(dir)
}
