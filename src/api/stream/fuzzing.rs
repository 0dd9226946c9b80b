//! See [`crate::fuzzing`].

use super::super::fuzzing::{GROUND, IDENTITY, check_error, check_exec, check_invalid};
use super::frames::{self, ClientFrame, MAX_STDIN};
use super::line::{End, MAX_MESSAGE, config, read};
use futures_util::FutureExt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

/// What a client sends behind the handshake; and the same bytes as the text of one message.
pub fn websocket(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        start(text);
        later(text);
    }
    let wire = Wire(data.to_vec(), 0);
    let mut source = WebSocketStream::from_raw_socket(wire, Role::Server, Some(config()))
        .now_or_never()
        .expect("it waits for nothing");
    let mut first = true;
    loop {
        // The wire always has an answer: bytes or their end.
        match read(&mut source).now_or_never().expect("an answer") {
            Ok(text) => {
                assert!(text.len() <= MAX_MESSAGE);
                match std::mem::take(&mut first) {
                    true => start(&text),
                    false => later(&text),
                }
            }
            Err(End::Error(error, _) | End::Broken(error, _)) => return check_error(&error),
            Err(End::Gone | End::Binary) => return,
            Err(End::Exited) => panic!("no command ran"),
        }
    }
}

fn start(text: &str) {
    let request = match frames::parse_start(text) {
        Ok(request) => request,
        Err(error) => return check_error(&error),
    };
    match request.validate(&GROUND.settings, IDENTITY, &GROUND.bounds) {
        Ok(valid) => {
            check_exec(&valid.exec);
            assert!(valid.stdin || valid.exec.terminal.is_none());
            assert!(!valid.exec.command.shell_fallback);
        }
        Err(invalid) => check_invalid(&invalid),
    }
}

fn later(text: &str) {
    match frames::parse(text) {
        Ok(ClientFrame::Stdin(bytes)) => assert!(bytes.len() <= MAX_STDIN),
        Ok(_) => {}
        Err(error) => check_error(&error),
    }
}

/// A connection whose client has sent all that it will, and takes whatever it is sent.
struct Wire(Vec<u8>, usize);

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.0[self.1..];
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..count]);
        self.1 += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
