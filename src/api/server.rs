//! Connections: accepting a bounded number of them, serving each, and ending them in order. A connection that becomes
//! another protocol's (a WebSocket) stays one: it keeps its place, is waited for and ended like any other.

use super::gone::Asked;
use super::stream::Handover;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt::TcpUserTimeout};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// A request's head must arrive, and an idle connection must be used again, within this time.
const HEAD_WAIT: Duration = Duration::from_secs(30);

/// A client that takes nothing of its answer for so many milliseconds is given up: TCP_USER_TIMEOUT, tcp(7).
const SEND_WAIT_MS: u32 = 60_000;

/// Most bytes of a request's head, and of what is read ahead for one connection.
const HEAD_BYTES: usize = 64 * 1024;

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
    let asked = Asked::default();
    let gone = asked.clone().gone(stream.as_fd().try_clone_to_owned());
    let handover = Handover::new(stop.clone());
    let router = TowerToHyperService::new(router);
    let offered = handover.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(|body| asked.note(body));
        request.extensions_mut().insert(offered.clone());
        router.call(request)
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        // Whether a client that sends no more is gone is ours to say.
        .half_close(true)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(HEAD_BYTES);
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let served = {
        // What watches over HTTP ends with it.
        tokio::pin!(connection, gone);
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                // First: whether a client has gone shows by what was not read although there was time.
                served = &mut connection => break served,
                // Dropping the connection drops what works for it.
                () = &mut gone => return,
                _ = async { stop.wait_for(|stop| *stop).await.is_ok() }, if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    };
    match served {
        // Clients hang up as they like; that is no failure of ours.
        Err(error) => tracing::debug!(%error, "a connection ended early"),
        Ok(()) => {
            if let Some(session) = handover.take() {
                session.await;
            }
        }
    }
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, TcpUserTimeout, &SEND_WAIT_MS).map_err(Into::into)
}
