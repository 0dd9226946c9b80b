//! Landlock from inside: how many domains there are already, and what the one around a cell denies.

use std::io::Error;
use std::net::TcpListener;

/// LANDLOCK_ACCESS_FS_WRITE_FILE (linux/landlock.h), the only right that the domains here handle.
const WRITE_FILE: u64 = 1 << 1;

fn errno() -> i32 {
    Error::last_os_error().raw_os_error().unwrap_or(-1)
}

/// Enters a domain in which no file can be written.
fn enter() -> i32 {
    let handled = WRITE_FILE;
    // SAFETY: the attribute is the first field of struct landlock_ruleset_attr, whose size is passed; it outlives the call.
    unsafe {
        let ruleset = libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const handled,
            8usize,
            0,
        );
        if ruleset < 0 || libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) < 0 {
            return errno();
        }
        libc::close(ruleset as i32);
    }
    0
}

/// Enters domains until the kernel refuses one: how many, and the errno.
pub fn layers() {
    let mut entered = 0;
    loop {
        match enter() {
            0 => entered += 1,
            errno => return println!("{entered} {errno}"),
        }
    }
}

/// Enters one and then opens a file to write it: both errnos.
pub fn restrict_self(path: &str) {
    let entered = enter();
    let opened = std::fs::OpenOptions::new().write(true).open(path);
    let opened = opened.map_or_else(|error| error.raw_os_error().unwrap_or(-1), |_| 0);
    println!("{entered} {opened}");
}

/// Binds a TCP socket.
pub fn bind(address: &str) -> i32 {
    match TcpListener::bind(address) {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    }
}

/// Makes a POSIX message queue.
pub fn message_queue() -> i32 {
    let flags = libc::O_CREAT | libc::O_RDWR;
    let attributes = std::ptr::null::<libc::mq_attr>();
    // SAFETY: the name is NUL-ended; null attributes are the defaults.
    match unsafe { libc::mq_open(c"/probe".as_ptr(), flags, 0o600, attributes) } {
        -1 => errno(),
        _ => 0,
    }
}
