//! GET `/metrics`: what was counted ([`crate::metrics`]) and what is so now, for Prometheus.

use super::App;
use super::auth::Caller;
use super::error::ApiError;
use crate::metrics::METRICS;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;
use std::time::SystemTime;

/// The text format of OpenMetrics 1.0, which Prometheus asks for first.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All of it. It tells of all tenants together: every token that there is is an administrator's.
pub async fn show(State(app): State<Arc<App>>, _: Caller) -> Result<Response, ApiError> {
    let mut registry = Registry::with_prefix("cellblock");
    METRICS.register(&mut registry);
    state(&app, &mut registry);
    let mut page = String::new();
    text::encode(&mut page, &registry).map_err(|error| ApiError::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response())
}

/// What is so now.
fn state(app: &App, registry: &mut Registry) {
    let mut gauge = |name, help, value: u64| {
        registry.register(name, help, ConstGauge::new(value));
    };
    let (execs, files) = (app.executor.admission(), app.files.admission());
    let running = "Commands that run, up to `max_execs`";
    gauge("execs_running", running, execs.running() as u64);
    let waiting = "Commands that wait for their admission";
    gauge("execs_waiting", waiting, execs.waiting());
    let running = "File operations under way, up to `max_file_transfers`";
    gauge("file_transfers_running", running, files.running() as u64);
    let waiting = "File operations that wait for their admission";
    gauge("file_transfers_waiting", waiting, files.waiting());

    let runtimes = Family::<[(&str, &str); 1], Gauge>::default();
    for (status, count) in app.runtimes.by_status() {
        let labels = [("status", status.as_str())];
        runtimes.get_or_create(&labels).set(count as i64);
    }
    registry.register("runtimes", "Runtimes by status", runtimes);

    let kept = ConstGauge::new(app.executor.records().outputs().used());
    let help = "Output of ended and detached execs on disk, up to `max_kept_output_bytes`";
    registry.register_with_unit("kept_output", help, Unit::Bytes, kept);

    if let Some((size, free)) = app.runtimes.disk_bytes() {
        let help = "Size of the file system that holds the data directory";
        registry.register_with_unit("disk_size", help, Unit::Bytes, ConstGauge::new(size));
        let help = "What is free of it; see `data_dir`";
        registry.register_with_unit("disk_free", help, Unit::Bytes, ConstGauge::new(free));
    }

    let started = METRICS.started.duration_since(SystemTime::UNIX_EPOCH);
    let started = ConstGauge::new(started.unwrap_or_default().as_secs_f64());
    let help = "When the api process started, since 1970";
    registry.register_with_unit("process_start_time", help, Unit::Seconds, started);
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "Which Cellblock this is", build);
}
