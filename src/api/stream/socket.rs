//! The TCP connection below a WebSocket, shared by the WebSocket and by whoever watches over it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A handle to the connection; it is closed when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Socket(Arc<TcpStream>);

impl Socket {
    /// Takes the connection over.
    pub fn new(stream: TcpStream) -> Self {
        Self(Arc::new(stream))
    }

    /// Waits until there is something to read, be it the end.
    pub async fn readable(&self) {
        // An error is for the read that follows.
        let _ = self.0.readable().await;
    }

    /// Resolves when the client has ended its side, also while what it sent before was not read yet.
    pub async fn closed(&self) {
        // Of urgent data TCP clients send none that we would ask the kernel for, so this waits for the end alone (tokio:
        // a priority interest is satisfied by a closed read side as well).
        let _ = self.0.ready(Interest::PRIORITY).await;
    }

    /// Ends our side, and throws away what still comes until the client has ended its own, or for so long. Closing with
    /// unread data would reset the connection, and the client might lose what it was told last.
    pub async fn end(&self, most: Duration) {
        // Without it the client would wait for us to end first (RFC 6455, section 7.1.1). An error is for the reads below.
        let _ = rustix::net::shutdown(&*self.0, rustix::net::Shutdown::Write);
        let mut scratch = [0; 4096];
        let read_on = async {
            loop {
                self.readable().await;
                match self.0.try_read(&mut scratch) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        let _ = timeout(most, read_on).await;
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?;
            match self.0.try_read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection ends as a whole, with the last handle.
        Poll::Ready(Ok(()))
    }
}
