//! What a taken-over api process could try by itself: tried from within its own confinement, by a child of the test that
//! enters it as the api process does. With its list of system calls, which comes last, most of it is over there: a build
//! without one (`tests/attacks --without role-filters`) shows that ids, capabilities, mounts and Landlock refuse it too.

use crate::needs;
use crate::support::alone;
use crate::support::mounts::TestDir;
use cellblock::roles::jail;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{Gid, Pid, Uid, chown, mkdir, setgid, setuid};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};

/// The id that the api process has where nobody chose another: the first of the service's block.
const ID: u32 = cellblock::config::DEFAULT_UID_BASE;

/// The state directory, and a process that has the api's ids and is no part of the service.
struct Place {
    dir: TestDir,
    neighbour: Child,
}

impl Place {
    fn new() -> Place {
        let dir = TestDir::new();
        let state = dir.path().join("state");
        mkdir(&state, Mode::S_IRWXU).expect("make the state directory");
        chown(&state, Some(Uid::from_raw(ID)), Some(Gid::from_raw(ID))).expect("give it away");
        let neighbour = Command::new("sleep").arg("1000").uid(ID).gid(ID).spawn();
        Place {
            dir,
            neighbour: neighbour.expect("start sleep"),
        }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Tries something in the confinement: what the kernel said, or none where it let it happen.
    fn tries(&self, attempt: impl FnOnce() -> nix::Result<()>) -> Option<Errno> {
        /// Exit code of a child that could not be confined.
        const NOT_CONFINED: i32 = 255;
        let state = self.state();
        // SAFETY: the child leaves by _exit(2), and takes no lock that another thread of the test may have held but the
        // allocator's, which the C library sets free in a child.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let code = match jail::enter(&state, ID, ID) {
                Err(_) => NOT_CONFINED,
                Ok(()) => match attempt() {
                    Ok(()) => 0,
                    Err(errno) => errno as i32,
                },
            };
            // SAFETY: no precondition.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: the pid is that of a child that nobody else waits for.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        if libc::WIFSIGNALED(status) {
            // A filter may end who asks.
            assert_eq!(libc::WTERMSIG(status), libc::SIGSYS, "{status}");
            return Some(Errno::ENOSYS);
        }
        match libc::WEXITSTATUS(status) {
            0 => None,
            NOT_CONFINED => panic!("the confinement could not be entered"),
            number => Some(Errno::from_raw(number)),
        }
    }

    #[track_caller]
    fn refused(&self, what: &str, attempt: impl FnOnce() -> nix::Result<()>) {
        let errno = self.tries(attempt);
        let fits = match errno {
            Some(Errno::EPERM | Errno::EACCES | Errno::ENOENT | Errno::EROFS) => true,
            // The list of system calls.
            Some(Errno::ENOSYS) => !cfg!(cellblock_without = "role-filters"),
            _ => false,
        };
        assert!(fits, "{what}: {errno:?}");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.neighbour.kill();
        let _ = self.neighbour.wait();
    }
}

fn look(path: &str) -> nix::Result<()> {
    open(path, OFlag::O_RDONLY, Mode::empty()).map(drop)
}

#[test]
fn its_own_state_can_be_written_to() {
    needs!(Root);
    let _turn = alone();
    let place = Place::new();
    let kept = place.tries(|| {
        let flags = OFlag::O_CREAT | OFlag::O_RDWR;
        open("/state/file", flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        mkdir("/state/output", Mode::S_IRWXU)
    });
    assert_eq!(kept, None, "the confinement keeps it from its own work");
    assert!(place.state().join("file").exists());
}

#[test]
fn it_finds_no_file_of_the_host() {
    needs!(Root);
    let _turn = alone();
    let place = Place::new();
    for path in [
        "/etc/passwd",
        "/etc/shadow",
        "/proc/1/root/etc/passwd",
        "/proc/self/exe",
        "/proc/self/fd/0",
        "/dev/null",
        "/dev/kmsg",
        "/sys/kernel",
        "/usr/bin/sh",
        "/root",
        "/state/../etc/passwd",
        "/state/../../etc/passwd",
        "../etc/passwd",
    ] {
        place.refused(path, || look(path));
    }
    let outside = place.dir.path().join("state").display().to_string();
    place.refused("its own directory by the host's path", || look(&outside));
    place.refused("a link to a file of the host", || {
        let _ = nix::unistd::symlinkat("/etc/passwd", nix::fcntl::AT_FDCWD, "/state/link");
        look("/state/link")
    });
    place.refused("a new root directory", || {
        nix::unistd::chroot("/state").and_then(|()| look("/../etc/passwd"))
    });
}

#[test]
fn it_makes_nothing_outside_of_its_state_and_nothing_special_in_it() {
    needs!(Root);
    let _turn = alone();
    let place = Place::new();
    for path in ["/new", "/state/../new", "/etc", "/proc"] {
        place.refused(path, || mkdir(path, Mode::S_IRWXU));
    }
    let device = libc::makedev(1, 1);
    for kind in [SFlag::S_IFCHR, SFlag::S_IFBLK] {
        place.refused("a device", || {
            mknod("/state/device", kind, Mode::S_IRWXU, device)
        });
    }
    place.refused("a program", || {
        let flags = OFlag::O_CREAT | OFlag::O_WRONLY;
        let file = open("/state/program", flags, Mode::S_IRWXU)?;
        nix::unistd::write(&file, b"#!/state/program\n")?;
        drop(file);
        nix::unistd::execv(c"/state/program", &[c"program"]).map(|never| match never {})
    });
    place.refused("a file of another's", || {
        chown("/state", Some(Uid::from_raw(0)), None)
    });
}

#[test]
fn it_gains_no_right() {
    needs!(Root);
    let _turn = alone();
    let place = Place::new();
    place.refused("root's id", || setuid(Uid::from_raw(0)));
    place.refused("another's id", || setuid(Uid::from_raw(ID + 65_536)));
    place.refused("root's group", || setgid(Gid::from_raw(0)));
    place.refused("groups", || nix::unistd::setgroups(&[Gid::from_raw(0)]));
    place.refused("a capability", || {
        let set = caps::CapsHashSet::from([caps::Capability::CAP_KILL]);
        caps::set(None, caps::CapSet::Effective, &set).map_err(|_| Errno::last())
    });
    let none: Option<&str> = None;
    let flags = nix::mount::MsFlags::empty();
    let tmpfs = || nix::mount::mount(none, "/state", Some("tmpfs"), flags, none);
    place.refused("a mount", tmpfs);
    place.refused("no mount", || {
        nix::mount::umount2("/state", nix::mount::MntFlags::MNT_DETACH)
    });
    place.refused("a mount namespace", || unshare(CloneFlags::CLONE_NEWNS));
    place.refused("a network namespace", || unshare(CloneFlags::CLONE_NEWNET));
    place.refused("a host name", || nix::unistd::sethostname("taken"));
    // A user namespace of its own, where it gets one, is root over no file and no mount.
    place.refused("a mount in a user namespace", || {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
        tmpfs()
    });
}

#[test]
fn it_reaches_no_process_of_anybody_elses() {
    needs!(Root);
    if cfg!(cellblock_without = "role-filters") {
        needs!(LandlockAbi(6));
    }
    let _turn = alone();
    let place = Place::new();
    let ids = [std::process::id(), 1, place.neighbour.id()];
    for pid in ids.map(|pid| Pid::from_raw(pid as i32)) {
        place.refused("a signal", || kill(pid, Signal::SIGCONT));
        place.refused("a trace", || {
            let null = std::ptr::null_mut::<libc::c_void>();
            // SAFETY: PTRACE_SEIZE takes null pointers here.
            Errno::result(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid.as_raw(), null, null) })
                .map(drop)
        });
        place.refused("its memory", || {
            let mut byte = 0u8;
            let own = libc::iovec {
                iov_base: (&raw mut byte).cast(),
                iov_len: 1,
            };
            // SAFETY: one vector of one byte that outlives the call; the other's address is any number.
            let read = unsafe { libc::process_vm_readv(pid.as_raw(), &own, 1, &own, 1, 0) };
            Errno::result(read).map(drop)
        });
        place.refused("its descriptors", || {
            // SAFETY: numbers only.
            let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
            let pidfd = Errno::result(pidfd)?;
            // SAFETY: numbers only.
            Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd, 0, 0) }).map(drop)
        });
    }
}

/// The one way to a process of its own id that the list of system calls leaves open, so it is Landlock's to close: a thread
/// may be sent a signal.
#[test]
fn no_thread_of_anybody_elses_gets_a_signal_from_it() {
    needs!(Root, LandlockAbi(6));
    let _turn = alone();
    let place = Place::new();
    for pid in [std::process::id(), 1, place.neighbour.id()] {
        for signal in [0, libc::SIGCONT] {
            place.refused("a signal", || {
                // SAFETY: numbers only.
                let sent = unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, signal) };
                Errno::result(sent).map(drop)
            });
        }
    }
}

fn unix(kind: SockType) -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)
}

#[test]
fn it_reaches_no_socket_of_anybody_elses() {
    needs!(Root);
    if cfg!(cellblock_without = "role-filters") {
        needs!(LandlockAbi(6));
    }
    let _turn = alone();
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("an address").port();
    let tcp = |port| {
        let fd = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        let address = nix::sys::socket::SockaddrIn::from(std::net::SocketAddrV4::new(
            Ipv4Addr::LOCALHOST,
            port,
        ));
        nix::Result::Ok((fd, address))
    };
    place.refused("a connection", || {
        let (fd, address) = tcp(port)?;
        connect(fd.as_raw_fd(), &address)
    });
    place.refused("another listener", || {
        let (fd, address) = tcp(0)?;
        nix::sys::socket::bind(fd.as_raw_fd(), &address)?;
        nix::sys::socket::listen(&fd, nix::sys::socket::Backlog::new(1)?)
    });
    let name = format!("cellblock-test-{}", std::process::id());
    use std::os::linux::net::SocketAddrExt;
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _abstract = UnixListener::bind_addr(&address).expect("listen");
    let path = place.dir.path().join("socket");
    let _named = UnixListener::bind(&path).expect("listen");
    place.refused("an abstract socket", || {
        let address = UnixAddr::new_abstract(name.as_bytes())?;
        connect(unix(SockType::Stream)?.as_raw_fd(), &address)
    });
    place.refused("a socket of the host's", || {
        connect(unix(SockType::Stream)?.as_raw_fd(), &UnixAddr::new(&path)?)
    });
    place.refused("packets of the network", || {
        socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .map(drop)
    });
}
