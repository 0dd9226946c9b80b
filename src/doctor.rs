//! What a host must have: one list of checks, printed by `cellblock doctor` and enforced by `cellblock serve`.

use crate::cell::{mounts, userns};
use crate::cgroup::{CgroupHost, State};
use crate::config::Config;
use crate::log::chain;
use crate::profile::{Profile, ProfileSet, Rlimit};
use crate::warden::server::disk;
use crate::{image, landlock, sys};
use nix::sys::resource::Resource;
use std::os::fd::AsFd;
use std::path::Path;

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is there; perhaps a word on how.
    Ok(String),
    /// It is not there, but the operator allowed that or only some uses need it.
    Allowed(String),
    /// It is not there: `serve` refuses. Holds the remedy.
    Missing(String),
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// What was found.
    pub verdict: Verdict,
}

/// The oldest kernel on which an overlay can have idmapped lower layers.
const KERNEL: (u32, u32) = (5, 19);

/// Looks at everything that this configuration needs. Leaves nothing behind.
pub fn checks(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut add = |name: &str, result: Result<String, String>| {
        let verdict = result.map_or_else(Verdict::Missing, Verdict::Ok);
        checks.push(Check {
            name: name.to_owned(),
            verdict,
        });
    };
    let root = nix::unistd::geteuid().is_root();
    let as_root = if root {
        Ok(String::new())
    } else {
        Err("run as root (sudo)".to_owned())
    };
    add("root", as_root);
    add("kernel", kernel());
    if root {
        add("user namespaces", user_namespaces(config.uid_base));
        add("mount calls and idmapped mounts", idmapped(config));
    }
    for (name, needed_for) in [
        ("overlay", "every runtime"),
        ("ext4", "disks"),
        ("tmpfs", "cells"),
        ("proc", "cells"),
    ] {
        add(&format!("file system {name}"), filesystem(name, needed_for));
    }
    add(
        "loop devices",
        exists("/dev/loop-control", "load the module: modprobe loop"),
    );
    let tool = disk::mkfs()
        .map(str::to_owned)
        .ok_or_else(|| "install e2fsprogs".to_owned());
    add("mkfs.ext4", tool);
    add("root file system", pivotable());
    add("seccomp", seccomp());
    add(
        "image host",
        image::host::check().map(|()| "/usr".to_owned()),
    );
    let layer = landlock::describe(landlock::abi());
    checks.push(Check {
        name: "Landlock".to_owned(),
        verdict: layer.map_or_else(Verdict::Allowed, Verdict::Ok),
    });
    checks.extend(limits(config));
    match ProfileSet::load(config.profiles_dir.as_deref()) {
        Ok(set) => {
            checks.push(open_files(config, &set));
            checks.extend(set.iter().map(profile));
        }
        Err(error) => checks.push(Check {
            name: "profiles".to_owned(),
            verdict: Verdict::Missing(chain(&error)),
        }),
    }
    checks
}

/// The error that `serve` refuses with, naming each missing thing and its remedy.
pub fn refusal(config: &Config) -> Option<String> {
    let missing: Vec<String> = checks(config)
        .into_iter()
        .filter_map(|check| match check.verdict {
            Verdict::Missing(remedy) => Some(format!("\n  {}: {remedy}", check.name)),
            _ => None,
        })
        .collect();
    (!missing.is_empty()).then(|| format!("this host lacks what is needed:{}", missing.concat()))
}

fn kernel() -> Result<String, String> {
    let (release, version) = sys::kernel();
    if version >= KERNEL {
        Ok(release)
    } else {
        Err(format!(
            "{release} is too old: {}.{} or later is needed",
            KERNEL.0, KERNEL.1
        ))
    }
}

fn user_namespaces(base: u32) -> Result<String, String> {
    // Once as for idmapped mounts, once as a cell does it.
    userns::mapped(base)
        .and_then(|_| userns::try_unshare_as(base))
        .map(|()| String::new())
        .map_err(|error| {
            format!(
                "{}; see sysctl user.max_user_namespaces and the host's LSM",
                chain(&error)
            )
        })
}

/// Makes an idmapped copy of the directory that the data directory is or will be in, which takes open_tree(2),
/// mount_setattr(2) and a file system that supports it.
fn idmapped(config: &Config) -> Result<String, String> {
    let place = config
        .data_dir
        .ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(Path::new("/"));
    let made = userns::mapped(config.uid_base).and_then(|userns| {
        use crate::cell::error::Step;
        let dir = mounts::host_dir(place)?;
        let copy = sys::mount::open_tree_clone(dir.as_fd(), c"", false).step("open_tree")?;
        let attributes = mounts::READ_ONLY;
        sys::mount::mount_setattr(copy.as_fd(), attributes, Some(userns.as_fd()), false)
            .step("mount_setattr")
    });
    let remedy = "choose a --data-dir on ext4, xfs, btrfs or, from Linux 6.3, tmpfs";
    made.map(|()| String::new())
        .map_err(|error| format!("{}: {}; {remedy}", place.display(), chain(&error)))
}

fn filesystem(name: &str, needed_for: &str) -> Result<String, String> {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let listed = known
        .lines()
        .any(|line| line.split_whitespace().next_back() == Some(name));
    // A module is loaded by the first fsopen.
    if listed || std::ffi::CString::new(name).is_ok_and(|name| sys::mount::fsopen(&name).is_ok()) {
        Ok(format!("for {needed_for}"))
    } else {
        Err(format!("modprobe {name}, or a kernel with it"))
    }
}

fn exists(path: &str, remedy: &str) -> Result<String, String> {
    if Path::new(path).exists() {
        Ok(path.to_owned())
    } else {
        Err(remedy.to_owned())
    }
}

/// pivot_root(2) can't replace an initramfs.
fn pivotable() -> Result<String, String> {
    const RAMFS: nix::sys::statfs::FsType = nix::sys::statfs::FsType(0x8584_58f6);
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let rootfs = table
        .lines()
        .any(|line| line.split(' ').nth(4) == Some("/") && line.contains(" - rootfs "));
    let ram = nix::sys::statfs::statfs("/").is_ok_and(|status| status.filesystem_type() == RAMFS);
    if rootfs || ram {
        Err("the machine runs from an initramfs: pivot_root can't work; switch_root first".into())
    } else {
        Ok(String::new())
    }
}

fn seccomp() -> Result<String, String> {
    let path = "/proc/sys/kernel/seccomp/actions_avail";
    let actions = std::fs::read_to_string(path).unwrap_or_default();
    let has = |action| actions.split_whitespace().any(|word| word == action);
    if has("errno") && has("kill_process") && has("allow") {
        Ok("filters".to_owned())
    } else {
        Err("a kernel with CONFIG_SECCOMP_FILTER is needed".to_owned())
    }
}

fn limits(config: &Config) -> Vec<Check> {
    let host = match CgroupHost::discover("doctor") {
        Ok(host) => host,
        Err(error) => {
            let verdict = Verdict::Missing(chain(&error));
            return vec![Check {
                name: "cgroups".to_owned(),
                verdict,
            }];
        }
    };
    let mode = Verdict::Ok(format!("{:?}", host.mode()).to_lowercase());
    let mut checks = vec![Check {
        name: "cgroups".to_owned(),
        verdict: mode,
    }];
    let facilities = host.facilities();
    for name in &config.allow_missing_limits {
        if !facilities.iter().any(|facility| facility.name == name) {
            let names: Vec<_> = facilities.iter().map(|f| f.name).collect();
            let remedy = format!("{name:?} is no limit; use one of: {}", names.join(", "));
            let name = "allow_missing_limits".to_owned();
            checks.push(Check {
                name,
                verdict: Verdict::Missing(remedy),
            });
        }
    }
    for facility in facilities {
        let allowed = config
            .allow_missing_limits
            .iter()
            .any(|name| name == facility.name);
        let verdict = match facility.state {
            State::Available(how) => Verdict::Ok(how),
            State::Missing { remedy } if allowed => Verdict::Allowed(remedy),
            State::Missing { remedy } => Verdict::Missing(format!(
                "{remedy}; or accept it with --allow-missing-limits={}",
                facility.name
            )),
        };
        checks.push(Check {
            name: format!("limit {}", facility.name),
            verdict,
        });
    }
    checks
}

/// What the machine bounds for all its processes together (sysctl fs.file-max, proc_sys_fs(5)). Where busy runtimes reach it,
/// nobody but root can open a file any more.
fn open_files(config: &Config, profiles: &ProfileSet) -> Check {
    let machine = std::fs::read_to_string("/proc/sys/fs/file-max").unwrap_or_default();
    let machine = machine.trim().parse().unwrap_or(u64::MAX);
    let runtimes = u64::from(config.exec.max_execs / config.exec.max_execs_per_runtime.max(1));
    Check {
        name: "open files".to_owned(),
        verdict: enough_files(machine, runtimes.max(2), files_of_a_runtime(profiles)),
    }
}

/// How many a runtime may have open that gets what its profile gives without being asked.
fn files_of_a_runtime(profiles: &ProfileSet) -> u64 {
    let of = |profile: &Profile| {
        let files = |limit: &&Rlimit| limit.resource == Resource::RLIMIT_NOFILE;
        let each = profile.rlimits.iter().find(files);
        let each = each.map_or(u64::MAX, |limit| limit.hard);
        profile.limits.pids.default.saturating_mul(each)
    };
    profiles.iter().map(of).max().unwrap_or(0)
}

fn enough_files(machine: u64, runtimes: u64, each: u64) -> Verdict {
    let all = runtimes.saturating_mul(each);
    if machine >= all {
        return Verdict::Ok(format!("fs.file-max is {machine}"));
    }
    Verdict::Allowed(format!(
        "fs.file-max is {machine} for the whole machine, and {runtimes} busy runtimes may open {all}: set it to \
         9223372036854775807, as systemd does, and memory limits bound them"
    ))
}

fn profile(profile: &Profile) -> Check {
    let unknown = profile.unknown_syscalls();
    let verdict = match profile.compile_seccomp() {
        Err(error) => Verdict::Missing(chain(&error)),
        Ok(_) if unknown.is_empty() => Verdict::Ok("compiles".to_owned()),
        Ok(_) => Verdict::Ok(format!(
            "compiles; names no system call of this build: {}",
            unknown.join(" ")
        )),
    };
    Check {
        name: format!("profile {}", profile.name),
        verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_all_busy_runtimes_are_held_against_the_machines() {
        assert_eq!(
            files_of_a_runtime(&ProfileSet::load(None).unwrap()),
            256 * 8192
        );
        assert!(matches!(enough_files(800, 4, 200), Verdict::Ok(_)));
        assert!(matches!(enough_files(799, 4, 200), Verdict::Allowed(_)));
        // Nothing bounds one of them: no number is enough but the largest.
        assert!(matches!(
            enough_files(1 << 62, 4, u64::MAX),
            Verdict::Allowed(_)
        ));
        assert!(matches!(
            enough_files(u64::MAX, 4, u64::MAX),
            Verdict::Ok(_)
        ));
    }
}
