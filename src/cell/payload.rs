//! The tenant's command, from fork to execve: gives up every right first, then resolves the working directory and the
//! command with what is left, and installs the seccomp filter last. Or, in place of a command, an operation on a file.

use crate::cell::command::{Decoded, MAX_ENCODED};
use crate::cell::error::{Result, Step};
use crate::cell::file::{self, Operation};
use crate::cell::identity::Ids;
use crate::cell::lookup::{self, Lookup};
use crate::cell::report::FromCell;
use crate::cell::report::{Stdio, report_failure, tell};
use crate::cell::{Sandbox, Spec, identity, mounts, netlink};
use crate::landlock::Domain;
use crate::sys;
use crate::sys::shared::Shared;
use crate::warden::protocol::CellEnd;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::resource::Resource;
use nix::sys::stat::{Mode, umask};
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

/// Exit code for a command that was found but can't be executed, as shells use it.
const NOT_EXECUTABLE: i32 = 126;
/// Exit code for a command that was not found, as shells use it.
const NOT_FOUND: i32 = 127;

/// What the sealed memfd asks for.
enum Order {
    Run(Decoded),
    File(Operation),
}

/// Becomes the command, or carries the operation out. Never returns.
pub fn run(
    spec: &Spec<'_>,
    control: &OwnedFd,
    order: OwnedFd,
    init: OwnedFd,
    domain: Option<Domain>,
    began: Shared,
) -> ! {
    let sandbox = spec.sandbox;
    // To take a terminal needs ioctl(2), of which a profile may allow only some.
    let early = sandbox.seccomp_early && spec.pts.is_none() && !allows_few_files(sandbox);
    let prepared = confine(sandbox, spec.ids)
        .and_then(|()| restrict(domain))
        .and_then(|()| bound_netlink(init))
        .and_then(|()| filter(sandbox, early))
        .and_then(|()| await_order(order, spec.pts.is_some()))
        .and_then(|order| limit(sandbox, allows_few_files(sandbox)).map(|()| order));
    let filter_late = || {
        if let Err(error) = filter(sandbox, !early) {
            report_failure(control, &error, error.end());
            sys::exit_now(NOT_EXECUTABLE);
        }
    };
    match prepared {
        Ok(Order::Run(command)) => start(control, &command, || {
            began.set(sys::monotonic_us());
            filter_late();
        }),
        Ok(Order::File(operation)) => {
            filter_late();
            // It needs its three streams and nothing else, not even the way to the warden.
            match sys::close_range(3, u32::MAX) {
                Ok(()) => file::run(&operation),
                Err(_) => sys::exit_now(NOT_EXECUTABLE),
            }
        }
        Err(error) => {
            report_failure(control, &error, error.end());
            sys::exit_now(NOT_EXECUTABLE)
        }
    }
}

/// Session, limits, ids, capabilities. Nothing is looked up from `/` once the capabilities are gone: a tenant may
/// have closed it to himself, which is for the command to find out, or the operation on a file.
fn confine(sandbox: &Sandbox, ids: Ids) -> Result<()> {
    let proc = mounts::beneath_dir(mounts::root()?.as_fd(), c"proc").step("open /proc")?;
    nix::unistd::setsid().step("start a session")?;
    umask(Mode::from_bits_truncate(sandbox.umask));
    limit(sandbox, !allows_few_files(sandbox))?;
    if cfg!(cellblock_without = "capabilities") {
        // As root inside it keeps all of them over its own user namespace, which owns none of the others.
        identity::become_ids(ids.uid, ids.gid)?;
        nix::sys::prctl::set_no_new_privs().step("set no_new_privs")?;
    } else {
        identity::become_ids(ids.uid, ids.gid)?;
        identity::drop_capabilities()?;
    }
    // Above init's: under memory pressure the command goes before the process that reports its end. A process owns its
    // files in /proc only while it is dumpable; nothing else of the tenant's runs in the cell yet.
    nix::sys::prctl::set_dumpable(true).step("own /proc/self")?;
    let step = "raise the oom score";
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let score = openat(&proc, "self/oom_score_adj", flags, Mode::empty()).step(step)?;
    nix::unistd::write(score, b"500").step(step)?;
    nix::sys::prctl::set_dumpable(false).step("become not dumpable")
}

/// Sets the resource limits, where it is `time` for that.
fn limit(sandbox: &Sandbox, time: bool) -> Result<()> {
    if cfg!(cellblock_without = "rlimits") || !time {
        return Ok(());
    }
    identity::set_rlimits(&sandbox.rlimits)
}

/// With so few descriptors allowed the order could not be received: then limits and filters come after it.
fn allows_few_files(sandbox: &Sandbox) -> bool {
    let mut limits = sandbox.rlimits.iter();
    limits.any(|(resource, soft, _)| *resource == Resource::RLIMIT_NOFILE && *soft < 16)
}

/// Enters the Landlock domain, where there is one: before anything of the tenant's is looked at, and after the last thing
/// that it would deny.
fn restrict(domain: Option<Domain>) -> Result<()> {
    if cfg!(cellblock_without = "landlock") {
        return Ok(());
    }
    domain.map_or(Ok(()), |domain| {
        domain.enter().step("enter the Landlock domain")
    })
}

/// Lets init answer for netlink sockets.
fn bound_netlink(init: OwnedFd) -> Result<()> {
    if cfg!(cellblock_without = "seccomp") {
        return Ok(());
    }
    netlink::ask_init(init.as_fd())
}

/// Waits for what there is to do. All of the above is done by then, perhaps long before.
fn await_order(order: OwnedFd, terminal: bool) -> Result<Order> {
    let Stdio { command, streams } = Stdio::receive(order.as_fd()).step("wait for an order")?;
    drop(order);
    for (number, stream) in streams.iter().enumerate() {
        sys::dup_onto(stream.as_fd(), number as i32, false).step("set the standard streams")?;
    }
    drop(streams);
    if terminal {
        sys::terminal::make_controlling(0).step("take the terminal")?;
    }
    read_order(command)
}

fn read_order(memfd: OwnedFd) -> Result<Order> {
    let step = "read the command";
    let mut bytes = Vec::new();
    let mut file = std::fs::File::from(memfd);
    std::io::Seek::rewind(&mut file).step(step)?;
    file.take(MAX_ENCODED).read_to_end(&mut bytes).step(step)?;
    let order = match Operation::decode(&bytes) {
        Some(operation) => Some(Order::File(operation)),
        None => Decoded::decode(&bytes).map(Order::Run),
    };
    order.ok_or(Errno::EINVAL).step(step)
}

fn start(control: &OwnedFd, command: &Decoded, last: impl FnOnce()) -> ! {
    let anywhere = || command.instead.iter().any(|cwd| enter(cwd).is_ok());
    if let Err(errno) = enter(&command.cwd)
        && !anywhere()
    {
        let reason = match errno {
            Errno::ENOENT => "does not exist",
            Errno::ENOTDIR => "is not a directory",
            Errno::EACCES => "may not be entered",
            Errno::ELOOP => "goes through a link that may not be followed",
            Errno::ENAMETOOLONG => "is too long",
            _ => "can't be entered",
        };
        tell(
            control,
            &FromCell::Refused(CellEnd::CwdRefused(reason.to_owned())),
            &[],
        );
        sys::exit_now(NOT_EXECUTABLE);
    }
    let path = command
        .env
        .iter()
        .rev()
        .find_map(|v| v.to_bytes().strip_prefix(b"PATH="));
    let path = path.unwrap_or_default();
    let mut argv: Vec<&CStr> = vec![&command.command];
    argv.extend(command.args.iter().map(CString::as_c_str));

    let mut found = lookup::find(&command.command, path);
    let line = command.shell_fallback && command.args.is_empty();
    if found == Lookup::NotFound && line && lookup::looks_like_shell(command.command.to_bytes()) {
        argv = vec![c"sh", c"-lc", &command.command];
        if command.command.to_bytes().starts_with(b"-") {
            // Else the line would be taken for the shell's own options.
            argv.insert(2, c"--");
        }
        found = lookup::find(c"sh", path);
    }
    let name = argv[0].to_string_lossy().into_owned();
    let file = match found {
        Lookup::Found(file) => file,
        Lookup::NotExecutable(_) => fail(&name, "permission denied or not a file", NOT_EXECUTABLE),
        Lookup::NotFound => fail(&name, "command not found", NOT_FOUND),
    };
    last();
    match nix::unistd::execve(&file, &argv, &command.env) {
        Err(Errno::E2BIG) => {
            tell(control, &FromCell::Refused(CellEnd::ArgumentsTooLong), &[]);
            sys::exit_now(NOT_EXECUTABLE)
        }
        Err(Errno::ENOENT) => fail(
            &name,
            "its interpreter or loader was not found",
            NOT_EXECUTABLE,
        ),
        Err(errno) => fail(&name, errno.desc(), NOT_EXECUTABLE),
        Ok(never) => match never {},
    }
}

/// What a payload calls from its order to the command. A profile that allows all of it whatever the arguments is installed
/// before, where it costs no time that anybody waits for; so nothing is tried with fewer filters than the command has.
pub const CALLS_AFTER_ORDER: &[&str] = &[
    "access",
    "brk",
    "clock_gettime",
    "close",
    "close_range",
    "dup3",
    "execve",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fchdir",
    "fcntl",
    "fstat",
    "futex",
    "getcwd",
    "getrandom",
    "lseek",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "newfstatat",
    "openat",
    "openat2",
    "read",
    "recvmsg",
    "rt_sigaction",
    "rt_sigprocmask",
    "sendmsg",
    "stat",
    "statx",
    "write",
];

/// Installs the profile's seccomp filter, where it is `time` for that.
fn filter(sandbox: &Sandbox, time: bool) -> Result<()> {
    if cfg!(cellblock_without = "seccomp") || !time {
        return Ok(());
    }
    seccompiler::apply_filter(&sandbox.seccomp)
        .map_err(|_| Errno::last())
        .step("install the seccomp filter")
}

/// Changes to `cwd`, which may hold links but none of `/proc`'s magic ones (CVE-2024-21626), and makes sure that the
/// result is below the root (getcwd(3) says "(unreachable)" where it is not).
fn enter(cwd: &CStr) -> std::result::Result<(), Errno> {
    let root = nix::fcntl::open(
        "/",
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let directory = sys::openat2(root.as_fd(), cwd, flags, libc::RESOLVE_NO_MAGICLINKS)?;
    nix::unistd::fchdir(&directory)?;
    if nix::unistd::getcwd()?.is_absolute() {
        Ok(())
    } else {
        Err(Errno::EXDEV)
    }
}

/// Says on the command's own stderr why it did not run, and ends as a shell would.
fn fail(name: &str, why: &str, code: i32) -> ! {
    let text = format!("cellblock: {name}: {why}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
    sys::exit_now(code)
}
