//! Which file a command means, seen from inside the cell with the command's own rights.

use nix::sys::stat::stat;
use nix::unistd::{AccessFlags, access};
use std::ffi::{CStr, CString};

/// What the search for an executable found.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// This file can be executed.
    Found(CString),
    /// There is such a file but it can't be executed: a directory, or no permission.
    NotExecutable(CString),
    /// Nothing of that name.
    NotFound,
}

/// Finds `command` as a shell would: a name with a slash is a path (relative to the cwd), another one is looked up on
/// `path`. An executable file later on the path wins over one that can't be executed before it.
pub fn find(command: &CStr, path: &[u8]) -> Lookup {
    let name = command.to_bytes();
    if name.is_empty() {
        return Lookup::NotFound;
    }
    if name.contains(&b'/') {
        return judge(command.to_owned());
    }
    let mut blocked = Lookup::NotFound;
    for directory in path.split(|byte| *byte == b':') {
        let directory = if directory.is_empty() {
            b"."
        } else {
            directory
        };
        let Ok(candidate) = CString::new([directory, b"/", name].concat()) else {
            continue;
        };
        match judge(candidate) {
            Lookup::Found(file) => return Lookup::Found(file),
            // A directory on the path is not what a bare name means.
            Lookup::NotExecutable(file) if !is_directory(&file) => {
                blocked = Lookup::NotExecutable(file);
            }
            _ => {}
        }
    }
    blocked
}

fn judge(file: CString) -> Lookup {
    let Ok(status) = stat(file.as_c_str()) else {
        // A file behind a directory that may not be searched exists for nobody here.
        return Lookup::NotFound;
    };
    let regular = status.st_mode & libc::S_IFMT == libc::S_IFREG;
    if regular && access(file.as_c_str(), AccessFlags::X_OK).is_ok() {
        Lookup::Found(file)
    } else {
        Lookup::NotExecutable(file)
    }
}

fn is_directory(file: &CStr) -> bool {
    stat(file).is_ok_and(|status| status.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Whether a string that names no executable is meant as a line for the shell: it holds white space or a character that
/// means something to it.
pub fn looks_like_shell(command: &[u8]) -> bool {
    command
        .iter()
        .any(|byte| byte.is_ascii_whitespace() || b"|&;<>()$`\\\"'*?[]#~=%!{}".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn prefers_an_executable_later_on_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let make = |folder: &str, mode| {
            let folder = dir.path().join(folder);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("tool"), "").unwrap();
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(folder.join("tool"), mode).unwrap();
            folder.to_str().unwrap().to_owned()
        };
        let (plain, runnable) = (make("plain", 0o644), make("runnable", 0o755));
        std::fs::create_dir_all(dir.path().join("third/tool")).unwrap();
        let third = dir.path().join("third").to_str().unwrap().to_owned();
        let search = |path: &str| find(c"tool", path.as_bytes());
        let file = |folder: &str| CString::new(format!("{folder}/tool")).unwrap();
        assert_eq!(
            search(&format!("{plain}:{runnable}")),
            Lookup::Found(file(&runnable))
        );
        assert_eq!(search(&plain), Lookup::NotExecutable(file(&plain)));
        assert_eq!(search(&third), Lookup::NotFound);
        assert_eq!(find(c"", b"/bin"), Lookup::NotFound);
        assert_eq!(find(c"/", b"/bin"), Lookup::NotExecutable(c"/".to_owned()));
        assert_eq!(find(c"/nowhere/at/all", b"/bin"), Lookup::NotFound);
    }

    #[test]
    fn tells_a_shell_line_from_a_name() {
        for line in ["echo hi", "a|b", "$X", "x;y", "a\tb", "~/x", "`x`", "A=1"] {
            assert!(looks_like_shell(line.as_bytes()), "{line}");
        }
        for name in [
            "ls",
            "python3.11",
            "/usr/bin/env",
            "g++",
            "a_b-c",
            "x:y",
            "a@b",
            "a,b",
        ] {
            assert!(!looks_like_shell(name.as_bytes()), "{name}");
        }
    }
}
