//! Nobody takes the log: its pipe is full, its reader is gone, its disk is full. The service does its work all the same.

use crate::needs;
use crate::support::mounts::TestDir;
use crate::support::server::Options;
use crate::support::{Server, alone, bound, eventually};
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;

/// Has the warden replaced, of which every process of the service tells, and shows that all of them go on.
fn restarts_its_warden(server: &Server) {
    let before = server.warden_pid();
    // SAFETY: kill(2) takes numbers only; the pid is a process of this test's own server.
    unsafe { libc::kill(before as i32, libc::SIGKILL) };
    assert!(
        eventually(bound(20_000), || server.works()),
        "it does not go on"
    );
}

fn logging_to(dir: TestDir, redirect: &str) -> Server {
    let options = Options {
        before: Some(redirect.to_owned()),
        ..Options::default()
    };
    Server::start_in(dir, options).unwrap_or_else(|text| panic!("{text}"))
}

#[test]
fn a_log_pipe_that_nobody_empties_keeps_nothing_waiting() {
    needs!(Root, Unshare);
    let _turn = alone();
    let dir = TestDir::new();
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).expect("make a pipe");
    let mut ends = File::options();
    ends.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let mut pipe = ends.open(&pipe).expect("open both ends");
    // Full to the last byte.
    let mut size = 1 << 16;
    while size > 0 {
        if pipe.write(&vec![b'x'; size]).is_err() {
            size /= 2;
        }
    }
    let server = logging_to(dir, "exec > \"$TEST_DIR/pipe\" 2>&1");
    assert!(server.works());
    for _ in 0..2 {
        restarts_its_warden(&server);
    }
    let mut take = || {
        let mut taken = Vec::new();
        let _ = pipe.read_to_end(&mut taken);
        String::from_utf8_lossy(&taken).into_owned()
    };
    assert!(take().trim_matches('x').is_empty(), "it was not full");
    restarts_its_warden(&server);
    let mut log = String::new();
    let told = || {
        log += &take();
        log.contains("log lines are missing here") && log.contains("the warden ended; restarting")
    };
    assert!(eventually(bound(10_000), told), "{}", server.log());
    assert!(server.stop().success());
}

#[test]
fn a_log_that_takes_nothing_is_no_reason_to_end() {
    needs!(Root, Unshare);
    let _turn = alone();
    // A full disk, a reader that is gone, nothing at all.
    for redirect in [
        "exec > /dev/full 2>&1",
        "mkfifo \"$TEST_DIR/pipe\"; exec 3<> \"$TEST_DIR/pipe\" > \"$TEST_DIR/pipe\" 2>&1 3>&-",
        "exec >&- 2>&-",
    ] {
        let server = logging_to(TestDir::new(), redirect);
        assert!(server.works(), "{redirect}");
        restarts_its_warden(&server);
        assert!(server.stop().success(), "{redirect}");
    }
}
