//! How many netlink sockets a cell may have. What waits in their queues is charged to no cgroup, and each holds twice what
//! SO_RCVBUF says: thousands of them are the machine's memory. Nothing else bounds their number below that of open files.
//!
//! So the payload installs a filter that asks about each, and init answers (seccomp_unotify(2)): it looks how many there are
//! in the cell's network namespace and lets the kernel go on with the call, or not. It reads nothing of the asker's, so that
//! what the asker changes meanwhile deceives nobody.

use crate::cell::error::{Result, Step};
use crate::sys::{packet, seccomp};
use nix::errno::Errno;
use nix::poll::PollFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How many there may be at a time. Programs open one for a moment to list interfaces and addresses. Threads that ask at the
/// same moment may get one each beyond that.
const MOST: u64 = 16;

/// One line for each protocol: name, size, sockets in the reader's network namespace (net/core/sock.c).
const PROTOCOLS: &str = "/proc/self/net/protocols";

/// The payload's part: installs the filter and hands its listener to init. Needs no_new_privs. Before the filters of the
/// profile, of which one may refuse what this needs.
pub fn ask_init(channel: BorrowedFd<'_>) -> Result<()> {
    let step = "bound netlink sockets";
    let listener = install().step(step)?;
    packet::send(channel, b"netlink", &[listener.as_fd()]).step(step)
}

/// socket(2) of the family AF_NETLINK is asked about; all else is for other filters, which win where they refuse.
fn install() -> nix::Result<OwnedFd> {
    #[cfg(target_arch = "x86_64")]
    const ARCH: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const ARCH: u32 = 0xc000_00b7;
    let instruction = |code: u32, jf, k| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, offset);
    // `away`: how many instructions further on where it is something else.
    let unless =
        |value, away| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, away, value);
    let end = |action| instruction(libc::BPF_RET | libc::BPF_K, 0, action);
    // Offsets in struct seccomp_data: nr, arch, the low half of the first argument. Other architectures than the machine's
    // own are the profile's to refuse.
    let program = [
        load(4),
        unless(ARCH, 5),
        load(0),
        unless(libc::SYS_socket as u32, 3),
        load(16),
        unless(libc::AF_NETLINK as u32, 1),
        end(libc::SECCOMP_RET_USER_NOTIF),
        end(libc::SECCOMP_RET_ALLOW),
    ];
    seccomp::listen(&program)
}

/// Init's part.
#[derive(Debug)]
pub enum Gate {
    /// The payload has not installed its filter yet: where the listener will come from.
    Channel(OwnedFd),
    /// What tells of askers.
    Listener(OwnedFd),
    /// The payload ended without, or what it started last has ended.
    Gone,
}

impl Gate {
    /// What to wait for, if there is anything.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Channel(fd) | Self::Listener(fd) => Some(fd.as_fd()),
            Self::Gone => None,
        }
    }

    /// Does what there is to do when that is readable or at its end, as `events` say.
    pub fn attend(self, events: PollFlags) -> Self {
        match self {
            Self::Channel(channel) => {
                let mut buffer = [0; 16];
                let packet = packet::receive(channel.as_fd(), &mut buffer);
                let fds = packet.ok().flatten().map(|packet| packet.fds);
                let listener = fds.and_then(|fds| fds.into_iter().next());
                listener.map_or(Self::Gone, Self::Listener)
            }
            // The last one that could ask has ended. To wait any longer would be to be woken at once, over and over.
            Self::Listener(_) if !events.contains(PollFlags::POLLIN) => Self::Gone,
            Self::Listener(listener) => match answer(listener.as_fd()) {
                // Who asked has ended meanwhile, or was interrupted and asks again.
                Ok(()) | Err(Errno::ENOENT | Errno::EINTR | Errno::EINPROGRESS) => {
                    Self::Listener(listener)
                }
                // With it closed the kernel refuses those who ask (ENOSYS).
                Err(_) => Self::Gone,
            },
            Self::Gone => Self::Gone,
        }
    }
}

fn answer(listener: BorrowedFd<'_>) -> nix::Result<()> {
    let id = seccomp::take(listener)?;
    let refused = match sockets() {
        Some(count) if count < MOST => None,
        _ => Some(Errno::ENOBUFS),
    };
    seccomp::answer(listener, id, refused)
}

/// How many netlink sockets there are in this process's network namespace, but for the kernel's own; none where that can't
/// be told.
fn sockets() -> Option<u64> {
    let text = std::fs::read_to_string(PROTOCOLS).ok()?;
    count(&text)
}

fn count(text: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_ascii_whitespace);
    let line = lines.find(|line| line.clone().next() == Some("NETLINK"));
    line?.nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollTimeout, poll};

    /// Else init would be woken over and over between the end of the last asker and its own.
    #[test]
    fn nobody_waits_for_a_listener_that_nobody_can_ask() {
        let alone = || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            install().unwrap()
        };
        // The filter is that thread's alone, which is gone when it is joined.
        let listener = std::thread::spawn(alone).join().unwrap();
        let mut wait = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut wait, PollTimeout::from(10_000u16)).unwrap();
        let events = wait[0].revents().unwrap();
        assert_eq!(events, PollFlags::POLLHUP);
        let gate = Gate::Listener(listener);
        assert!(gate.fd().is_some() && Gate::Gone.fd().is_none());
        assert!(matches!(gate.attend(events), Gate::Gone));
    }

    #[test]
    fn sockets_are_counted_in_the_kernels_own_table() {
        let text = "protocol  size sockets  memory press maxhdr  slab module     cl co\n\
                    UDPv6     1344      1       2   NI       0   yes  kernel      y  y\n\
                    NETLINK   1120     17      -1   NI       0   no   kernel      n  n\n";
        assert_eq!(count(text), Some(17));
        assert_eq!(count("protocol  size sockets\n"), None);
        let before = sockets().unwrap();
        let socket = |_| {
            use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
            let flags = SockFlag::SOCK_CLOEXEC;
            let protocol = SockProtocol::NetlinkRoute;
            socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).unwrap()
        };
        let held: Vec<_> = (0..20).map(socket).collect();
        // Others of the machine may have opened or closed some.
        assert!(
            sockets().unwrap() >= before.saturating_sub(10) + 20,
            "from {before}"
        );
        drop(held);
    }
}
