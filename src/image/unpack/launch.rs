//! The caller's side: starts the role, hands it the order, judges its reports.

use super::error::{UnpackError, io_error};
use super::tree::open_dir;
use super::wire::{self, Job, Order, Report};
use super::{Bounds, IDS, ROLE, Unpacked, Unpacker, names};
use crate::cell::mounts;
use crate::image::content::ImageUser;
use crate::sys::packet;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Most layers that a user is looked up in: an overlay takes no more.
pub const MAX_DIRECTORIES: usize = 128;
/// What overlayfs takes for a directory that shows nothing of lower layers. Only root of the host may set it.
const OPAQUE: &str = "trusted.overlay.opaque";
/// Bytes of names that reports of a kind may bring in all; the confined process sends no more.
const MAX_NAMES: usize = 64 << 20;
/// Longest text of a report's that is shown, in characters.
const SHOWN: usize = 600;

/// See [`Unpacker::layer`].
pub fn layer(
    unpacker: &Unpacker,
    source: OwnedFd,
    length: Option<u64>,
    target: &Path,
    bounds: &Bounds,
    progress: &mut dyn FnMut(u64),
) -> Result<Unpacked, UnpackError> {
    let root = directory(target)?;
    let job = Job::Layer {
        length,
        bounds: *bounds,
    };
    let mut running = Running::start(unpacker, job, &[source.as_fd(), root.as_fd()])?;
    drop(source);
    let (mut opaque, mut implied) = (Names::default(), Names::default());
    loop {
        match running.next()? {
            Report::Progress(read) => progress(read),
            Report::Opaque(path) => opaque.add(path, bounds)?,
            Report::Implied(path) => implied.add(path, bounds)?,
            Report::Unpacked(unpacked) => {
                running.end();
                for path in &opaque.all {
                    set_opaque(&root, path).map_err(io_error("make opaque", target))?;
                }
                return Ok(Unpacked {
                    implied: implied.all,
                    ..unpacked
                });
            }
            other => return Err(refused(other, None)),
        }
    }
}

/// Directories that reports name.
#[derive(Default)]
struct Names {
    all: BTreeSet<names::Path>,
    bytes: usize,
}

impl Names {
    fn add(&mut self, path: names::Path, bounds: &Bounds) -> Result<(), UnpackError> {
        self.bytes += path.len();
        let known = names::check(&path, bounds).is_ok_and(|checked| checked == path);
        if !known || self.bytes > MAX_NAMES || self.all.len() as u64 >= bounds.entries {
            return Err(UnpackError::Nonsense("a name that no entry can have"));
        }
        self.all.insert(path);
        Ok(())
    }
}

/// See [`Unpacker::expand`].
pub fn expand(
    unpacker: &Unpacker,
    source: OwnedFd,
    length: Option<u64>,
    target: OwnedFd,
    bounds: &Bounds,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, UnpackError> {
    let job = Job::Expand {
        length,
        bounds: *bounds,
    };
    let mut running = Running::start(unpacker, job, &[source.as_fd(), target.as_fd()])?;
    drop(source);
    loop {
        match running.next()? {
            Report::Progress(read) => progress(read),
            Report::Expanded(bytes) => return Ok(bytes),
            other => return Err(refused(other, None)),
        }
    }
}

/// See [`Unpacker::user`].
pub fn user(unpacker: &Unpacker, layers: &[PathBuf], user: &str) -> Result<ImageUser, UnpackError> {
    let refuse = |reason: &str| UnpackError::User {
        user: user.to_owned(),
        reason: reason.to_owned(),
    };
    if layers.len() > MAX_DIRECTORIES {
        return Err(refuse("the image has too many layers"));
    }
    if user.len() > 512 {
        return Err(refuse("is too long"));
    }
    let mut directories = Vec::new();
    for layer in layers {
        let root = directory(layer)?;
        let hides = hides_etc(&root).map_err(io_error("look at /etc in", layer))?;
        directories.push(root);
        if hides {
            break;
        }
    }
    let fds: Vec<_> = directories.iter().map(AsFd::as_fd).collect();
    let job = Job::User {
        user: user.to_owned(),
    };
    let mut running = Running::start(unpacker, job, &fds)?;
    match running.next()? {
        Report::User(found) if is_sound(&found) => Ok(found),
        Report::User(_) => Err(UnpackError::Nonsense("a user that no image can have")),
        other => Err(refused(other, Some(user))),
    }
}

fn directory(path: &Path) -> Result<OwnedFd, UnpackError> {
    mounts::host_dir(path).map_err(|error| io_error("open", path)(error.source))
}

/// Whether a layer's `/etc` shows nothing of lower ones; the confined process may not ask.
fn hides_etc(root: &OwnedFd) -> nix::Result<bool> {
    let etc = match open_dir(root.as_fd(), b"etc", OFlag::O_RDONLY) {
        Ok(etc) => etc,
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(false),
        Err(errno) => return Err(errno),
    };
    is_opaque(&etc)
}

/// Whether a directory of a layer shows nothing of what lower layers have in it.
pub fn is_opaque(directory: &OwnedFd) -> nix::Result<bool> {
    let mut value = [0; 2];
    match rustix::fs::fgetxattr(directory, OPAQUE, &mut value) {
        Ok(length) => Ok(value[..length] == *b"y"),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(false),
        Err(errno) => Err(Errno::from_raw(errno.raw_os_error())),
    }
}

fn set_opaque(root: &OwnedFd, path: &[u8]) -> nix::Result<()> {
    let directory = open_dir(root.as_fd(), path, OFlag::O_RDONLY)?;
    rustix::fs::fsetxattr(&directory, OPAQUE, b"y", rustix::fs::XattrFlags::empty())
        .map_err(|errno| Errno::from_raw(errno.raw_os_error()))
}

/// Whether it can stand in a record and in an environment.
fn is_sound(user: &ImageUser) -> bool {
    let plain = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
    user.uid < IDS
        && user.gid < IDS
        && plain(&user.name)
        && user.name.len() <= 255
        && plain(&user.home)
        && user.home.starts_with('/')
        && user.home.len() <= 4095
}

/// A last word that is no success.
fn refused(report: Report, user: Option<&str>) -> UnpackError {
    match (report, user) {
        (Report::Refused { reason, .. }, Some(user)) => UnpackError::User {
            user: user.to_owned(),
            reason: clean(&reason),
        },
        (Report::Refused { entry, reason }, None) => match entry {
            Some(entry) => UnpackError::Entry {
                entry: clean(&entry),
                reason: clean(&reason),
            },
            None => UnpackError::Archive {
                reason: clean(&reason),
            },
        },
        (Report::Failed(text), _) => UnpackError::Failed(clean(&text)),
        _ => UnpackError::Nonsense("the answer to another order"),
    }
}

/// Texts are escaped already, if the process is still what was started.
fn clean(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\'' | '\\' => vec![c],
        _ => c.escape_debug().collect(),
    };
    text.chars().take(SHOWN).flat_map(escape).collect()
}

/// The role's first process. Dropping it ends both.
struct Running {
    child: Child,
    control: OwnedFd,
}

impl Running {
    fn start(
        unpacker: &Unpacker,
        job: Job,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Running, UnpackError> {
        let program = &unpacker.program;
        let (control, theirs) = packet::pair().map_err(io_error("make a socket for", program))?;
        let mut command = Command::new(program);
        command.arg(ROLE).env_clear().current_dir("/");
        command
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().map_err(io_error("start", program))?;
        // Else its end of the socket stays open here.
        drop(command);
        let running = Running { child, control };
        let order = Order {
            uid_base: unpacker.uid_base,
            job,
        };
        let bytes = serde_json::to_vec(&order).expect("numbers and text");
        packet::send(running.control.as_fd(), &bytes, fds)
            .map_err(io_error("send the order to", program))?;
        Ok(running)
    }

    fn next(&mut self) -> Result<Report, UnpackError> {
        match Report::receive(self.control.as_fd()) {
            Ok(Some(report)) => Ok(report),
            Ok(None) => {
                let status = self.child.wait();
                let status = status.map_or_else(|error| error.to_string(), |s| s.to_string());
                Err(UnpackError::Ended(status))
            }
            Err(Errno::EMSGSIZE) => Err(UnpackError::Nonsense("a packet longer than all")),
            Err(Errno::EBADMSG) => Err(UnpackError::Nonsense("a packet that is no report")),
            Err(errno) => Err(io_error("hear from", &PathBuf::from(ROLE))(errno)),
        }
    }

    /// Returns when neither process is there any more: the first one is waited for, and the second has the only other end
    /// of the socket.
    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut buffer = vec![0; wire::MAX];
        loop {
            match packet::receive(self.control.as_fd(), &mut buffer) {
                Ok(Some(_)) | Err(Errno::EINTR | Errno::EMSGSIZE) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
