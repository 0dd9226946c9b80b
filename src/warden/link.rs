//! The task on the api side that owns the socket to the warden: sends requests, hands replies to whoever asked, and on
//! the warden's end tells everyone. See [`crate::warden::client`] for the calls.

use crate::metrics::METRICS;
use crate::sys::packet;
use crate::sys::polled::{self, Polled, register};
use crate::warden::client::{Ended, WardenError};
use crate::warden::protocol::{MAX_MESSAGE, Reply, Request};
use nix::errno::Errno;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

/// The reply and what came with it.
pub type Answer = Result<(Reply, Vec<OwnedFd>), WardenError>;

/// What goes beside a request.
#[derive(Debug, Default)]
pub struct Ask {
    /// A descriptor to pass.
    pub fd: Option<OwnedFd>,
    /// For an exec: whom to tell of its end. Dropped when nobody will know of it.
    pub ended: Option<oneshot::Sender<Ended>>,
}

/// From a handle to the task.
#[derive(Debug)]
pub enum Call {
    /// A request that is answered.
    Ask {
        /// Its number.
        seq: u64,
        /// What to send.
        message: Request,
        /// What goes beside it.
        ask: Ask,
        /// Where the answer goes.
        answer: oneshot::Sender<Answer>,
    },
    /// A request that is not.
    Tell(Request),
}

/// Numbers are unique in the process, across wardens: a late kill never hits another exec.
pub fn next_seq() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What waits for the warden.
#[derive(Default)]
struct Pending {
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    ends: HashMap<u64, oneshot::Sender<Ended>>,
}

impl Pending {
    /// Everyone learns that the warden is gone.
    fn lose(&mut self) {
        self.answers.drain().for_each(|(_, answer)| {
            let _ = answer.send(Err(WardenError::Lost));
        });
        self.ends.clear();
    }

    /// Gives a reply to whoever waits for it. Returns the number of an exec that nobody waits for any more.
    fn deliver(&mut self, reply: Reply, fds: Vec<OwnedFd>) -> Option<u64> {
        let seq = match &reply {
            Reply::Done { seq }
            | Reply::Created { seq, .. }
            | Reply::Failed { seq, .. }
            | Reply::Ids { seq, .. }
            | Reply::Checkpointed { seq, .. }
            | Reply::Images { seq, .. }
            | Reply::Started { seq } => *seq,
            Reply::Ended {
                seq,
                end,
                oom_killed,
                cpu_exceeded,
                usage,
                beginning,
            } => {
                let (end, usage, beginning) = (end.clone(), *usage, *beginning);
                let (oom_killed, cpu_exceeded) = (*oom_killed, *cpu_exceeded);
                if let Some(tell) = self.ends.remove(seq) {
                    let _ = tell.send(Ended {
                        beginning,
                        end,
                        oom_killed,
                        cpu_exceeded,
                        usage,
                    });
                }
                return None;
            }
        };
        let started = matches!(reply, Reply::Started { .. });
        if !started {
            self.ends.remove(&seq);
        }
        let unwanted = self
            .answers
            .remove(&seq)
            .is_none_or(|a| a.send(Ok((reply, fds))).is_err());
        (started && unwanted).then_some(seq)
    }
}

/// Runs until every handle is gone, or no further warden can come.
pub async fn run(
    mut socket: AsyncFd<Polled>,
    mut replacements: mpsc::UnboundedReceiver<OwnedFd>,
    mut calls: mpsc::UnboundedReceiver<Call>,
    there: Arc<AtomicBool>,
) {
    let mut pending = Pending::default();
    loop {
        // `talk` drops the socket before anything else is waited for: a warden that still lives hears that, ends and is
        // replaced.
        if talk(socket, &mut calls, &mut pending).await {
            return;
        }
        there.store(false, Ordering::Relaxed);
        pending.lose();
        tracing::warn!("the warden is gone; waiting for the next one");
        socket = loop {
            let Some(next) = replacements.recv().await else {
                return;
            };
            match register(next) {
                Ok(socket) => {
                    METRICS.warden_restarted();
                    there.store(true, Ordering::Relaxed);
                    break socket;
                }
                Err(error) => tracing::error!(%error, "the new warden's socket can't be used"),
            }
        };
    }
}

/// Serves one warden; true when there is nobody left to serve it for.
async fn talk(
    socket: AsyncFd<Polled>,
    calls: &mut mpsc::UnboundedReceiver<Call>,
    pending: &mut Pending,
) -> bool {
    let mut buffer = [0; MAX_MESSAGE];
    loop {
        tokio::select! {
            biased;
            ready = socket.readable() => {
                let Ok(mut ready) = ready else { return false };
                match ready.try_io(|fd| Ok(packet::receive(fd.as_fd(), &mut buffer)?)) {
                    Err(_would_block) => {}
                    Ok(Ok(Some(packet))) => {
                        let reply = serde_json::from_slice(&buffer[..packet.length]);
                        let unwanted = match reply {
                            Ok(reply) => pending.deliver(reply, packet.fds),
                            Err(error) => {
                                tracing::error!(%error, "the warden sent what can't be read");
                                None
                            }
                        };
                        if let Some(seq) = unwanted
                            && send(&socket, &Request::Kill { seq }, None).await.is_err()
                        {
                            return false;
                        }
                    }
                    Ok(Ok(None)) => return false,
                    Ok(Err(error)) => {
                        tracing::error!(%error, "receiving from the warden");
                        return false;
                    }
                }
            }
            call = calls.recv() => {
                let sent = match call {
                    None => return true,
                    Some(Call::Tell(message)) => send(&socket, &message, None).await,
                    // Whoever asked has gone.
                    Some(Call::Ask { answer, .. }) if answer.is_closed() => Ok(()),
                    Some(Call::Ask { seq, message, ask, answer }) => {
                        pending.answers.insert(seq, answer);
                        ask.ended.map(|ended| pending.ends.insert(seq, ended));
                        send(&socket, &message, ask.fd.as_ref()).await
                    }
                };
                if let Err(errno) = sent {
                    tracing::debug!(%errno, "sending to the warden");
                    return false;
                }
            }
        }
    }
}

async fn send(
    socket: &AsyncFd<Polled>,
    message: &Request,
    fd: Option<&OwnedFd>,
) -> Result<(), Errno> {
    let bytes = serde_json::to_vec(message).expect("requests are plain data");
    let fds: Vec<_> = fd.into_iter().map(AsFd::as_fd).collect();
    polled::send(socket, &bytes, &fds).await
}
