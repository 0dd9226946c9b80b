//! From a file in a runtime to a client.

use super::session::{Clock, Session};
use super::{FileError, FilePath};
use crate::cell::file::{Operation, Report};
use crate::metrics::Transfer;
use crate::runtime::Runtime;
use crate::warden::client::Warden;
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Most bytes in one piece.
const PIECE: u64 = 64 * 1024;

/// The file can't be sent to its end: it became shorter meanwhile, or its runtime was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file could not be read to its end")]
pub struct Broken;

/// A file on its way to a client. Dropping it ends the transfer.
#[derive(Debug)]
pub struct Download {
    /// How many bytes there will be, unless it breaks.
    pub size: u64,
    /// Its pieces in order.
    pub pieces: mpsc::Receiver<Result<Bytes, Broken>>,
}

/// Opens the file, tells of it, and sends it as fast as the client takes it.
pub(super) async fn serve(
    warden: Warden,
    runtime: Arc<Runtime>,
    path: FilePath,
    most: u64,
    idle: Duration,
    mut tell: oneshot::Sender<Result<Download, FileError>>,
) {
    let mut transfer = Transfer::read();
    let operation = Operation::Read(path.as_c_str().to_owned());
    let opened = Session::open(&warden, &runtime, &operation, idle, tell.closed()).await;
    let (mut session, bytes) = match opened {
        Ok((session, _, bytes)) => (session, bytes),
        Err(unopened) => return unopened.tell(tell).await,
    };
    let (send, pieces) = mpsc::channel(1);
    let answer = match session.report().await {
        Ok(Report::Ready(size)) if size > most => Err(FileError::TooLargeToRead { size, most }),
        Ok(Report::Ready(size)) => Ok(Download { size, pieces }),
        Ok(Report::Refused(refusal)) => Err(FileError::Refused {
            writing: false,
            refusal,
        }),
        Ok(Report::Done) => Err(FileError::Failed("it was not asked to write".into())),
        Err(error) => Err(error),
    };
    let opened = answer.is_ok();
    let size = answer.as_ref().map_or(0, |download| download.size);
    if tell.send(answer).is_ok() && pump(bytes, size, &send, session.clock(), &transfer).await {
        if opened {
            transfer.completed();
        }
        drop(send);
        return session.close().await;
    }
    session.kill().await;
}

/// Moves `left` bytes; false if the file or the client came to an end before.
async fn pump(
    mut file: pipe::Receiver,
    mut left: u64,
    client: &mpsc::Sender<Result<Bytes, Broken>>,
    clock: &Clock,
    transfer: &Transfer,
) -> bool {
    while left > 0 {
        let wanted = left.min(PIECE) as usize;
        let mut piece = BytesMut::with_capacity(wanted).limit(wanted);
        let read = file.read_buf(&mut piece);
        let read = tokio::select! {
            biased;
            () = client.closed() => return false,
            read = clock.bound(read) => read,
        };
        if !matches!(read, Ok(Ok(1..))) {
            let _ = timeout(clock.idle(), client.send(Err(Broken))).await;
            return false;
        }
        let piece = piece.into_inner().freeze();
        let length = piece.len();
        left -= length as u64;
        if !matches!(
            timeout(clock.idle(), client.send(Ok(piece))).await,
            Ok(Ok(()))
        ) {
            return false;
        }
        transfer.moved(length);
    }
    true
}
