//! Who an image's `User` is, by the `/etc/passwd` and `/etc/group` of its layers.
//!
//! Both are looked for as the overlay of the layers shows them, but through no link: an image whose `/etc` is one has to
//! name its user by numbers.

use super::IDS;
use super::tree::{self, Found, found, open_dir};
use super::trouble::{Result, Trouble};
use crate::image::content::ImageUser;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstat, fstatat};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

/// Longest file that is read.
const MAX_FILE: u64 = 1 << 20;

/// A line of `/etc/passwd`.
#[derive(Debug, PartialEq, Eq)]
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Looks a user up in layers, the uppermost first.
pub fn find(layers: &[OwnedFd], user: &str) -> Result<ImageUser> {
    let passwd = read(layers, b"passwd")?;
    let group = if user.contains(':') {
        read(layers, b"group")?
    } else {
        String::new()
    };
    resolve(user, &passwd, &group)
}

/// The text of a file in `/etc`; none where the layers show no regular one. Lines that are no text are left out.
fn read(layers: &[OwnedFd], name: &[u8]) -> Result<String> {
    let failed = |errno: Errno| Trouble::Failed(format!("look in /etc: {}", errno.desc()));
    for layer in layers {
        let etc = match open_dir(layer.as_fd(), b"etc", OFlag::O_PATH) {
            Ok(etc) => etc,
            Err(Errno::ENOENT) => continue,
            // Something else hides the directories of the layers below.
            Err(Errno::ENOTDIR | Errno::ELOOP) => break,
            Err(errno) => return Err(failed(errno)),
        };
        let name = tree::c_path(name);
        match fstatat(&etc, &*name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(failed(errno)),
            Ok(status) if found(&status) != Found::Other => break,
            Ok(_) => {}
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&etc, &*name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::ELOOP) => break,
            Err(errno) => return Err(failed(errno)),
        };
        let status = fstat(&file).map_err(failed)?;
        if status.st_mode & libc::S_IFMT != libc::S_IFREG {
            break;
        }
        let mut bytes = Vec::new();
        let count = File::from(file)
            .take(MAX_FILE + 1)
            .read_to_end(&mut bytes)?;
        if count as u64 > MAX_FILE {
            let name = name.to_string_lossy();
            return Err(Trouble::refused(format!(
                "its /etc/{name} is longer than {MAX_FILE} bytes"
            )));
        }
        let lines = bytes.split(|byte| *byte == b'\n');
        let lines = lines.filter_map(|line| std::str::from_utf8(line).ok());
        return Ok(lines.collect::<Vec<_>>().join("\n"));
    }
    Ok(String::new())
}

/// As container runtimes do: a name before a number, and without a group that of the account, or 0.
pub(super) fn resolve(user: &str, passwd: &str, group: &str) -> Result<ImageUser> {
    let (user, group_name) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = id(user);
    let mut accounts = passwd.lines().filter_map(account);
    let account = accounts.find(|account| account.name == user).or_else(|| {
        passwd
            .lines()
            .filter_map(self::account)
            .find(|a| Some(a.uid) == number)
    });
    let uid = account.as_ref().map(|account| account.uid).or(number);
    let missing = |what: &str, file: &str| {
        Trouble::refused(format!(
            "the image's /etc/{file} has no such {what} (links are not followed); 0 to {} can be used by number",
            IDS - 1
        ))
    };
    let uid = uid.ok_or_else(|| missing("user", "passwd"))?;
    let gid = match group_name {
        None => account.as_ref().map_or(0, |account| account.gid),
        Some(name) => {
            let mut groups = group.lines().filter_map(group_line);
            let known = groups.find(|(known, _)| *known == name).map(|(_, gid)| gid);
            known
                .or(id(name))
                .ok_or_else(|| missing("group", "group"))?
        }
    };
    let home = account.as_ref().map(|account| account.home);
    Ok(ImageUser {
        uid,
        gid,
        name: account
            .as_ref()
            .map_or(uid.to_string(), |account| account.name.to_owned()),
        home: home
            .filter(|home| home.starts_with('/'))
            .unwrap_or("/")
            .to_owned(),
    })
}

fn account(line: &str) -> Option<Account<'_>> {
    let fields: Vec<&str> = plain(line)?.split(':').collect();
    match fields[..] {
        [name, _, uid, gid, _, home, ..] if !name.is_empty() && home.len() <= 4095 => {
            Some(Account {
                name: Some(name).filter(|name| name.len() <= 255)?,
                uid: id(uid)?,
                gid: id(gid)?,
                home,
            })
        }
        _ => None,
    }
}

fn group_line(line: &str) -> Option<(&str, u32)> {
    let mut fields = plain(line)?.split(':');
    let name = fields.next()?;
    let gid = id(fields.nth(1)?)?;
    Some((name, gid))
}

/// A line that can stand in an environment variable and on a terminal.
fn plain(line: &str) -> Option<&str> {
    Some(line).filter(|line| !line.chars().any(char::is_control))
}

/// An id that an image may use.
fn id(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let id = Some(text).filter(|_| digits)?.parse().ok()?;
    Some(id).filter(|id| *id < IDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        # a comment\n\
        bad:x:70000:0::/:\n\
        app:x:1000:1001:App,,,:/home/app:/bin/sh\n\
        1000:x:2000:2001::/home/digits:/bin/sh\n\
        relative:x:3000:3000::home:/bin/sh\n\
        short:x:4\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:app\nhuge:x:65535:\n";

    fn found(user: &str) -> Option<(u32, u32, String, String)> {
        let user = resolve(user, PASSWD, GROUP).ok()?;
        Some((user.uid, user.gid, user.name, user.home))
    }

    fn of(uid: u32, gid: u32, name: &str, home: &str) -> Option<(u32, u32, String, String)> {
        Some((uid, gid, name.to_owned(), home.to_owned()))
    }

    #[test]
    fn names_come_before_numbers_and_bring_their_group_and_home() {
        assert_eq!(found("app"), of(1000, 1001, "app", "/home/app"));
        assert_eq!(found("1000"), of(2000, 2001, "1000", "/home/digits"));
        assert_eq!(found("2000"), of(2000, 2001, "1000", "/home/digits"));
        assert_eq!(found(""), of(0, 0, "root", "/root"));
        assert_eq!(found("12"), of(12, 0, "12", "/"));
        assert_eq!(found("relative"), of(3000, 3000, "relative", "/"));
    }

    #[test]
    fn a_group_replaces_the_accounts() {
        assert_eq!(found("app:staff"), of(1000, 50, "app", "/home/app"));
        assert_eq!(found("app:7"), of(1000, 7, "app", "/home/app"));
        assert_eq!(found("12:34"), of(12, 34, "12", "/"));
        assert_eq!(found("app:"), of(1000, 1001, "app", "/home/app"));
        assert_eq!(found(":staff"), of(0, 50, "root", "/root"));
    }

    #[test]
    fn what_is_not_there_or_out_of_range_is_refused() {
        for user in [
            "nobody",
            "bad",
            "short",
            "70000",
            "65535",
            "-1",
            "+1",
            "app:none",
            "app:huge",
            "app:65535",
            "1 ",
        ] {
            assert_eq!(found(user), None, "{user}");
        }
    }
}
