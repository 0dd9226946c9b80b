//! What uses resources up, looks for other processes' things, or tells what was inherited.

use std::fs;
use std::io::Error;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::process::Command;
use std::time::Duration;

/// Prints `fd target` for every open descriptor but the one that lists them.
pub fn fds() {
    for entry in fs::read_dir("/proc/self/fd")
        .expect("list descriptors")
        .flatten()
    {
        // The listing's own descriptor is gone by the time its link is read below.
        let name = entry.file_name();
        if let Ok(target) = fs::read_link(entry.path()) {
            let target = target.display().to_string();
            if !target.ends_with("/fd") {
                println!("{} {target}", name.to_string_lossy());
            }
        }
    }
}

/// Forks in every process, for ever.
pub fn fork_bomb() {
    loop {
        // SAFETY: one thread; parent and child both just go on with this loop.
        unsafe { libc::fork() };
    }
}

/// Starts children by vfork that end at once, for ever, ignoring SIGTERM.
pub fn vfork_storm() {
    // SAFETY: ignoring a signal touches no memory.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    loop {
        // Command uses posix_spawn, which clones with CLONE_VFORK.
        let _ = Command::new("/bin/true").status();
    }
}

/// Allocates and touches so much memory, then says so.
pub fn eat(mib: usize) {
    let mut held = Vec::new();
    for _ in 0..mib {
        held.push(vec![1u8; 1 << 20]);
    }
    println!("{} MiB", std::hint::black_box(&held).len());
}

/// Runs so many threads at once and prints how many ended.
pub fn threads(count: usize) {
    let work = |_| std::thread::spawn(|| std::thread::sleep(Duration::from_millis(50)));
    let threads: Vec<_> = (0..count).map(work).collect();
    println!(
        "{}",
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .count()
    );
}

fn errno<T>(result: std::io::Result<T>) -> i32 {
    result
        .err()
        .map_or(0, |error| error.raw_os_error().unwrap_or(-1))
}

/// Connects to an abstract unix socket.
pub fn abstract_connect(name: &str) -> i32 {
    let address = UnixAddr::from_abstract_name(name).expect("an abstract name");
    errno(UnixStream::connect_addr(&address))
}

/// Connects to an address and port.
pub fn connect(address: &str) -> i32 {
    let address: SocketAddr = address.parse().expect("ADDRESS:PORT");
    errno(TcpStream::connect_timeout(&address, Duration::from_secs(3)))
}

/// Talks to itself over 127.0.0.1: works where the loopback device is up.
pub fn loopback() -> i32 {
    let connected = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| TcpStream::connect(listener.local_addr()?).map(|_| ()));
    errno(connected)
}

/// Prints `name up|down` for every network device.
pub fn interfaces() {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket to ask with");
    let table = fs::read_to_string("/proc/net/dev").expect("read /proc/net/dev");
    for name in table
        .lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
    {
        // SAFETY: ifreq is plain data; all zero is valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        // SAFETY: SIOCGIFFLAGS reads the name and writes the flags of the ifreq, which lives until it returns.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &mut request) };
        assert_eq!(result, 0, "SIOCGIFFLAGS: {}", Error::last_os_error());
        // SAFETY: the call above has filled this member of the union.
        let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
        println!(
            "{name} {}",
            if flags & libc::IFF_UP != 0 {
                "up"
            } else {
                "down"
            }
        );
    }
}

/// Makes or looks for a System V shared memory segment, a queue and a semaphore of a key. The last errno, 0 if all three
/// are there.
pub fn sysv(key: u64, make: bool) -> i32 {
    let flags = if make { libc::IPC_CREAT | 0o666 } else { 0 };
    let key = key as libc::key_t;
    let mut last = 0;
    // SAFETY: the three calls take numbers only.
    let results = unsafe {
        [
            libc::shmget(key, 4096, flags),
            libc::msgget(key, flags),
            libc::semget(key, 1, flags),
        ]
    };
    if results.iter().any(|result| *result < 0) {
        last = Error::last_os_error().raw_os_error().unwrap_or(-1);
    }
    last
}

/// Prints what a program inherits of signals, umask and session: `ignored blocked umask own-session`.
pub fn signals() {
    let status = fs::read_to_string("/proc/self/status").expect("read status");
    let value = |key: &str| {
        let line = status
            .lines()
            .find(|line| line.starts_with(key))
            .expect("a status line");
        line.split_once(':').expect("a colon").1.trim().to_owned()
    };
    // The Rust runtime itself ignores SIGPIPE (13) at the start.
    let ignored = u64::from_str_radix(&value("SigIgn"), 16).expect("a mask") & !(1 << 12);
    // SAFETY: getsid and getpid take and give numbers.
    let (session, pid) = unsafe { (libc::getsid(0), libc::getpid()) };
    println!(
        "{ignored:x} {} {} {}",
        value("SigBlk"),
        value("Umask"),
        session == pid
    );
}

/// Writes a program and executes it, so many times; prints how often the kernel said ETXTBSY.
pub fn write_and_execute(count: usize) {
    let program = fs::read("/bin/true").expect("read /bin/true");
    // Process ids repeat between cells that share the directory; moments don't.
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    let path = format!("/tmp/written-{}", now.as_nanos());
    let mut busy = 0;
    for _ in 0..count {
        let _ = fs::remove_file(&path);
        fs::write(&path, &program).expect("write a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod it");
        match Command::new(&path).status() {
            Ok(status) => assert!(status.success(), "the copy of true failed: {status}"),
            Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => busy += 1,
            Err(error) => panic!("execute: {error}"),
        }
    }
    let _ = fs::remove_file(&path);
    println!("{busy}");
}
