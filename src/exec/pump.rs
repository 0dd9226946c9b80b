//! Moves bytes between a command's pipes and memory.
//!
//! An output pipe is read to its end whatever happens: past the cap bytes are counted and thrown away, so that a command
//! is never blocked or killed for writing too much. Reading goes through one scratch buffer per thread; a silent command
//! costs no buffer at all.

use std::cell::RefCell;
use std::io::ErrorKind;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;

/// Bytes read at once: as much as a pipe holds by default, pipe(7), four times over.
const CHUNK: usize = 256 * 1024;

/// Full reads in a row before other tasks get their turn.
const TURN: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// What a pipe gave.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Captured {
    /// The first bytes, up to the cap.
    pub kept: Vec<u8>,
    /// How many there were in all.
    pub total: u64,
}

impl Captured {
    /// Whether there was more than was kept.
    pub fn truncated(&self) -> bool {
        self.total > self.kept.len() as u64
    }

    fn take(&mut self, bytes: &[u8], cap: usize) {
        self.total += bytes.len() as u64;
        let room = cap - self.kept.len();
        let wanted = &bytes[..bytes.len().min(room)];
        let needed = self.kept.len() + wanted.len();
        if needed > self.kept.capacity() {
            // Doubling, but never beyond the cap: that is what admission set aside.
            self.kept
                .reserve_exact(needed.max(2 * self.kept.capacity()).min(cap) - self.kept.len());
        }
        self.kept.extend_from_slice(wanted);
    }
}

/// Reads `pipe` to its end, or until `stop` turns true or its sender is gone.
pub(super) async fn drain(
    pipe: pipe::Receiver,
    cap: usize,
    mut stop: watch::Receiver<bool>,
) -> Captured {
    let mut captured = Captured::default();
    loop {
        tokio::select! {
            biased;
            ready = pipe.readable() => {
                if ready.is_err() || read_available(&pipe, &mut captured, cap) {
                    return captured;
                }
                // Without this a command that floods its output would keep the thread for itself.
                tokio::task::yield_now().await;
            }
            () = raised(&mut stop) => return captured,
        }
    }
}

/// Waits until the flag is true or nobody can raise it any more.
pub(super) async fn raised(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|raised| *raised).await;
}

/// Reads what is there, for one turn; true at the end of the pipe.
fn read_available(pipe: &pipe::Receiver, captured: &mut Captured, cap: usize) -> bool {
    SCRATCH.with_borrow_mut(|scratch| {
        for _ in 0..TURN {
            match pipe.try_read(scratch) {
                Ok(0) => return true,
                Ok(count) => captured.take(&scratch[..count], cap),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
        false
    })
}

/// Writes `bytes` and closes the pipe. A command that does not read them, or ends before it has read all, is no error.
pub(super) async fn feed(mut pipe: pipe::Sender, bytes: Vec<u8>) {
    if let Err(error) = pipe.write_all(&bytes).await
        && error.kind() != ErrorKind::BrokenPipe
    {
        tracing::debug!(%error, "writing a command's stdin");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    async fn through(bytes: Vec<u8>, cap: usize) -> Captured {
        let (sender, receiver) = pipe::pipe().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let reader = tokio::spawn(drain(receiver, cap, stopped));
        feed(sender, bytes).await;
        reader.await.unwrap()
    }

    #[tokio::test]
    async fn everything_is_counted_and_the_first_bytes_are_kept() {
        let bytes: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
        let captured = through(bytes.clone(), 70_001).await;
        assert_eq!(captured.total, 1_000_000);
        assert_eq!(captured.kept, bytes[..70_001]);
        assert!(captured.truncated());
        assert!(captured.kept.capacity() <= 70_001);
    }

    #[tokio::test]
    async fn exactly_the_cap_is_not_truncated() {
        assert!(!through(vec![1; 5], 5).await.truncated());
        assert!(through(vec![1; 6], 5).await.truncated());
        assert!(!through(vec![], 0).await.truncated());
        assert!(through(vec![1], 0).await.truncated());
    }

    #[tokio::test]
    async fn a_pipe_that_somebody_holds_open_can_be_given_up() {
        let (mut sender, receiver) = pipe::pipe().unwrap();
        let (stop, stopped) = watch::channel(false);
        let reader = tokio::spawn(drain(receiver, 10, stopped));
        sender.write_all(b"abc").await.unwrap();
        tokio::task::yield_now().await;
        stop.send_replace(true);
        // What was written before may or may not have been read; what matters is that the wait ends.
        let captured = reader.await.unwrap();
        assert!(b"abc".starts_with(captured.kept.as_slice()));
        drop(sender);
    }

    #[tokio::test]
    async fn feeding_somebody_who_does_not_read_ends() {
        let (sender, receiver) = pipe::pipe().unwrap();
        let writer = tokio::spawn(feed(sender, vec![0; 10_000_000]));
        drop(receiver);
        writer.await.unwrap();
    }

    proptest! {
        #[test]
        fn pieces_add_up(pieces: Vec<Vec<u8>>, cap in 0usize..200) {
            let mut captured = Captured::default();
            for piece in &pieces {
                captured.take(piece, cap);
            }
            let all = pieces.concat();
            prop_assert_eq!(captured.total, all.len() as u64);
            prop_assert_eq!(&captured.kept, &all[..all.len().min(cap)]);
            prop_assert_eq!(captured.truncated(), all.len() > cap);
        }
    }
}
