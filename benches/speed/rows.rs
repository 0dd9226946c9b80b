//! The rows of the table: what is measured, how, and what it is held against.

use crate::Options;
use crate::contenders::{Contender, Program};
use crate::floor::Floor;
use crate::http::Connection;
use crate::measure::{Plan, Times, latencies, quantile, rates};
use crate::plain::Plain;
use crate::report::{Report, Target};
use crate::server::{Server, TOKEN};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

const PYTHON: Program<'_> = &["/usr/bin/python3", "-c", "print(1)"];
const NO_PAUSE: Duration = Duration::ZERO;

/// Measures all rows that are wanted.
pub fn run(options: &Options, report: &mut Report) {
    let plain = Plain::start();
    let against = Contender::Http {
        name: "plain",
        address: plain.address,
        path: "/exec".to_owned(),
        token: String::new(),
    };
    let floor = Some(Contender::Floor(Floor::new()));
    let others: Vec<Contender> = [floor, Contender::bwrap(), Contender::runc()]
        .into_iter()
        .flatten()
        .collect();
    small(options, report, &against, &others);
    output(options, report);
    many_runtimes(options, report);
    sleepers(options, report);
    memory(options, report);
    if options.long {
        long(options, report);
    }
}

/// A static busybox, so that the program itself costs next to nothing; else the C library's `true`.
fn nothing() -> Program<'static> {
    match Path::new("/bin/busybox").exists() {
        true => &["/bin/busybox", "true"],
        false => &["/usr/bin/true"],
    }
}

fn ours(server: &Server, path: &str) -> Contender {
    server_as("ours", server, path)
}

fn server_as(name: &'static str, server: &Server, path: &str) -> Contender {
    Contender::Http {
        name,
        address: server.address,
        path: path.to_owned(),
        token: TOKEN.to_owned(),
    }
}

/// Commands that are over at once, or nearly so.
fn small(options: &Options, report: &mut Report, plain: &Contender, others: &[Contender]) {
    let server = Server::start();
    let path = server.runtime(&mut server.connect(), "bench");
    let ours = ours(&server, &path);
    let scaled = |count: usize| {
        if options.quick {
            count.div_ceil(10)
        } else {
            count
        }
    };
    let before = options.before.as_deref().map(Server::start_other);
    let before = before.as_ref().map(|server| {
        let path = server.runtime(&mut server.connect(), "bench");
        server_as("before", server, &path)
    });
    let mut all = vec![&ours, plain];
    all.extend(&before);
    all.extend(others);
    let plans = [
        (
            "true, one client",
            nothing(),
            Plan {
                turns: 5,
                execs: scaled(300),
                pause: NO_PAUSE,
            },
            1.3,
        ),
        (
            "true, one client, 50 ms apart",
            nothing(),
            Plan {
                turns: 4,
                execs: scaled(50),
                pause: Duration::from_millis(50),
            },
            1.3,
        ),
        (
            "python3 print(1), one client",
            PYTHON,
            Plan {
                turns: 5,
                execs: scaled(60),
                pause: NO_PAUSE,
            },
            1.08,
        ),
    ];
    for (name, program, plan, most) in plans {
        let (median, tail) = (format!("{name}: p50"), format!("{name}: p99 to own p50"));
        if !options.wants(&median) && !options.wants(&tail) {
            continue;
        }
        let before = server.phases();
        let times = latencies(&all, program, plan);
        report.phases(name, &before, &server.phases());
        compare(report, &median, &times, Target::AtMost(most));
        let (p99, p50) = (times[0].quantile(0.99), times[0].quantile(0.5));
        report.row(&tail, (p99, p50, "us"), Target::AtMost(3.0), &[], &[]);
    }
    let time = match options.quick {
        true => Duration::from_millis(300),
        false => Duration::from_secs(3),
    };
    for (name, program, least) in [
        ("true, 8 clients: execs/s", nothing(), 0.35),
        ("python3 print(1), 8 clients: execs/s", PYTHON, 0.90),
    ] {
        if options.wants(name) {
            let all = rates(&all, program, 8, (3, time));
            let turns: Vec<f64> = all[0].1.iter().zip(&all[1].1).map(|(a, b)| a / b).collect();
            let median = |rates: &[f64]| quantile(rates.to_vec(), 0.5);
            let others: Vec<(&str, f64)> = all[2..]
                .iter()
                .map(|(name, rates)| (*name, median(rates)))
                .collect();
            let figures = (median(&all[0].1), median(&all[1].1), "/s");
            report.row(name, figures, Target::AtLeast(least), &others, &turns);
        }
    }
}

/// The first against the second; the others beside them.
fn compare(report: &mut Report, name: &str, times: &[Times], target: Target) {
    let [ours, against, others @ ..] = times else {
        panic!("two take part at least");
    };
    let turns = ours.medians().into_iter().zip(against.medians());
    let turns: Vec<f64> = turns.map(|(a, b)| a / b).collect();
    let others: Vec<(&str, f64)> = others
        .iter()
        .map(|times| (times.name, times.quantile(0.5)))
        .collect();
    let figures = (ours.quantile(0.5), against.quantile(0.5), "us");
    report.row(name, figures, target, &others, &turns);
}

/// 64 MiB through the pipes of a command, of which 4 MiB are kept, against a pipe into /dev/null.
fn output(options: &Options, report: &mut Report) {
    let name = "64 MiB of output: MiB/s";
    if !options.wants(name) {
        return;
    }
    let server = Server::start();
    let mut connection = server.connect();
    let path = server.runtime(&mut connection, "bench");
    let flood = "head -c 67108864 /dev/zero";
    let (mut ours, mut against) = (Vec::new(), Vec::new());
    for _ in 0..if options.quick { 1 } else { 7 } {
        // As text the zeros that are kept would be six times as many bytes of JSON.
        let body =
            json!({"command": "/bin/sh", "args": ["-c", flood], "output_encoding": "base64"});
        let body = body.to_string();
        let since = Instant::now();
        let (status, _) = connection.send("POST", &path, &body);
        ours.push(64.0 / since.elapsed().as_secs_f64());
        assert_eq!(status, 200);
        let since = Instant::now();
        let line = format!("{flood} | cat > /dev/null");
        let ran = std::process::Command::new("/bin/sh")
            .args(["-c", &line])
            .status();
        against.push(64.0 / since.elapsed().as_secs_f64());
        assert!(ran.expect("run sh").success());
    }
    let turns: Vec<f64> = ours.iter().zip(&against).map(|(a, b)| a / b).collect();
    let figures = (quantile(ours, 0.5), quantile(against, 0.5), "MiB/s");
    report.row(name, figures, Target::AtLeast(0.8), &[], &turns);
}

/// What a thousand runtimes cost those who use one, and the start.
fn many_runtimes(options: &Options, report: &mut Report) {
    let (name, start) = (
        "true with 1000 runtimes, 200 used: p50 to one's",
        "start with 1000 runtimes: ms to the target's 1000",
    );
    if !options.wants(name) && !options.wants(start) {
        return;
    }
    let (all, used) = if options.quick {
        (100, 20)
    } else {
        (1000, 200)
    };
    let (few, many) = (Server::start(), Server::start());
    let alone = few.runtime(&mut few.connect(), "bench");
    let mut connection = many.connect();
    let paths: Vec<String> = (0..all)
        .map(|number| many.runtime(&mut connection, &format!("bench-{number}")))
        .collect();
    let mut exec = |path: &str| {
        let body = json!({"command": nothing()[0], "args": &nothing()[1..]}).to_string();
        assert_eq!(connection.send("POST", path, &body).0, 200);
    };
    paths[..used].iter().for_each(|path| exec(path));
    let plan = Plan {
        turns: 5,
        execs: if options.quick { 20 } else { 200 },
        pause: NO_PAUSE,
    };
    let times = latencies(
        &[&ours(&many, &paths[0]), &ours(&few, &alone)],
        nothing(),
        plan,
    );
    compare(report, name, &times, Target::AtMost(1.1));
    let many = many.restart();
    let took = many.took.as_secs_f64() * 1e3;
    report.row(start, (took, 1000.0, "ms"), Target::AtMost(1.0), &[], &[]);
}

/// What commands that do nothing for a long time hold.
fn sleepers(options: &Options, report: &mut Report) {
    let name = "500 execs sleeping: KiB of api and launcher";
    if !options.wants(name) {
        return;
    }
    let count = if options.quick { 50 } else { 500 };
    let server = Server::start();
    let mut connection = server.connect();
    let path = server.runtime(&mut connection, "bench");
    let body = json!({"command": "sleep", "args": ["1000"], "detach": true}).to_string();
    for _ in 0..count {
        let (status, _) = connection.send("POST", &path, &body);
        assert_eq!(status, 200);
    }
    let most = (64 * 1024 + 64 * count) as f64;
    let figures = (server.resident_kib() as f64, most, "KiB");
    report.row(name, figures, Target::AtMost(1.0), &[], &[]);
}

/// What a runtime that is not used costs the service, and a cell that waits the runtime whose it is.
fn memory(options: &Options, report: &mut Report) {
    let (idle, parked) = (
        "a used runtime at rest: KiB of api and launcher to 64",
        "a parked cell: KiB charged to its runtime to 1024",
    );
    if !options.wants(idle) && !options.wants(parked) {
        return;
    }
    let count = if options.quick { 20 } else { 200 };
    let server = Server::start();
    let mut connection = server.connect();
    let body = json!({"command": nothing()[0], "args": &nothing()[1..]}).to_string();
    let mut use_new = |name: &str| {
        let path = server.runtime(&mut connection, name);
        assert_eq!(connection.send("POST", &path, &body).0, 200);
    };
    use_new("first");
    let before = server.resident_kib();
    (0..count).for_each(|number| use_new(&format!("bench-{number}")));
    let each = server.resident_kib().saturating_sub(before) as f64 / f64::from(count);
    report.row(idle, (each, 64.0, "KiB"), Target::AtMost(1.0), &[], &[]);
    let charged = server.charged_kib();
    let each = quantile(charged, 0.5);
    report.row(parked, (each, 1024.0, "KiB"), Target::AtMost(1.0), &[], &[]);
}

/// Memory after very many execs against memory after some.
fn long(options: &Options, report: &mut Report) {
    let name = "100000 execs: KiB after them to those after 5000";
    if !options.wants(name) {
        return;
    }
    let server = Server::start();
    let path = server.runtime(&mut server.connect(), "bench");
    let run = |count: usize| {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut connection: Connection = server.connect();
                    let body =
                        json!({"command": nothing()[0], "args": &nothing()[1..]}).to_string();
                    for _ in 0..count / 8 {
                        assert_eq!(connection.send("POST", &path, &body).0, 200);
                    }
                });
            }
        });
        server.resident_kib() as f64
    };
    let (first, last) = (run(5_000), run(95_000));
    report.row(name, (last, first, "KiB"), Target::AtMost(1.05), &[], &[]);
}
