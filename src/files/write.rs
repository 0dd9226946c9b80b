//! From a client to a file in a runtime.

use super::session::{Clock, Session};
use super::{FileError, FilePath};
use crate::cell::file::{Operation, Refusal, Report};
use crate::metrics::Transfer;
use crate::runtime::Runtime;
use crate::warden::client::Warden;
use bytes::Bytes;
use nix::errno::Errno;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

/// Where the bytes of a file come from.
pub trait Source: Send + 'static {
    /// The next piece; none when all have come. A source that breaks off must say so: what ends without an error is
    /// taken for whole.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, SourceError>> + Send;
}

/// Why a source does not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The client went away, or broke the rules of its protocol.
    #[error("the request body broke off")]
    BrokenOff,
    /// Nothing came for too long.
    #[error("the request body did not arrive in time")]
    Silent,
    /// There is more than so many bytes.
    #[error("the file is larger than {0} bytes")]
    TooLarge(u64),
}

/// Has the file written, and tells how that went.
pub(super) async fn serve(
    warden: Warden,
    runtime: Arc<Runtime>,
    path: FilePath,
    most: u64,
    mut source: impl Source,
    idle: Duration,
    mut tell: oneshot::Sender<Result<(), FileError>>,
) {
    let mut transfer = Transfer::write();
    let operation = Operation::Write(path.as_c_str().to_owned());
    let opened = Session::open(&warden, &runtime, &operation, idle, tell.closed()).await;
    let (mut session, file) = match opened {
        Ok((session, Some(file), _)) => (session, file),
        Ok(_) => unreachable!("a write has a stdin"),
        Err(unopened) => return unopened.tell(tell).await,
    };
    let written = async {
        let whole = async {
            expect(session.report().await, Report::Ready(0))?;
            let clock = session.clock().clone();
            tokio::select! {
                biased;
                // While it waits for bytes it has nothing to say but why it does so no more.
                early = session.unasked() => {
                    expect(early, Report::Done)?;
                    Err(FileError::Failed("it was done before the end".into()))
                }
                sent = send(&clock, file, most, &mut source, &transfer) => sent,
            }
        };
        tokio::select! {
            biased;
            // Nobody waits any more, and not every byte has come.
            () = tell.closed() => return Err(SourceError::BrokenOff.into()),
            whole = whole => whole?,
        }
        // From here on it is finished, whoever still waits.
        expect(session.report().await, Report::Done)
    };
    let written = written.await;
    if written.is_ok() {
        transfer.completed();
    }
    let _ = tell.send(written.map_err(|error| match error {
        FileError::Refused {
            refusal: Refusal::Kernel(Errno::ENOSPC | Errno::EDQUOT),
            ..
        } => FileError::DiskFull(runtime.settings.disk_mib),
        other => other,
    }));
    session.close().await;
}

/// Whether it is this report.
fn expect(report: Result<Report, FileError>, wanted: Report) -> Result<(), FileError> {
    match report? {
        report if report == wanted => Ok(()),
        Report::Refused(refusal) => Err(FileError::Refused {
            writing: true,
            refusal,
        }),
        other => Err(FileError::Failed(format!("{other:?} out of turn"))),
    }
}

/// Sends everything and the empty frame behind it, or as much as the cell takes: one that takes no more says why. On an
/// error the pipe is closed without that frame, and nothing comes of the file.
async fn send(
    clock: &Clock,
    mut file: pipe::Sender,
    most: u64,
    source: &mut impl Source,
    transfer: &Transfer,
) -> Result<(), FileError> {
    let mut sent = 0;
    loop {
        let piece = source.next().await?;
        let piece = match piece {
            Some(piece) if piece.is_empty() => continue,
            Some(piece) => piece,
            None => Bytes::new(),
        };
        sent += piece.len() as u64;
        if sent > most {
            return Err(SourceError::TooLarge(most).into());
        }
        let sent = clock.bound(frame(&mut file, &piece)).await?;
        if sent.is_err() || piece.is_empty() {
            return Ok(());
        }
        transfer.moved(piece.len());
    }
}

async fn frame(file: &mut pipe::Sender, piece: &Bytes) -> io::Result<()> {
    let length = u32::try_from(piece.len()).map_err(io::Error::other)?;
    file.write_all(&length.to_le_bytes()).await?;
    file.write_all(piece).await
}
