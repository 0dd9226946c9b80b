//! What the kernel holds for a process beside its memory.

use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// linux/tcp.h and friends; libc has them for some targets only.
const IP_MINTTL: i32 = 21;
const SO_MEMINFO: i32 = 55;
const SK_MEMINFO_RMEM_ALLOC: usize = 0;
const SK_MEMINFO_VARS: usize = 9;

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn open(family: i32, kind: i32) -> Result<OwnedFd, i32> {
    // SAFETY: socket(2) takes numbers only.
    let fd = unsafe { libc::socket(family, kind, 0) };
    match fd {
        // SAFETY: it was opened just now.
        0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(errno()),
    }
}

fn set(fd: RawFd, level: i32, option: i32, value: i32) -> i32 {
    let (value, size) = ((&raw const value).cast(), size_of::<i32>() as u32);
    // SAFETY: the value is an int of that size and outlives the call.
    match unsafe { libc::setsockopt(fd, level, option, value, size) } {
        0 => 0,
        _ => errno(),
    }
}

/// Opens netlink sockets until that fails, in `processes` processes that hold theirs, and prints how many they got together
/// and what the last refusal of each was.
pub fn netlink_sockets(processes: usize) {
    let (mut all, mut refusals) = (Vec::new(), Vec::new());
    let children: Vec<_> = (0..processes)
        .map(|_| {
            let (reader, writer) = pipe();
            let (held, hold) = pipe();
            // SAFETY: this program has one thread.
            if unsafe { libc::fork() } == 0 {
                drop((reader, hold));
                let mut open_ones = Vec::new();
                let refused = loop {
                    match open(libc::AF_NETLINK, libc::SOCK_RAW) {
                        Ok(socket) => open_ones.push(socket),
                        Err(errno) => break errno,
                    }
                };
                write_numbers(&writer, &[open_ones.len() as i32, refused]);
                // Until everybody has tried.
                read_numbers(&held);
                std::process::exit(0);
            }
            (reader, hold)
        })
        .collect();
    for (reader, _) in &children {
        let [count, refused] = read_numbers(reader)[..] else {
            panic!("a child said nothing");
        };
        all.push(count);
        refusals.push(refused);
    }
    refusals.dedup();
    println!("{} {refusals:?}", all.iter().sum::<i32>());
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: it writes two numbers.
    assert_eq!(unsafe { libc::pipe(fds.as_mut_ptr()) }, 0);
    // SAFETY: they were opened just now.
    fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).into()
}

fn write_numbers(to: &OwnedFd, numbers: &[i32]) {
    // SAFETY: the slice is as long as is said.
    let written = unsafe {
        libc::write(
            to.as_raw_fd(),
            numbers.as_ptr().cast(),
            size_of_val(numbers),
        )
    };
    assert_eq!(written as usize, size_of_val(numbers));
}

fn read_numbers(from: &OwnedFd) -> Vec<i32> {
    let mut numbers = [0; 2];
    // SAFETY: as many bytes as the array has.
    let read = unsafe {
        libc::read(
            from.as_raw_fd(),
            numbers.as_mut_ptr().cast(),
            size_of_val(&numbers),
        )
    };
    numbers[..usize::try_from(read).unwrap_or(0) / 4].to_vec()
}

/// Fills the queues of so many UDP sockets that nobody reads; prints the bytes that wait in all of them together, at once and
/// at last. Where that is more than `limit`, it gives the kernel and the server a while to do something about it, and no
/// reason.
pub fn datagrams(sockets: usize, limit: u64) {
    let receivers: Vec<std::net::UdpSocket> = (0..sockets)
        .map_while(|_| std::net::UdpSocket::bind("127.0.0.1:0").ok())
        .collect();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("a sender");
    sender.set_nonblocking(true).expect("no waiting");
    for receiver in &receivers {
        set(
            receiver.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            1 << 30,
        );
        let to = receiver.local_addr().expect("an address");
        for _ in 0..16 {
            let _ = sender.send_to(&[0; 60_000], to);
        }
    }
    let sum = || {
        receivers
            .iter()
            .map(|to| queued(to.as_raw_fd()))
            .sum::<u64>()
    };
    let at_once = sum();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while sum() >= limit && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    println!("{at_once} {}", sum());
}

fn queued(fd: RawFd) -> u64 {
    let mut values = [0u32; SK_MEMINFO_VARS];
    let mut size = size_of_val(&values) as u32;
    // SAFETY: the kernel writes no more than that size.
    let got = unsafe {
        let to = values.as_mut_ptr().cast();
        libc::getsockopt(fd, libc::SOL_SOCKET, SO_MEMINFO, to, &raw mut size)
    };
    assert_eq!(got, 0, "SO_MEMINFO: {}", errno());
    values[SK_MEMINFO_RMEM_ALLOC].into()
}

/// Leaves so many TCP connections behind that have bytes to send and hear no answer.
pub fn orphans(connections: usize) {
    use std::io::Write;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    let mut both = Vec::new();
    for _ in 0..connections {
        let mut client = std::net::TcpStream::connect(address).expect("connect");
        let server = listener.accept().expect("accept").0;
        client.set_nonblocking(true).expect("no waiting");
        while client.write(&[0; 65536]).is_ok() {}
        // What comes from the other end, a reset too, has a lower one and is dropped.
        let fd = client.as_raw_fd();
        assert_eq!(set(fd, libc::IPPROTO_IP, IP_MINTTL, 255), 0);
        both.push((client, server));
    }
    println!("{}", both.len());
}

/// Prints what the kernel says to each way of putting a program on a socket.
pub fn socket_filters() {
    let socket = open(libc::AF_INET, libc::SOCK_DGRAM).expect("a socket");
    let mut program = [libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    }];
    let program = libc::sock_fprog {
        len: 1,
        filter: program.as_mut_ptr(),
    };
    for option in [26, 50, 51, 52] {
        for level in [1i64, 1 << 32 | 1] {
            // SAFETY: the program outlives the call, which only reads it; options that want a descriptor read a number there.
            let result = unsafe {
                let (program, size) = (&raw const program, size_of::<libc::sock_fprog>());
                libc::syscall(
                    libc::SYS_setsockopt,
                    socket.as_raw_fd(),
                    level,
                    option,
                    program,
                    size,
                )
            };
            println!("{option} {}", if result == 0 { 0 } else { errno() });
        }
    }
}

/// Prints how many terminals can be opened at a time, and why no more.
pub fn terminals() {
    let mut held = Vec::new();
    let refused = loop {
        // SAFETY: the name ends with NUL.
        match unsafe { libc::open(c"/dev/ptmx".as_ptr(), libc::O_RDWR) } {
            fd @ 0.. => held.push(fd),
            _ => break errno(),
        }
    };
    println!("{} {refused}", held.len());
}
