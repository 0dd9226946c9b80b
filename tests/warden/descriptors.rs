//! Descriptors that come beside a packet: the wrong ones, too many, and such that whoever closes them would have to wait.

use crate::needs;
use crate::raw::{Raw, readable};
use crate::requests::{create, exec, shell};
use crate::support::{bound, together};
use cellblock::cell::command::MAX_ENCODED;
use cellblock::warden::memfd;
use cellblock::warden::protocol::{CellEnd, Filesystem};
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use serde_json::json;
use std::fs::File;
use std::io::{ErrorKind, IoSlice, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;
use uuid::Uuid;

/// A memfd of this size with these seals.
fn sealed(size: u64, seals: SealFlag) -> OwnedFd {
    let flags = MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC;
    let file = File::from(memfd_create(c"command", flags).expect("a memfd"));
    file.set_len(size).expect("size it");
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).expect("seal it");
    file.into()
}

fn opened(path: &str, flags: OFlag) -> OwnedFd {
    open(path, flags | OFlag::O_CLOEXEC, Mode::empty()).expect("open")
}

#[test]
fn nothing_but_one_sealed_memfd_of_bounded_size_is_a_command() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let order = shell("/", "true").encode();
    let good = memfd::seal(c"command", &order).expect("a memfd");
    let all = SealFlag::all();
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let file = raw.host().join("secret");
    let wrong = [
        (
            "a memfd that may be written",
            sealed(100, all - SealFlag::F_SEAL_WRITE),
        ),
        (
            "one that may grow",
            sealed(100, all - SealFlag::F_SEAL_GROW),
        ),
        (
            "one that may shrink",
            sealed(100, all - SealFlag::F_SEAL_SHRINK),
        ),
        ("one without any seal", sealed(100, SealFlag::empty())),
        ("an empty one", sealed(0, all)),
        (
            "one that is too large by a byte",
            sealed(MAX_ENCODED + 1, all),
        ),
        ("one that says it is huge", sealed(1 << 40, all)),
        ("a directory", opened("/", OFlag::O_RDONLY)),
        ("a handle", opened("/", OFlag::O_PATH)),
        ("a pipe's reading end", read),
        ("a pipe's writing end", write),
        (
            "a file",
            opened(file.to_str().expect("UTF-8"), OFlag::O_RDWR),
        ),
        ("its memory", opened("/proc/self/mem", OFlag::O_RDWR)),
        ("a device", opened("/dev/zero", OFlag::O_RDWR)),
        ("a namespace", opened("/proc/self/ns/mnt", OFlag::O_RDONLY)),
        ("the link itself", raw.link.try_clone().expect("dup")),
    ];
    for (what, fd) in &wrong {
        let failure = raw.refused(exec(raw.runtime), &[fd.as_fd()]);
        assert_eq!(
            failure,
            json!({"kind": "invalid", "detail": "command"}),
            "{what}"
        );
    }
    let failure = raw.refused(exec(raw.runtime), &[]);
    assert_eq!(failure, json!({"kind": "no_room", "detail": "descriptors"}));
    for more in [2, 253] {
        let fds = vec![good.as_fd(); more];
        let failure = raw.refused(exec(raw.runtime), &fds);
        assert_eq!(
            failure,
            json!({"kind": "invalid", "detail": "command"}),
            "{more} of them"
        );
    }
    drop(wrong);
    raw.assert_well("wrong descriptors");
}

/// What is in it is the payload's to read, with no right left.
#[test]
fn a_memfd_full_of_rubbish_ends_its_own_cell_and_no_more() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let header = |counts: [u32; 4]| counts.map(u32::to_le_bytes).concat();
    let mut orders = vec![
        b"x".to_vec(),
        vec![0xff; 4096],
        vec![0; MAX_ENCODED as usize],
        header([0, u32::MAX, u32::MAX, u32::MAX]),
        [&header([0, 0, u32::MAX, 0])[..], b"/\0true\0"].concat(),
        // An operation on files with no path, or two.
        [&0x8000_0001u32.to_le_bytes()[..], b"/etc/shadow"].concat(),
        [&0x8000_0002u32.to_le_bytes()[..], b"/a\0/b\0"].concat(),
    ];
    orders.push(shell("/", "true").encode()[..40].to_vec());
    for order in orders {
        let ran = raw.run(exec(raw.runtime), &order);
        assert_eq!(
            ran.end,
            CellEnd::SetupFailed,
            "{:?}",
            &order[..order.len().min(40)]
        );
        assert_eq!(ran.text(), "");
    }
    raw.assert_well("rubbish");
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed_at_once() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let too_long = vec![b' '; 5000];
    let list = br#"{"type":"list_images","seq":9000000,"after":null}"#;
    let unknown = format!(
        r#"{{"type":"delete_runtime","seq":9000001,"id":"{}"}}"#,
        Uuid::now_v7()
    );
    let make = create(Uuid::nil(), Filesystem::ReadOnly).to_string();
    let kill = br#"{"type":"kill","seq":123456789}"#;
    for bytes in [
        &b"rubbish"[..],
        &too_long,
        list,
        unknown.as_bytes(),
        make.as_bytes(),
        kill,
    ] {
        for round in 0..20 {
            let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("a pipe");
            raw.send(bytes, &[write.as_fd(); 253]);
            drop(write);
            let mut fds = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
            let limit = PollTimeout::try_from(bound(20_000)).expect("not long");
            assert_eq!(poll(&mut fds, limit), Ok(1), "still open, round {round}");
        }
        while raw.next_reply(Duration::ZERO).is_some() {}
    }
    raw.assert_well("thousands of descriptors");
}

/// With no room left in its table the packet comes without them, and room is there again afterwards.
#[test]
fn a_warden_whose_table_is_full_refuses_and_goes_on() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let order = memfd::seal(c"command", &shell("/", "true").encode()).expect("a memfd");
    let limits = |soft| {
        let mut old = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        let pid = raw.pid as libc::pid_t;
        // SAFETY: both structures outlive the calls; the process is this test's own.
        unsafe {
            let null = std::ptr::null();
            assert_eq!(
                libc::prlimit(pid, libc::RLIMIT_NOFILE, null, &raw mut old),
                0
            );
            let new = libc::rlimit {
                rlim_cur: soft,
                ..old
            };
            let none = std::ptr::null_mut();
            assert_eq!(
                libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const new, none),
                0
            );
        }
        old.rlim_cur
    };
    let before = limits(40);
    for fds in [1, 60, 253] {
        let failure = raw.refused(exec(Uuid::now_v7()), &vec![order.as_fd(); fds]);
        assert_eq!(failure["kind"], "unknown_runtime", "{fds} descriptors");
        raw.assert_lives();
    }
    let failure = raw.refused(exec(raw.runtime), &vec![order.as_fd(); 60]);
    assert_eq!(failure, json!({"kind": "no_room", "detail": "descriptors"}));
    limits(before);
    raw.assert_well("a full table");
}

/// The sender's credentials are not asked for, so they are not looked at either.
#[test]
fn credentials_beside_a_packet_change_nothing() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    use nix::sys::socket::{ControlMessage, MsgFlags, UnixCredentials, sendmsg};
    let credentials = UnixCredentials::new();
    let order = memfd::seal(c"command", &shell("/", "true").encode()).expect("a memfd");
    let number = [order.as_raw_fd()];
    let mut request = exec(raw.runtime);
    let seq = raw.seq();
    request["seq"] = json!(seq);
    let control = [
        ControlMessage::ScmCredentials(&credentials),
        ControlMessage::ScmRights(&number),
        ControlMessage::ScmRights(&number),
    ];
    let bytes = request.to_string().into_bytes();
    let io = [IoSlice::new(&bytes)];
    sendmsg::<()>(raw.link.as_raw_fd(), &io, &control, MsgFlags::empty(), None).expect("send");
    let (reply, _) = raw.reply(seq);
    let failure = serde_json::to_value(reply).expect("plain data");
    assert_eq!(failure["failure"]["detail"], "command", "{failure}");
    raw.assert_well("credentials");
}

/// Both ends of a connection over which the first can send nothing more, and waits for an hour where it is closed last.
pub fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    let mut ours = TcpStream::connect(address).expect("connect");
    let (theirs, _) = listener.accept().expect("accept");
    let hour = Some(Duration::from_secs(3600));
    rustix::net::sockopt::set_socket_linger(&ours, hour).expect("SO_LINGER");
    ours.set_nonblocking(true).expect("a flag");
    loop {
        match ours.write(&[0; 65536]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    (ours, theirs)
}

#[test]
fn a_socket_that_lingers_holds_nobody_up() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    for bytes in [
        &b"rubbish"[..],
        &[b' '; 5000],
        exec(raw.runtime).to_string().as_bytes(),
    ] {
        let (ours, _theirs) = lingering();
        raw.send(bytes, &[ours.as_fd()]);
        // Now whoever has it last is the warden.
        drop(ours);
        raw.assert_lives();
    }
    while readable(&raw.link, Duration::ZERO) {
        raw.next_reply(Duration::ZERO);
    }
    raw.assert_well("sockets that linger");
}
