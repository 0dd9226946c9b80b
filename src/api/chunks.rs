//! Bodies that are made while they are sent: a task writes pieces into a short channel, the connection takes them out.
//! The client's pace is the task's; when the client is gone, the channel is closed.

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Pieces under way.
const DEPTH: usize = 2;

/// The writing side. An error breaks the connection off, so that nobody takes half a body for a whole one.
pub type Chunks = mpsc::Sender<io::Result<Bytes>>;

/// A body and who writes it; `length` is sent ahead where it is known.
pub fn channel(length: Option<u64>) -> (Chunks, Body) {
    let (chunks, receiver) = mpsc::channel(DEPTH);
    let body = ChunkBody {
        receiver,
        left: length,
    };
    (chunks, Body::new(body))
}

struct ChunkBody {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    left: Option<u64>,
}

impl HttpBody for ChunkBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let chunk = std::task::ready!(self.receiver.poll_recv(context));
        if let (Some(left), Some(Ok(bytes))) = (&mut self.left, &chunk) {
            *left = left.saturating_sub(bytes.len() as u64);
        }
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
