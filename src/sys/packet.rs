//! Packets with descriptors: SOCK_SEQPACKET messages whose SCM_RIGHTS become owned, close-on-exec descriptors.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg as receive_message,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The most descriptors that the kernel passes in one message (SCM_MAX_FD, unix(7)).
const SCM_MAX_FD: usize = 253;

/// One received packet.
#[derive(Debug)]
pub struct Packet {
    /// Its length in the caller's buffer.
    pub length: usize,
    /// What came with it: all of it or, where this process had no room for all (MSG_CTRUNC, unix(7)), nothing.
    pub fds: Vec<OwnedFd>,
}

/// A connected pair of packet sockets, both close-on-exec.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
}

/// Sends `bytes` and `fds` in one packet.
///
/// # Errors
/// EAGAIN on a full non-blocking socket; EPIPE (never SIGPIPE) when the peer is gone.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    send_with(MsgFlags::empty(), socket, bytes, fds)
}

/// As [`send`], but never waits, be the socket as it may: for a peer that is not trusted to read.
///
/// # Errors
/// EAGAIN where there is no room for it.
pub fn offer(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    send_with(MsgFlags::MSG_DONTWAIT, socket, bytes, fds)
}

fn send_with(
    flags: MsgFlags,
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let numbers: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if fds.is_empty() {
        &rights[..0]
    } else {
        &rights[..]
    };
    let flags = flags | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        control,
        flags,
        None,
    )
    .map(drop)
}

/// Receives one packet; `None` is the peer's end. There is room for every descriptor that the kernel may pass; when the
/// process itself may not open so many, those that came are closed and the packet comes without any.
///
/// # Errors
/// EMSGSIZE for a packet longer than the buffer (its descriptors are closed); EAGAIN on a non-blocking socket.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Option<Packet>, Errno> {
    receive_with(socket, buffer, close_without_waiting)
}

/// As [`receive`], from the warden: what it passes needs no precautions.
///
/// # Errors
/// As [`receive`].
pub fn receive_trusted(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Option<Packet>, Errno> {
    receive_with(socket, buffer, |_| {})
}

fn receive_with(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    precaution: impl Fn(&OwnedFd),
) -> Result<Option<Packet>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SCM_MAX_FD))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut io = [IoSliceMut::new(buffer)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let message = receive_message(socket, &mut io, &mut control, flags)
        .map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
    let mut fds = Vec::new();
    for control in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = control {
            fds.extend(rights);
        }
    }
    fds.iter().for_each(precaution);
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        fds.clear();
    }
    Ok((message.bytes > 0).then_some(Packet {
        length: message.bytes,
        fds,
    }))
}

/// The last one to close a socket with SO_LINGER waits until its peer has taken everything (socket(7)), and only an ending
/// process does not: whoever passes such a one and closes his own would choose how long the receiver stands still. This reaches only what
/// is passed itself, not what is in its queue: the api process, whose sockets others receive, can't set the option.
fn close_without_waiting(fd: &OwnedFd) {
    // What is no socket has no such option.
    let _ = rustix::net::sockopt::set_socket_linger(fd, None);
}

/// Whether a failed [`send`] may succeed a moment later: no buffer space, no memory, or too many descriptors under way
/// (ETOOMANYREFS, unix(7)).
pub fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::ENOBUFS | Errno::ENOMEM | Errno::ETOOMANYREFS)
}
