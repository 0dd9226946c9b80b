//! Packets with descriptors: SOCK_SEQPACKET messages whose SCM_RIGHTS become owned, close-on-exec descriptors.

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The most descriptors that the kernel passes in one message (SCM_MAX_FD, unix(7)).
const SCM_MAX_FD: usize = 253;

/// One received packet.
#[derive(Debug)]
pub struct Packet {
    /// Its length in the caller's buffer.
    pub length: usize,
    /// What came with it.
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
    let numbers: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if fds.is_empty() {
        &rights[..0]
    } else {
        &rights[..]
    };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        control,
        flags,
        None,
    )
    .map(drop)
}

/// Receives one packet; `None` is the peer's end. There is room for every descriptor that the kernel may pass, so none
/// can be left behind half received.
///
/// # Errors
/// EMSGSIZE for a packet longer than the buffer (its descriptors are closed); EAGAIN on a non-blocking socket.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Option<Packet>, Errno> {
    let mut space = cmsg_space!([RawFd; SCM_MAX_FD]);
    let mut io = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut io, Some(&mut space), flags)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel has just installed these descriptors for this call; nobody else owns them.
            fds.extend(
                numbers
                    .iter()
                    .map(|number| unsafe { OwnedFd::from_raw_fd(*number) }),
            );
        }
    }
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    Ok((message.bytes > 0).then_some(Packet {
        length: message.bytes,
        fds,
    }))
}
