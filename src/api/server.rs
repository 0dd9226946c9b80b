//! Connections: accepting a bounded number of them, serving each, and ending them in order.

use crate::sys::polled::register;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt::TcpUserTimeout};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

/// A request's head must arrive, and an idle connection must be used again, within this time.
const HEAD_WAIT: Duration = Duration::from_secs(30);

/// A client that takes nothing of its answer for so many milliseconds is given up: TCP_USER_TIMEOUT, tcp(7).
const SEND_WAIT_MS: u32 = 60_000;

/// Most bytes of a request's head, and of what is read ahead for one connection.
const HEAD_BYTES: usize = 64 * 1024;

/// What a client that sends no more may still wait for: an answer that is nearly there.
const GONE_WAIT: Duration = Duration::from_millis(20);

/// Pause when the process has run out of descriptors: accepting again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// All open connections.
#[derive(Debug)]
pub struct Server {
    router: Router,
    places: Arc<Semaphore>,
    stop: watch::Sender<bool>,
    connections: JoinSet<()>,
}

impl Server {
    /// No connection yet, and never more than `max_connections`.
    pub fn new(router: Router, max_connections: u32) -> Self {
        Self {
            router,
            places: Arc::new(Semaphore::new(max_connections as usize)),
            stop: watch::Sender::new(false),
            connections: JoinSet::new(),
        }
    }

    /// Accepts until `shutdown` resolves, and closes the listener.
    pub async fn accept(&mut self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            let next = async {
                // Others wait in the kernel's queue. The semaphore is never closed.
                let place = self.places.clone().acquire_owned().await;
                (place, listener.accept().await)
            };
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                Some(_) = self.connections.join_next() => {}
                (place, accepted) = next => match accepted {
                    Ok((stream, _)) => {
                        let serving = serve(stream, self.router.clone(), self.stop.subscribe());
                        self.connections.spawn(async move {
                            let _place = place;
                            serving.await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accepting a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    /// Ends idle connections now and each busy one after its answer; waits for that at most so long. False when some are
    /// left.
    pub async fn drain(&mut self, most: Duration) -> bool {
        self.stop.send_replace(true);
        let all = async { while self.connections.join_next().await.is_some() {} };
        tokio::time::timeout(most, all).await.is_ok()
    }

    /// Ends what is left.
    pub async fn abort(mut self) {
        self.connections.shutdown().await;
    }
}

async fn serve(stream: TcpStream, router: Router, mut stop: watch::Receiver<bool>) {
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%error, "setting socket options");
    }
    let asked = Arc::new(Notify::new());
    let gone = gone(stream.as_fd().try_clone_to_owned(), asked.clone());
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        asked.notify_one();
        router.call(request)
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        // Whether a client that sends no more is gone is ours to say.
        .half_close(true)
        .max_buf_size(HEAD_BYTES);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection, gone);
    let mut stopping = false;
    let served = loop {
        tokio::select! {
            served = &mut connection => break served,
            // Dropping the connection drops what works for it.
            () = &mut gone => return,
            _ = async { stop.wait_for(|stop| *stop).await.is_ok() }, if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = served {
        // Clients hang up as they like; that is no failure of ours.
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Resolves a moment after the client has sent its last byte, as far as can be seen, and something was asked for. hyper
/// looks for that by reading and stops once there is something to read: a client that sends a further request, or
/// anything, and hangs up would leave its command running. The kernel tells it by an event of its own (EPOLLRDHUP,
/// epoll_ctl(2)), which needs a descriptor of its own.
async fn gone(socket: std::io::Result<OwnedFd>, asked: Arc<Notify>) {
    let closed = async {
        let socket = register(socket?)?;
        loop {
            let mut guard = socket.readable().await?;
            if guard.ready().is_read_closed() {
                return Ok(());
            }
            guard.clear_ready();
        }
    };
    let closed: std::io::Result<()> = closed.await;
    if let Err(error) = closed {
        tracing::debug!(%error, "watching a connection");
        std::future::pending().await
    }
    asked.notified().await;
    tokio::time::sleep(GONE_WAIT).await;
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, TcpUserTimeout, &SEND_WAIT_MS).map_err(Into::into)
}
