//! A running command as its client follows it: output, then how it ended.

use super::super::error::ApiError;
use super::frames::Frame;
use crate::exec::{ExecError, Execution, LiveOutput, Stream};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Dropping it kills the command, unless that has ended or was detached.
#[derive(Debug)]
pub struct Follow {
    output: LiveOutput,
    execution: Execution,
    /// How many bytes of stdout and of stderr the client still wants; none is all.
    room: [Option<u64>; 2],
    truncated: [bool; 2],
    /// Whether its id is still to be told.
    announce: bool,
    /// Output that came while it was seen whether the command begins.
    first: Option<(Stream, Bytes)>,
}

/// What is to be said next.
#[derive(Debug)]
pub enum Next {
    /// There is more to come.
    Output(Frame),
    /// How it ended; the last thing.
    Exit(Frame),
    /// Why there is no end to tell; the last thing.
    Failed(ApiError),
}

impl Follow {
    /// Follows a command; `cap` is how many bytes of each output its client wants. `announce` tells the exec's id first,
    /// so that a client of a detached command can ask for it later.
    pub fn new(output: LiveOutput, execution: Execution, cap: Option<u64>, announce: bool) -> Self {
        Self {
            output,
            execution,
            room: [cap; 2],
            truncated: [false; 2],
            announce,
            first: None,
        }
    }

    /// Waits until the command has started, or `most` has passed, and then until it says something or ends, at the most for
    /// `grace`: what is wrong with its working directory shows a moment after the start.
    ///
    /// # Errors
    /// Why it was not run; nothing has been told by then.
    pub async fn begin(&mut self, most: Instant, grace: Duration) -> Result<(), ExecError> {
        if timeout_at(most, self.execution.begun()).await.is_err() {
            return Ok(());
        }
        self.execution.started().await?;
        let ended = async {
            self.first = self.output.next().await;
            if self.first.is_none() {
                self.execution.ended().await;
            }
        };
        if timeout(grace, ended).await.is_ok() && self.first.is_none() {
            self.execution.refused().await?;
        }
        Ok(())
    }

    /// What comes next. Nothing is lost when the wait is cancelled; nothing comes after the last thing.
    pub async fn next(&mut self) -> Next {
        if std::mem::take(&mut self.announce) {
            return Next::Output(Frame::started(self.execution.exec_id));
        }
        while let Some((stream, piece)) = self.piece().await {
            let piece = self.cut(stream, piece);
            if !piece.is_empty() {
                return Next::Output(Frame::output(stream, &piece));
            }
        }
        match self.execution.finished().await {
            Ok(finished) => Next::Exit(Frame::exit(&finished, self.truncated)),
            Err(error) => Next::Failed(error.into()),
        }
    }

    async fn piece(&mut self) -> Option<(Stream, Bytes)> {
        match self.first.take() {
            Some(first) => Some(first),
            None => self.output.next().await,
        }
    }

    fn cut(&mut self, stream: Stream, mut piece: Bytes) -> Bytes {
        let index = match stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        };
        let Some(room) = &mut self.room[index] else {
            return piece;
        };
        let wanted = room.min(&mut (piece.len() as u64)).to_owned();
        *room -= wanted;
        self.truncated[index] |= wanted < piece.len() as u64;
        piece.truncate(wanted as usize);
        piece
    }
}
