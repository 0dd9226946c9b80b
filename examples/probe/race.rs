//! Changes names under the feet of whoever walks them, as fast as the kernel lets it.

use std::ffi::CString;
use std::io::Error;
use std::path::Path;
use std::time::{Duration, Instant};

/// Exchanges the names of each pair (renameat2(2), RENAME_EXCHANGE) until there is a file `stop` or the seconds are over. The
/// file `racing` says that it goes on. Prints `first second exchanged last-errno` for each pair.
pub fn exchange(seconds: u64, names: &[&str]) {
    let text = |name: &str| CString::new(name).expect("no NUL");
    let pairs: Vec<(CString, CString)> = names
        .chunks_exact(2)
        .map(|pair| (text(pair[0]), text(pair[1])))
        .collect();
    let mut done = vec![(0u64, 0i32); pairs.len()];
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut rounds = 0u64;
    while Instant::now() < end && !Path::new("stop").exists() {
        for _ in 0..64 {
            for ((first, second), (exchanged, errno)) in pairs.iter().zip(&mut done) {
                let (first, second) = (first.as_ptr(), second.as_ptr());
                let (here, how) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
                // SAFETY: both names are C strings that outlive the call.
                match unsafe { libc::syscall(libc::SYS_renameat2, here, first, here, second, how) }
                {
                    0 => *exchanged += 1,
                    _ => *errno = Error::last_os_error().raw_os_error().unwrap_or(-1),
                }
            }
        }
        rounds += 1;
        if rounds == 1 {
            std::fs::write("racing", "").expect("say that it goes on");
        }
    }
    for (pair, (exchanged, errno)) in names.chunks_exact(2).zip(&done) {
        println!("{} {} {exchanged} {errno}", pair[0], pair[1]);
    }
}
