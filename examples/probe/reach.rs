//! Other processes and what they have open, looked for by every way that leads there.

use std::ffi::c_long;
use std::fs::{self, File, OpenOptions};
use std::io::{Error, IoSliceMut};
use std::os::unix::fs::MetadataExt;

fn errno(result: c_long) -> i32 {
    match result < 0 {
        true => Error::last_os_error().raw_os_error().unwrap_or(-1),
        false => 0,
    }
}

/// What of a process leads into its memory, its files or its rights.
const FILES: [&str; 16] = [
    "mem",
    "environ",
    "maps",
    "smaps",
    "auxv",
    "stack",
    "syscall",
    "pagemap",
    "io",
    "exe",
    "root/",
    "cwd/",
    "fd",
    "fdinfo",
    "map_files",
    "ns/mnt",
];

/// Prints `what errno` for each way into another process.
pub fn into_process(pid: i32) {
    let mut byte = [0u8; 1];
    let local = [IoSliceMut::new(&mut byte)];
    let remote = libc::iovec {
        iov_base: 0x1000 as *mut _,
        iov_len: 1,
    };
    // SAFETY: PTRACE_ATTACH and PTRACE_SEIZE take no memory of ours; process_vm_* is given one byte of ours and an address
    // in the other process, which the kernel checks; the rest takes numbers.
    unsafe {
        let none = std::ptr::null::<u8>();
        println!(
            "ptrace attach\t{}",
            errno(libc::syscall(libc::SYS_ptrace, 16, pid, 0, 0))
        );
        println!(
            "ptrace seize\t{}",
            errno(libc::syscall(libc::SYS_ptrace, 0x4206, pid, 0, 0))
        );
        let read = libc::syscall(libc::SYS_process_vm_readv, pid, &local, 1, &remote, 1, 0);
        println!("process_vm_readv\t{}", errno(read));
        let written = libc::syscall(libc::SYS_process_vm_writev, pid, &local, 1, &remote, 1, 0);
        println!("process_vm_writev\t{}", errno(written));
        let own = libc::getpid();
        println!(
            "kcmp\t{}",
            errno(libc::syscall(libc::SYS_kcmp, own, pid, 0, 0, 0))
        );
        let pidfd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        println!(
            "pidfd_getfd\t{}",
            errno(libc::syscall(libc::SYS_pidfd_getfd, pidfd, 0, 0))
        );
        let kill = libc::syscall(libc::SYS_pidfd_send_signal, pidfd, libc::SIGKILL, none, 0);
        println!("pidfd_send_signal\t{}", errno(kill));
        println!(
            "kill\t{}",
            errno(c_long::from(libc::kill(pid, libc::SIGKILL)))
        );
        let mask = 1u64;
        println!(
            "sched_setaffinity\t{}",
            errno(libc::syscall(libc::SYS_sched_setaffinity, pid, 8, &mask))
        );
        let limit = [0u64; 2];
        println!(
            "prlimit64\t{}",
            errno(libc::syscall(libc::SYS_prlimit64, pid, 0, &limit, none))
        );
    }
    for file in FILES {
        let path = format!("/proc/{pid}/{file}");
        // A directory that can't be listed and a file that can't be opened; of some the first read is what is refused.
        let opened = match file {
            "fd" | "fdinfo" | "map_files" | "root/" | "cwd/" => fs::read_dir(&path).map(|_| ()),
            _ => File::open(&path).and_then(|mut file| {
                let mut some = [0; 1];
                std::io::Read::read(&mut file, &mut some).map(|_| ())
            }),
        };
        let errno = opened
            .err()
            .map_or(0, |error| error.raw_os_error().unwrap_or(-1));
        println!("open {file}\t{errno}");
    }
    for file in ["mem", "oom_score_adj", "clear_refs", "uid_map"] {
        let path = format!("/proc/{pid}/{file}");
        let opened = OpenOptions::new().write(true).open(&path);
        let errno = opened
            .err()
            .map_or(0, |error| error.raw_os_error().unwrap_or(-1));
        println!("write {file}\t{errno}");
    }
    // Anybody may open these; to write is another thing.
    for file in ["attr/current", "timerslack_ns"] {
        let written = fs::write(format!("/proc/{pid}/{file}"), "50000");
        let errno = written
            .err()
            .map_or(0, |error| error.raw_os_error().unwrap_or(-1));
        println!("write to {file}\t{errno}");
    }
}

/// Walks through every link of every process to a directory and a descriptor, and up from there. Prints what is on another
/// file system tree than our own root, and at the end how many links were tried.
pub fn walk() {
    let own = fs::metadata("/").expect("look at /");
    let mut tried = 0;
    let mut pids: Vec<String> = vec!["self".to_owned(), "thread-self".to_owned()];
    let listed = fs::read_dir("/proc").expect("list /proc").flatten();
    let numeric = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
    pids.extend(
        listed
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(numeric),
    );
    for pid in &pids {
        let mut links: Vec<String> = ["root", "cwd", "exe"]
            .map(|name| format!("/proc/{pid}/{name}"))
            .to_vec();
        links.extend((0..100).map(|fd| format!("/proc/{pid}/fd/{fd}")));
        for link in links {
            tried += 1;
            for up in ["", "/..", "/../..", "/../../../../../../../.."] {
                // Entered and not opened: Landlock lets that be, so this sees what it would only cover up.
                if std::env::set_current_dir(format!("{link}{up}")).is_err() {
                    continue;
                }
                // Up to the top, wherever that is.
                let top = fs::metadata("../../../../../../../../../../../..").expect("look up");
                if (top.dev(), top.ino()) != (own.dev(), own.ino()) {
                    println!("{link}{up} leads out: {}:{}", top.dev(), top.ino());
                }
            }
        }
    }
    println!("{tried} tried");
}
