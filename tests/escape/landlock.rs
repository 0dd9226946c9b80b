//! Landlock, the second layer: what it denies where every other layer would answer otherwise, and what it must not break.

use crate::needs;
use crate::support::host::landlock_abi;
use crate::support::mounts::TestDir;
use crate::support::probe::{self, Probe};
use crate::support::runtime::Exec;
use crate::support::{Runtime, bound, eventually, procs, runtime, runtime_with, together};
use cellblock::landlock::{Abi, Domain, Right, Rights, Rules, all};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;
use std::io::Error;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

/// Runtimes of every kind that a domain differs for.
fn kinds() -> Vec<Runtime> {
    let bodies = [
        json!({}),
        json!({"profile": "strict"}),
        json!({"filesystem": "ephemeral"}),
        json!({"filesystem": "read_only"}),
    ];
    bodies.map(runtime_with).into()
}

/// Carries the probe into a cell, wherever nothing stays for a second one, and runs a subcommand there.
fn in_one_cell(runtime: &Runtime, args: &str) -> Exec {
    let bytes = std::fs::read(probe::path()).expect("read the probe");
    let line = format!("cat > /tmp/p && chmod 755 /tmp/p && /tmp/p {args}");
    runtime.exec(&json!({
        "command": "sh", "args": ["-c", line], "stdin_base64": probe::base64(&bytes),
    }))
}

/// The kernel stacks 16 domains (landlock(7)).
#[test]
fn a_command_starts_in_a_domain_and_may_add_fifteen_more() {
    needs!(Root, LandlockAbi(2));
    let _turn = together();
    for runtime in kinds() {
        let exec = in_one_cell(&runtime, "landlock-layers");
        exec.assert_stdout(&format!("15 {}\n", libc::E2BIG));
    }
}

#[test]
fn a_program_can_restrict_itself_further() {
    needs!(Root, LandlockAbi(2));
    let _turn = together();
    let probe = Probe::in_runtime(runtime());
    let exec = probe.run(&["landlock-self", "/dev/null"]);
    exec.assert_stdout(&format!("0 {}\n", libc::EACCES));
}

#[test]
fn strict_has_no_tcp_and_default_has_it() {
    needs!(Root, LandlockAbi(4));
    let _turn = together();
    let strict = Probe::in_runtime(runtime_with(json!({"profile": "strict"})));
    assert_eq!(strict.errno(&["bind", "127.0.0.1:7777"]), libc::EACCES);
    assert_eq!(strict.errno(&["connect", "127.0.0.1:7777"]), libc::EACCES);
    assert_eq!(strict.errno(&["connect", "[::1]:7777"]), libc::EACCES);
    let default = Probe::in_runtime(runtime());
    assert_eq!(default.errno(&["bind", "127.0.0.1:7777"]), 0);
    let refused = default.errno(&["connect", "127.0.0.1:7777"]);
    assert_eq!(refused, libc::ECONNREFUSED);
}

/// A stranger with the command's own uid, brought into the cell's pid, network and user namespaces from outside: only the
/// domain is left between the two.
#[test]
fn a_stranger_in_the_cells_namespaces_can_neither_be_signalled_nor_reached() {
    needs!(Root, Python, Unshare, LandlockAbi(6));
    let _turn = together();
    let probe = Probe::in_runtime(runtime());
    let marker = procs::marker();
    let line = format!(
        "i=0; until pid=$(grep -lx stranger /proc/[0-9]*/comm 2>/dev/null); do \
             i=$((i+1)); [ $i -lt 600 ] || exit 9; sleep 0.1; done; \
         pid=${{pid#/proc/}}; sleep 0.2; kill -0 ${{pid%/comm}} && echo signalled; {} abstract-connect stranger",
        probe::INSIDE
    );
    let stranger = "import socket,sys\n\
        s=socket.socket(socket.AF_UNIX); s.bind('\\0stranger'); s.listen()\n\
        open('/proc/self/comm','w').write('stranger'); sys.stdin.read()";
    std::thread::scope(|scope| {
        let body = json!({"command": "sh", "args": ["-c", line, marker]});
        let runtime = &probe.runtime;
        let inside = scope.spawn(move || runtime.exec(&body));
        let found = || {
            let mut all = procs::with_arg(&marker);
            all.retain(|pid| procs::status(*pid, "Name").as_deref() == Some("sh"));
            all.first().copied()
        };
        assert!(eventually(bound(10_000), || found().is_some()), "it runs");
        let target = found().expect("it runs").to_string();
        let mut entered = Command::new("nsenter")
            .args(["-t", &target, "-U", "-p", "-n", "-S", "0", "-G", "0"])
            .args(["/usr/bin/python3", "-c", stranger])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("run nsenter");
        let exec = inside.join().expect("no panic");
        drop(entered.stdin.take());
        // The cell's end kills it with the cell, if it still lives.
        let _ = entered.wait();
        exec.assert_stdout(&format!("{}\n", libc::EPERM));
        assert!(exec.stderr().contains("not permitted"), "{exec:?}");
    });
}

#[test]
fn message_queues_work() {
    needs!(Root);
    let _turn = together();
    // Not in `strict`, which allows none (RLIMIT_MSGQUEUE).
    for filesystem in ["persistent", "read_only", "ephemeral"] {
        let runtime = runtime_with(json!({"filesystem": filesystem}));
        let exec = in_one_cell(&runtime, "message-queue");
        exec.assert_stdout("0\n");
    }
}

#[test]
fn what_programs_do_with_files_still_works() {
    needs!(Root, Python);
    let _turn = together();
    let code = r#"
import errno, fcntl, mmap, multiprocessing, os, signal, socket, subprocess, sys, tempfile
from multiprocessing import shared_memory
os.chdir(sys.argv[1])
os.makedirs('a/b'); os.makedirs('c')
open('a/b/f','w').write('1'); os.rename('a/b/f','c/f'); os.link('c/f','a/g'); os.truncate('a/g',0)
os.rename('a/b','c/b'); os.symlink('g','a/s'); os.mkfifo('a/fifo'); os.rmdir('c/b')
for f in [open('c/f','w')]: fcntl.flock(f,fcntl.LOCK_EX); f.write('x'); f.flush()
try:
    fd=os.open('.',os.O_TMPFILE|os.O_RDWR,0o600); os.write(fd,b'tmp')
    os.link(f'/proc/self/fd/{fd}','c/linked',src_dir_fd=fd,follow_symlinks=True); assert open('c/linked').read()=='tmp'
except OSError as e:
    # What an older overlay answers; Landlock would say something else.
    assert e.errno==errno.EOPNOTSUPP, e
    open('c/linked','w').write('tmp')
with open('c/linked','r+b') as f: m=mmap.mmap(f.fileno(),3); m[:]=b'abc'; m.flush()
with tempfile.TemporaryFile() as f: f.write(b'x')
gone=open('c/gone','w+'); os.unlink('c/gone'); open(f'/proc/self/fd/{gone.fileno()}','w').write('again')
memfd=os.memfd_create('m'); open(f'/proc/self/fd/{memfd}','w').write('m')
os.open('/proc/self/ns/mnt',os.O_RDONLY)
s=socket.socket(socket.AF_UNIX); s.bind('a/socket'); s.listen(); socket.socket(socket.AF_UNIX).connect('a/socket')
s=socket.socket(socket.AF_UNIX); s.bind('\0name'); s.listen(); socket.socket(socket.AF_UNIX).connect('\0name')
shm=shared_memory.SharedMemory(create=True,size=64); shm.buf[0]=1; shm.close(); shm.unlink()
multiprocessing.set_start_method('fork')
with multiprocessing.Pool(2) as p: assert p.map(abs,[-1,-2])==[1,2]
child=subprocess.Popen(['sleep','60']); child.terminate(); assert child.wait()==-signal.SIGTERM
open('/proc/self/oom_score_adj','w').write('900')
os.openpty()
print('done')
"#;
    for (filesystem, place) in [
        ("persistent", "/root"),
        ("ephemeral", "/root"),
        ("read_only", "/tmp"),
        ("read_only", "/dev/shm"),
    ] {
        let runtime = runtime_with(json!({"filesystem": filesystem}));
        let exec = runtime.exec(&json!({
            "command": "/usr/bin/python3", "args": ["-c", code, place],
        }));
        assert_eq!(exec.stdout(), "done\n", "{filesystem} {place}: {exec:?}");
    }
}

#[test]
fn streams_and_terminals_can_be_opened_again() {
    needs!(Root);
    let _turn = together();
    let line = "echo out >/dev/stdout; echo err >/dev/stderr; yes | head -n 1; cat </dev/stdin; \
                echo null >/dev/null; kill -USR1 $$ 2>/dev/null; echo no";
    for filesystem in ["persistent", "read_only"] {
        let runtime = runtime_with(json!({"filesystem": filesystem}));
        let exec = runtime.exec(&json!({
            "command": "sh", "args": ["-c", format!("trap 'echo trapped' USR1; {line}")], "stdin": "in\n",
        }));
        exec.assert_stdout("out\ny\nin\ntrapped\nno\n");
        assert_eq!(exec.stderr(), "err\n");
        let said = runtime
            .terminal("echo a >/dev/stdout; echo b >/dev/tty; echo c >$(tty); stty size </dev/tty; set -m; sleep 60 & kill %1; wait; echo d")
            .end();
        let text = said.text();
        for expected in ["a\r\n", "b\r\n", "c\r\n", "24 80\r\n", "d\r\n"] {
            assert!(text.contains(expected), "{expected:?}: {text:?}");
        }
    }
}

/// Runs `attempt` in a forked child that is in a domain, and gives what it returned: errno numbers.
fn inside<const N: usize>(abi: Abi, rules: &Rules<'_>, attempt: impl Fn() -> [i32; N]) -> [i32; N] {
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    // SAFETY: the child calls what glibc allows after a fork in a program with threads too, allocation among it, and ends
    // by _exit.
    match unsafe { nix::unistd::fork() }.expect("fork") {
        nix::unistd::ForkResult::Child => {
            let entered = nix::sys::prctl::set_no_new_privs()
                .and_then(|()| Domain::new(abi, rules))
                .and_then(|domain| domain.expect("a domain").enter());
            let errnos = match entered {
                Ok(()) => attempt(),
                Err(errno) => [-(errno as i32); N],
            };
            let bytes: Vec<u8> = errnos.iter().flat_map(|e| e.to_ne_bytes()).collect();
            let _ = nix::unistd::write(&write, &bytes);
            // SAFETY: it has no preconditions.
            unsafe { libc::_exit(0) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            drop(write);
            let mut bytes = [0; 256];
            let length = nix::unistd::read(&read, &mut bytes).expect("read the pipe");
            nix::sys::wait::waitpid(child, None).expect("wait");
            assert_eq!(length, 4 * N, "the child ended early");
            std::array::from_fn(|i| {
                i32::from_ne_bytes(bytes[4 * i..4 * i + 4].try_into().expect("four"))
            })
        }
    }
}

fn errno<T>(result: std::io::Result<T>) -> i32 {
    result.map_or_else(|error| error.raw_os_error().unwrap_or(-1), |_| 0)
}

fn write_to(path: &Path) -> i32 {
    errno(std::fs::OpenOptions::new().write(true).open(path))
}

/// The whole of it, under each ABI that this kernel can play: what an ABI has is denied, what it lacks is not, and nothing
/// fails.
#[test]
fn each_abi_denies_what_it_knows() {
    needs!(Root, LandlockAbi(2));
    let dir = TestDir::new();
    let (open, shut) = (dir.path().join("open"), dir.path().join("shut"));
    for place in [&open, &shut] {
        std::fs::create_dir_all(place.join("sub")).expect("a directory");
        std::fs::write(place.join("file"), "text").expect("a file");
    }
    let (null, node) = (open.join("null"), open.join("node"));
    let mode = Mode::from_bits_truncate(0o600);
    mknod(&null, SFlag::S_IFCHR, mode, makedev(1, 3)).expect("make a node");
    let name = format!("landlock-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("listen");
    let handle = |path: &Path| std::fs::File::open(path).expect("open a directory");
    let (open_fd, shut_fd) = (handle(&open), handle(&shut));
    let look: Rights<Right> = Right::ReadFile | Right::ReadDir;
    let newest = (landlock_abi() as i32).min(7);
    for number in 2..=newest {
        let abi = Abi::from(number);
        let from =
            |first: i32, errno: i32, before: i32| if number >= first { errno } else { before };
        let any = all(abi) & !(Right::MakeFifo | Right::IoctlDev);
        let rules = Rules {
            places: &[(open_fd.as_fd(), any), (shut_fd.as_fd(), look)],
            deny_tcp: true,
            quiet: true,
        };
        let truncate = |path: &Path| errno(nix::unistd::truncate(path, 4).map_err(Into::into));
        let found = inside(abi, &rules, || {
            let control = std::fs::File::open(&null).expect("open a node");
            // SAFETY: TCGETS writes a struct termios, which is given.
            let control = unsafe {
                let mut termios = std::mem::zeroed::<libc::termios>();
                use std::os::fd::AsRawFd;
                match libc::ioctl(control.as_raw_fd(), libc::TCGETS, &raw mut termios) {
                    0 => 0,
                    _ => Error::last_os_error().raw_os_error().unwrap_or(-1),
                }
            };
            let parent = nix::unistd::getppid();
            [
                write_to(&open.join("file")),
                errno(std::fs::rename(open.join("file"), open.join("sub/file"))),
                errno(std::fs::rename(open.join("sub/file"), open.join("file"))),
                errno(mknod(&node, SFlag::S_IFIFO, mode, 0).map_err(Into::into)),
                write_to(&shut.join("file")),
                errno(std::fs::read(shut.join("file"))),
                errno(std::fs::read("/etc/passwd")),
                truncate(&shut.join("file")),
                errno(std::net::TcpStream::connect("127.0.0.1:1")),
                errno(std::net::TcpListener::bind("127.0.0.1:0")),
                control,
                errno(nix::sys::signal::kill(parent, None).map_err(Into::into)),
                errno(UnixStream::connect_addr(&address)),
            ]
        });
        let (acces, perm) = (libc::EACCES, libc::EPERM);
        let expected = [
            0,
            0,
            0,
            acces,
            acces,
            0,
            acces,
            from(3, acces, 0),
            from(4, acces, libc::ECONNREFUSED),
            from(4, acces, 0),
            from(5, acces, libc::ENOTTY),
            from(6, perm, 0),
            from(6, perm, 0),
        ];
        assert_eq!(found, expected, "ABI {number}");
    }
}
