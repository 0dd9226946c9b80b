//! The supervisor's side of a taken-over api process: its control socket takes anything, and must neither be waited for nor
//! believed. What is shown each time is what only a supervisor does: a killed warden is replaced.

use crate::descriptors::lingering;
use crate::holdings::steal;
use crate::needs;
use crate::support::held::Held;
use crate::support::server::Options;
use crate::support::{Server, bound, eventually, procs, together};
use cellblock::roles::{PONG, READY, WARDEN, fds};
use cellblock::sys::packet;
use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The api process's end of its socket to the supervisor.
fn control(server: &Server) -> OwnedFd {
    steal(server.api_pid(), fds::CONTROL as u64).expect("the control socket")
}

#[track_caller]
fn assert_supervises(server: &Server, after: &str) {
    let warden = server.warden_pid();
    // SAFETY: kill(2) takes numbers only; the process is one of this test's own server.
    unsafe { libc::kill(warden as i32, libc::SIGKILL) };
    let another = || {
        let of = |pid: &u32| procs::parent(*pid) == Some(server.pid) && procs::uid(*pid) == Some(0);
        let living = |pid: &u32| *pid != warden && procs::state(*pid) != Some('Z');
        procs::all().into_iter().filter(of).any(|pid| living(&pid))
    };
    // And ready, so that it removes its groups when the test ends.
    let ready = || {
        let answer = server.api.try_send("GET", "/readyz", &[], None);
        answer.is_ok_and(|reply| reply.status == 200)
    };
    let replaced = eventually(bound(30_000), || another() && ready());
    assert!(replaced, "no other warden after {after}:\n{}", server.log());
}

#[test]
fn whatever_the_api_process_says_to_it_the_supervisor_goes_on() {
    needs!(Root);
    let _turn = together();
    let server = Server::start(Options::default());
    let link = control(&server);
    let send = |bytes: &[u8], fds: &[std::os::fd::BorrowedFd<'_>]| {
        packet::offer(link.as_fd(), bytes, fds).is_ok()
    };
    for round in 0..1000 {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a pipe");
        let words: [&[u8]; 6] = [
            READY,
            PONG,
            WARDEN.as_bytes(),
            b"rubbish",
            &[0xff; 5000],
            b"stop",
        ];
        send(words[round % words.len()], &[write.as_fd(), read.as_fd()]);
    }
    let (socket, _peer) = lingering();
    let sent = || send(b"rubbish", &[socket.as_fd()]);
    assert!(eventually(bound(10_000), sent), "it takes nothing any more");
    drop(socket);
    assert_supervises(&server, "words and descriptors");
}

/// It answers what it never read, until the socket has no room for another question.
#[test]
fn an_api_process_that_does_not_read_does_not_hold_the_supervisor() {
    needs!(Root);
    let _turn = together();
    let server = Server::start(Options::default());
    let link = control(&server);
    let _hold = Held::process(server.api_pid());
    // Which of the supervisor's sockets is the other end: the one whose packets arrive here.
    let mut found = None;
    let entries = std::fs::read_dir(format!("/proc/{}/fd", server.pid)).expect("list");
    for number in entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    {
        let Some(fd) = steal(server.pid, number) else {
            continue;
        };
        let mut buffer = [0; 16];
        // Nobody knows this word, so a warden that gets it goes on.
        if packet::offer(fd.as_fd(), b"which", &[]).is_err() {
            continue;
        }
        while let Ok(length) = received(&link, &mut buffer) {
            if &buffer[..length] == b"which" {
                found = fd.try_clone().ok();
            }
        }
    }
    let theirs = found.expect("the supervisor's end");
    loop {
        match packet::offer(theirs.as_fd(), b"full", &[]) {
            Ok(()) => {}
            Err(Errno::EAGAIN) => break,
            Err(errno) => panic!("{errno}"),
        }
    }
    // So that it is asked again, and could not be.
    packet::offer(link.as_fd(), PONG, &[]).expect("answer");
    let noticed = || {
        server
            .log()
            .contains("the api process does not answer and was killed")
    };
    assert!(
        eventually(bound(60_000), noticed),
        "it waits for room:\n{}",
        server.log()
    );
}

fn received(socket: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    use nix::sys::socket::{MsgFlags, recv};
    match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
        Ok(0) => Err(Errno::ECONNRESET),
        other => other,
    }
}
