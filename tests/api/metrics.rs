//! What an operator's Prometheus sees.

use crate::needs;
use crate::support::mounts::TestDir;
use crate::support::server::{Options, Server};
use crate::support::{
    Runtime, alone, api, assert_error, bound, eventually, files, procs, together,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// One look at a server's metrics.
struct Scrape {
    text: String,
    series: BTreeMap<String, f64>,
}

impl Scrape {
    #[track_caller]
    fn of(server: &Server) -> Scrape {
        let reply = server.api.get("/metrics");
        assert_eq!(reply.status, 200, "{}", reply.text());
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert_eq!(reply.header("content-type"), kind);
        let text = reply.text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            (name.to_owned(), value.parse().expect("a number"))
        });
        Scrape {
            series: series.collect(),
            text,
        }
    }

    /// The value of a series without its prefix.
    #[track_caller]
    fn get(&self, series: &str) -> f64 {
        let found = self.series.get(&format!("cellblock_{series}"));
        *found.unwrap_or_else(|| panic!("no {series} in\n{}", self.text))
    }

    fn requests(&self, route: &str, method: &str, status: u16) -> f64 {
        self.get(&format!(
            "http_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}}"
        ))
    }
}

/// Waits until a series has a value: some are counted a moment after the answer.
#[track_caller]
fn await_value(server: &Server, series: &str, value: f64) {
    let seen = || Scrape::of(server).get(series) == value;
    let text = || Scrape::of(server).text;
    assert!(
        eventually(bound(5_000), seen),
        "{series} is not {value}:\n{}",
        text()
    );
}

#[test]
fn requests_execs_and_files_are_counted_and_nobody_is_named() {
    needs!(Root);
    let _turn = together();
    let server = Server::start(Options::default());
    let before = Scrape::of(&server);
    assert_eq!(before.get("execs_total{outcome=\"exited\"}"), 0.0);
    assert_eq!(before.get("kept_output_bytes"), 0.0);
    let (size, free) = (before.get("disk_size_bytes"), before.get("disk_free_bytes"));
    assert!(0.0 < free && free <= size, "{free} of {size} bytes");

    let runtime = Runtime::create(&server.api, &json!({"name": "xyzzy-runtime"}));
    runtime.sh("printf 12345; printf 123 >&2").assert_code(0);
    runtime.sh("exit 3").assert_code(3);
    runtime.sh("kill -TERM $$").assert_code(143);
    let late = runtime.try_exec(&json!({"command": "sleep", "args": ["60"], "timeout_secs": 1}));
    assert_eq!(late.data(200)["outcome"], "timed_out");
    let nowhere = runtime.try_exec(&json!({"command": "true", "cwd": "/secret/place"}));
    assert_eq!(nowhere.status, 422);
    files::must_write(&server.api, &runtime, "hidden", &[7; 100_000]);
    assert_eq!(
        files::read(&server.api, &runtime, "hidden").body.len(),
        100_000
    );
    assert_eq!(files::read(&server.api, &runtime, "missing").status, 404);
    for path in ["/no/such/route", "/nor/such"] {
        assert_eq!(server.api.get(path).status, 404);
    }
    server.api.send("TRACE", "/v1/runtimes", &[], None);
    server.api.send("TRACE", "/v1/runtimes", &[], None);

    let exec = "/v1/runtimes/{runtime}/exec";
    let file = "/v1/runtimes/{runtime}/files";
    let now = Scrape::of(&server);
    assert_eq!(now.requests(exec, "POST", 200), 4.0);
    assert_eq!(now.requests(exec, "POST", 422), 1.0);
    assert_eq!(now.requests(file, "PUT", 204), 1.0);
    assert_eq!(now.requests(file, "GET", 404), 1.0);
    assert_eq!(now.requests("none", "GET", 404), 2.0);
    assert_eq!(now.requests("/v1/runtimes", "other", 405), 2.0);
    assert!(now.requests("/metrics", "GET", 200) >= 1.0);
    assert_eq!(now.get("execs_total{outcome=\"exited\"}"), 2.0);
    assert_eq!(now.get("execs_total{outcome=\"signaled\"}"), 1.0);
    assert_eq!(now.get("execs_total{outcome=\"timed_out\"}"), 1.0);
    assert_eq!(now.get("execs_total{outcome=\"failed\"}"), 0.0);
    assert_eq!(now.get("exec_duration_seconds_count"), 4.0);
    let (most, limit) = (
        now.get("exec_duration_seconds_sum"),
        bound(3_000).as_secs_f64(),
    );
    assert!((1.0..1.0 + limit).contains(&most), "{most}");
    assert_eq!(now.get("exec_duration_seconds_bucket{le=\"+Inf\"}"), 4.0);
    assert_eq!(now.get("exec_duration_seconds_bucket{le=\"0.5\"}"), 3.0);
    assert_eq!(now.get("exec_overhead_seconds_count"), 4.0);
    let overhead = now.get("exec_overhead_seconds_sum");
    assert!(overhead > 0.0 && overhead < limit, "{overhead}");
    // All of the time is in one phase or another; a refused one came as far as its caller being known.
    let phase =
        |what: &str, name: &str| now.get(&format!("exec_phase_seconds_{what}{{phase=\"{name}\"}}"));
    // So does one that names a directory that is not there.
    assert_eq!(phase("count", "auth"), 5.0);
    assert_eq!(phase("count", "admit"), 5.0);
    let ran = ["open", "bind", "exec", "run", "drain", "close"];
    for name in ran {
        assert_eq!(phase("count", name), 4.0, "{name}");
    }
    let sum: f64 = ran.iter().map(|name| phase("sum", name)).sum();
    assert!(sum > most && sum < most + limit, "{sum} for {most}");
    assert!(phase("sum", "exec") > 0.0);
    assert_eq!(now.get("runtimes{status=\"running\"}"), 2.0);
    assert_eq!(now.get("execs_running"), 0.0);

    await_value(&server, "kept_output_bytes", 8.0);
    for direction in ["read", "write"] {
        let labels = format!("direction=\"{direction}\"");
        let ended = |result| format!("file_transfers_total{{{labels},result=\"{result}\"}}");
        await_value(&server, &ended("completed"), 1.0);
        let failed = if direction == "read" { 1.0 } else { 0.0 };
        await_value(&server, &ended("failed"), failed);
        let bytes = format!("file_transferred_bytes_total{{{labels}}}");
        assert_eq!(Scrape::of(&server).get(&bytes), 100_000.0);
    }
    for name in [
        "xyzzy",
        "secret",
        "hidden",
        "such",
        "TRACE",
        "default",
        &runtime.id,
    ] {
        assert!(!now.text.contains(name), "{name} is in\n{}", now.text);
    }

    server
        .api
        .post(&format!("/v1/runtimes/{}/stop", runtime.id), &json!({}))
        .data(200);
    assert_eq!(
        Scrape::of(&server).get("runtimes{status=\"shutdown\"}"),
        1.0
    );
}

#[test]
fn who_waits_and_who_is_refused_is_seen() {
    needs!(Root);
    let _turn = alone();
    let dir = TestDir::new();
    let file = dir.path().join("config.toml");
    let config = "max_execs_per_runtime = 1\nmax_queue_per_runtime = 1\nqueue_secs = 60\n";
    fs::write(&file, config).expect("write the configuration");
    let server = Server::start(Options {
        args: vec!["--config".into(), file.display().to_string()],
        ..Options::default()
    });
    let runtime = Runtime::create(&server.api, &json!({}));
    let body = json!({"command": "echo", "args": ["through"]});
    std::thread::scope(|scope| {
        let waiting = runtime.while_sleeping(|_| {
            let waiting = scope.spawn(|| runtime.try_exec(&body));
            await_value(&server, "execs_waiting", 1.0);
            assert_eq!(Scrape::of(&server).get("execs_running"), 1.0);
            let refused = runtime.try_exec(&body);
            assert_error(&refused, 429, "rate_limited");
            waiting
        });
        let reply = waiting.join().expect("no panic");
        assert_eq!(reply.data(200)["stdout"], "through\n");
    });
    let now = Scrape::of(&server);
    assert_eq!(
        now.get("refusals_total{status=\"429\",reason=\"runtime_busy\"}"),
        1.0
    );
    assert_eq!(now.get("execs_waiting"), 0.0);
    assert_eq!(now.get("execs_total{outcome=\"cancelled\"}"), 1.0);
    await_value(&server, "execs_running", 0.0);
}

#[test]
fn a_replaced_warden_is_counted_with_what_it_took_along() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    assert_eq!(Scrape::of(&server).get("warden_restarts_total"), 0.0);
    let runtime = Runtime::create(&server.api, &json!({}));
    let marker = procs::marker();
    let body = json!({"command": "sleep", "args": [marker]});
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.try_exec(&body));
        assert!(eventually(bound(5_000), || !procs::with_arg(&marker).is_empty()));
        // SAFETY: kill(2) takes numbers only; the pid is a process of this test's own server.
        unsafe { libc::kill(server.warden_pid() as i32, libc::SIGKILL) };
        assert_error(&waiting.join().expect("no panic"), 503, "unavailable");
    });
    await_value(&server, "warden_restarts_total", 1.0);
    let now = Scrape::of(&server);
    assert_eq!(now.get("execs_total{outcome=\"unknown\"}"), 1.0);
    assert_eq!(
        now.get("refusals_total{status=\"503\",reason=\"launcher_restarted\"}"),
        1.0
    );
}

#[test]
fn every_metric_is_described_prefixed_and_needs_a_token() {
    needs!(Root);
    let _turn = together();
    assert_error(
        &api().with_token("").get("/metrics"),
        401,
        "unauthenticated",
    );
    let scrape = Scrape::of(crate::support::server());
    assert!(scrape.text.ends_with("# EOF\n"));
    let described = |what: &str| -> BTreeSet<String> {
        let lines = scrape
            .text
            .lines()
            .filter_map(|line| line.strip_prefix(what));
        lines
            .map(|line| line.split(' ').next().expect("a name").to_owned())
            .collect()
    };
    let (types, helps) = (described("# TYPE "), described("# HELP "));
    assert_eq!(types, helps);
    for name in scrape.series.keys() {
        assert!(name.starts_with("cellblock_"), "{name}");
        let name = name.split('{').next().expect("a name");
        let endings = ["", "_total", "_bucket", "_count", "_sum", "_info"];
        let family = endings
            .iter()
            .filter_map(|ending| name.strip_suffix(ending));
        assert!(
            family.into_iter().any(|family| types.contains(family)),
            "{name}"
        );
    }
    let version = format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(scrape.get(&version), 1.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let up = now.expect("after 1970").as_secs_f64() - scrape.get("process_start_time_seconds");
    assert!((0.0..3600.0).contains(&up), "started {up} seconds ago");
}
