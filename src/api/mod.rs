//! The api process's HTTP side, and the only place that knows axum. [`run`] is called once privileges are gone.
//!
//! ```text
//! server    connections           gone      whether their clients are    request_id  ids, error bodies, one log line
//! routes    paths                 auth, body  extractors: who asks, what with
//! runtimes, checkpoints, execs, files, images    handlers
//! fields, create, exec_body       JSON → requests of `runtime` and `exec`
//! stream    exec over WebSocket   events      the same events as SSE
//! exec_records, exec_output       what is remembered of execs
//! query        query strings, paging
//! idempotency  requests that are carried out once      answer, slow, chunks  bodies that take long or much
//! docs      static pages              openapi      the description of all of this      metrics   for Prometheus
//! error     the only place that knows status codes
//! ```

mod answer;
mod auth;
mod body;
mod checkpoints;
mod chunks;
mod create;
mod docs;
mod error;
mod events;
mod exec_body;
mod exec_output;
mod exec_records;
mod exec_view;
mod execs;
mod fields;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gone;
mod idempotency;
mod images;
mod items;
mod metrics;
mod openapi;
mod query;
mod request_id;
mod routes;
mod runtimes;
mod server;
mod slow;
mod stream;

use crate::config::{Config, ConfigError, memory_bytes};
use crate::exec::{Admission, Executor, Outputs, Records};
use crate::files::Files;
use crate::log::chain;
use crate::metrics::METRICS;
use crate::resources::MIB;
use crate::runtime::{CreateRequest, HostSizes, Profiles, RuntimeError, Runtimes};
use crate::store::{Store, StoreError};
use crate::tenant::{TenantError, Tenants};
use crate::warden::client::Warden;
use body::BodyBudget;
use idempotency::Flights;
pub use openapi::json as openapi;
use server::Server;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
#[cfg(any(test, fuzzing))]
pub use stream::fuzzing::websocket;

/// Name of the runtime that the first start makes.
pub const EXAMPLE: &str = "example";

/// How long killed commands and their answers may take at shutdown.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// What the process was given before it gave up its privileges.
#[derive(Debug)]
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// Bound to the configured address.
    pub listener: std::net::TcpListener,
    /// The database file, as this process sees it. Its directory is on the file system that holds the runtimes.
    pub store_path: PathBuf,
    /// The warden.
    pub warden: Warden,
    /// The sandbox profiles.
    pub profiles: Profiles,
    /// The admin token; none keeps the one that is stored.
    pub admin_token: Option<String>,
}

/// What is worth telling when the service is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The database.
    #[error("opening the state")]
    Store(#[from] StoreError),
    /// Tenants and tokens.
    #[error("setting up tenants")]
    Tenant(#[from] TenantError),
    /// Runtimes.
    #[error("taking over the runtimes")]
    Runtime(#[from] RuntimeError),
    /// The machine's size.
    #[error("looking at the machine")]
    Host(#[from] ConfigError),
    /// The listener.
    #[error("using the listening socket")]
    Listen(#[source] std::io::Error),
}

/// What all handlers share.
#[derive(Debug)]
pub struct App {
    config: Config,
    store: Store,
    tenants: Tenants,
    runtimes: Runtimes,
    executor: Executor,
    flights: Flights,
    files: Files,
    body_budget: BodyBudget,
    draining: AtomicBool,
}

/// Opens the state, makes it agree with the disk, calls `ready` and serves until `shutdown` resolves. Then admits
/// nothing more, lets running commands go on for the configured time, kills the rest and returns.
pub async fn run(
    parts: Parts,
    ready: impl FnOnce(&Ready),
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let Parts {
        config,
        listener,
        store_path,
        warden,
        profiles,
        admin_token,
    } = parts;
    LazyLock::force(&METRICS);
    listener.set_nonblocking(true).map_err(RunError::Listen)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(RunError::Listen)?;
    let address = listener.local_addr().map_err(RunError::Listen)?;

    let (app, first_start) = open(config, store_path, warden, profiles, admin_token).await?;
    if first_start {
        make_example(&app).await;
    }
    let app = Arc::new(app);
    let mut server = Server::new(routes::router(app.clone()), app.config.max_connections);
    ready(&Ready { address });
    server.accept(listener, shutdown).await;

    tracing::info!("shutting down");
    app.draining.store(true, Ordering::Relaxed);
    app.executor.close();
    app.files.close();
    let drain = Duration::from_secs(app.config.drain_secs);
    // Detached commands run without a connection.
    let (connections, commands) = tokio::join!(
        server.drain(drain),
        tokio::time::timeout(drain, app.executor.idle())
    );
    if !connections || commands.is_err() {
        tracing::info!("killing the commands that still run");
        app.executor.cancel_all();
        app.files.abort().await;
        server.drain(KILL_WAIT).await;
    }
    server.abort().await;
    if tokio::time::timeout(KILL_WAIT, app.executor.idle())
        .await
        .is_err()
    {
        tracing::error!("some commands could not be killed in time");
    }
    if let Err(error) = app.executor.records().flush_at_last().await {
        tracing::error!(error = chain(&error), "the newest exec records are lost");
    }
    app.store.close().await;
    Ok(())
}

async fn open(
    config: Config,
    store_path: PathBuf,
    warden: Warden,
    profiles: Profiles,
    admin_token: Option<String>,
) -> Result<(App, bool), RunError> {
    let store = Store::open(&store_path)?;
    let snapshot = store.snapshot().await?;
    let first_start = snapshot.tenants.is_empty();
    let tenants = Tenants::open(store.clone(), &snapshot.tenants, &snapshot.tokens).await?;
    match admin_token {
        Some(token) => tenants.ensure_admin(&token).await?,
        None if !tenants.has_tokens() => {
            tracing::warn!("there is no token, so every request will be refused")
        }
        None => {}
    }
    let host = HostSizes {
        memory_mib: memory_bytes()? / MIB,
        max_vcpus: config.max_vcpus,
        disk: store_path
            .parent()
            .map_or_else(|| "/".into(), PathBuf::from),
    };
    let output = host.disk.join("output");
    let outputs = Outputs::open(output, store.clone(), config.records.max_kept_output_bytes);
    let retention = Duration::from_secs(config.records.retention_secs);
    let records = Records::open(store.clone(), outputs, retention).await?;
    records.keep_within(config.records.clone());
    let runtimes = Runtimes::open(
        store.clone(),
        warden.clone(),
        profiles,
        host,
        snapshot.runtimes,
        snapshot.checkpoints,
    )
    .await?;
    let files = Files::new(warden.clone(), config.files.clone(), &config.exec);
    let executor = Executor::new(warden, Admission::new(config.exec.clone()), records);
    // Bodies live shortly; a quarter of what commands may hold, and never less than a few of the largest.
    let body_budget =
        BodyBudget::new((config.exec.max_buffered_bytes / 4).max(4 * config.max_body_bytes));
    let app = App {
        config,
        store,
        tenants,
        runtimes,
        executor,
        flights: Flights::default(),
        files,
        body_budget,
        draining: AtomicBool::new(false),
    };
    Ok((app, first_start))
}

/// Something to try the service with. That it can't be made is no reason not to serve.
async fn make_example(app: &App) {
    let request = CreateRequest {
        name: Some(EXAMPLE.into()),
        ..CreateRequest::default()
    };
    if let Err(error) = app
        .runtimes
        .create(app.tenants.default_tenant(), request)
        .await
    {
        tracing::warn!(error = chain(&error), "making the runtime `{EXAMPLE}`");
    }
}

#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;
