//! Whether the client of a connection is gone. hyper looks for that by reading, and stops once there is something to read:
//! a client that sends a further request, or anything, and hangs up would leave its command running. The kernel tells it by
//! an event of its own (EPOLLRDHUP, epoll_ctl(2)), which needs a descriptor of its own.
//!
//! The kernel hears of the end only when it has taken all that came before. So that it has room for that, nobody may send
//! more than so much behind a request that is being carried out; who does is taken for gone.

use crate::sys::polled::register;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use rustix::io::ioctl_fionread;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// What a client that sends no more may still wait for: an answer that is nearly there.
const GONE_WAIT: Duration = Duration::from_millis(20);

/// Most bytes that may lie unread behind a request; hyper may have read 64 KiB beside. The kernel takes twice as much before
/// it tells the client to wait (half of tcp_rmem's default, tcp(7)).
const MOST_AHEAD: u64 = 32 * 1024;

/// How far a connection's client has come in asking.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Progress {
    /// How many requests have begun.
    requests: u64,
    /// The newest one has come to its end.
    whole: bool,
}

/// What was asked for over a connection.
#[derive(Debug, Clone, Default)]
pub struct Asked(Arc<watch::Sender<Progress>>);

impl Asked {
    /// Notes a request; its body is to be read as the one that is returned.
    pub fn note(&self, body: Incoming) -> Noted {
        let whole = body.is_end_stream();
        self.0.send_modify(|now| {
            now.requests += 1;
            now.whole = whole;
        });
        let number = self.0.borrow().requests;
        let asked = self.clone();
        Noted {
            body,
            number,
            asked,
        }
    }

    /// Resolves a moment after the client has gone, as far as can be seen, and something was asked for.
    pub async fn gone(self, socket: io::Result<OwnedFd>) {
        if let Err(error) = left(socket, self.0.subscribe()).await {
            tracing::debug!(%error, "watching a connection");
            std::future::pending().await
        }
    }
}

async fn left(socket: io::Result<OwnedFd>, mut asked: watch::Receiver<Progress>) -> io::Result<()> {
    let socket = register(socket?)?;
    loop {
        let closed = tokio::select! {
            ready = socket.readable() => {
                let mut ready = ready?;
                let closed = ready.ready().is_read_closed();
                ready.clear_ready();
                closed
            }
            Ok(()) = asked.changed() => false,
        };
        if closed {
            let _ = asked.wait_for(|now| now.requests > 0).await;
            sleep(GONE_WAIT).await;
            return Ok(());
        }
        let seen = *asked.borrow_and_update();
        if !seen.whole || ioctl_fionread(&socket)? <= MOST_AHEAD {
            continue;
        }
        // Where requests are short, the next one will be read in a moment.
        sleep(GONE_WAIT).await;
        if *asked.borrow() == seen && ioctl_fionread(&socket)? > MOST_AHEAD {
            return Ok(());
        }
    }
}

/// A request's body that notes when it has come to its end.
#[derive(Debug)]
pub struct Noted {
    body: Incoming,
    number: u64,
    asked: Asked,
}

impl Body for Noted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.asked.0.send_if_modified(|now| {
                let ended = now.requests == self.number && !now.whole;
                now.whole |= ended;
                ended
            });
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
