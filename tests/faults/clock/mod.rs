//! The machine's clock is set, far and both ways, while a server works. What takes so long takes so long, nothing is lost or
//! there twice, and what was promised for a time holds for that time. On machines that are thrown away afterwards only.

mod load;
mod set;

use crate::needs;
use crate::support::leaks::Counts;
use crate::support::server::Options;
use crate::support::timing::Raise;
use crate::support::{Runtime, Server, alone, bound, eventually, procs};
use load::{Told, counted, judge, stands, walk};
use serde_json::{Value, json};
use set::{Clock, To};
use std::io::{Read, Write};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Each from where the one before left it, and back to the truth.
const JUMPS: [To; 5] = [
    To::DayBack,
    To::DayAhead,
    To::Year2000,
    To::Year2037,
    To::Truth,
];

/// As a command's argument, so that it is found among all processes.
fn begun(marker: &str) {
    let there = || !procs::with_arg(marker).is_empty();
    assert!(
        eventually(bound(30_000), there),
        "{marker} was never started"
    );
}

/// Sets the clock while commands run whose time is known, and sees them end in that time.
fn jump(clock: &Clock, server: &Server, runtime: &Runtime, to: To) {
    let api = &server.api;
    // Long enough for the clock to be set meanwhile, on a slow machine as well.
    let secs = bound(3_000).as_secs().min(20);
    let spooled = runtime.detach(
        "for i in $(seq 40); do echo $i; sleep 0.1; done",
        json!({"timeout_secs": 600}),
    );
    let mut ws = runtime.stream_sh("echo ready; read line; echo got $line");
    ws.expect("ready");
    let key = format!("waited-for-{to:?}");
    let markers: [String; 4] = std::array::from_fn(|_| procs::marker());
    let sh = |line: &str, marker: &str| json!({"command": "sh", "args": ["-c", line, marker], "timeout_secs": 600});
    let timed = json!({"command": "sleep", "args": [markers[0]], "timeout_secs": secs});
    let slept = sh(&format!("sleep {secs}; echo slept"), &markers[1]);
    let once = sh(&format!("sleep {secs}; date +%N"), &markers[3]);
    std::thread::scope(|scope| {
        let timed = scope.spawn(|| runtime.exec(&timed));
        let slept = scope.spawn(|| runtime.exec(&slept));
        let late = json!({"timeout_secs": secs});
        let late = runtime.detach(&format!("sleep {}; echo woken", markers[2]), late);
        let both: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| api.post_once(&runtime.exec_path(), &key, &once)))
            .collect();
        let follow = format!("/v1/execs/{spooled}/output?follow=true");
        let followed = scope.spawn(move || {
            let mut text = String::new();
            let read = api.follow(&follow).read_to_string(&mut text);
            read.map(|_| text)
        });
        for marker in &markers {
            begun(marker);
        }

        clock.set(to);

        let in_time = |took: Duration| {
            let least = Duration::from_secs(secs);
            let most = least + bound(15_000);
            assert!((least..most).contains(&took), "{to:?}: it took {took:?}");
        };
        let timed = timed.join().expect("no panic");
        timed.assert_timed_out();
        in_time(Duration::from_millis(timed.number("duration_ms")));
        in_time(timed.took);
        let slept = slept.join().expect("no panic");
        slept.assert_stdout("slept\n");
        in_time(Duration::from_millis(slept.number("duration_ms")));
        let record = api.ended(&late, bound(30_000));
        assert_eq!(record["outcome"], "timed_out", "{to:?}: {record}");
        in_time(Duration::from_millis(
            record["duration_ms"].as_u64().expect("a duration"),
        ));
        let texts: Vec<String> = both
            .into_iter()
            .map(|one| {
                let reply = one.join().expect("no panic");
                assert_eq!(reply.status, 200, "{}", reply.text());
                reply.text()
            })
            .collect();
        assert_eq!(texts[0], texts[1], "it ran twice");
        let lines: String = (1..=40).map(|number| format!("{number}\n")).collect();
        let followed = followed.join().expect("no panic").expect("read it all");
        assert_eq!(followed, lines, "{to:?}");
    });
    ws.stdin(b"it\n");
    ws.expect("got it");
    assert_eq!(ws.end().code(), 0);
    assert_eq!(api.record(&spooled)["outcome"], "exited");
}

#[test]
fn nothing_is_lost_doubled_late_or_early_whatever_the_clock_says() {
    needs!(Root, MaySetClock);
    let _turn = alone();
    let clock = Clock::take();
    let server = Server::start(Options::default());
    let api = &server.api;
    let runtime = Runtime::create(api, &json!({"limits": {"disk_mib": 64}}));
    runtime.sh("true").assert_code(0);
    let before = Counts::at_rest(&server, bound(20_000));
    let pids = [server.api_pid(), server.warden_pid()];
    let first = api
        .post_once(&runtime.exec_path(), "first", &counted("first"))
        .text();
    let (told, over) = (Told::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let end = Raise(&over);
        for who in 0..2 {
            let (runtime, told, over) = (&runtime, &told, &over);
            scope.spawn(move || load::plain(runtime, who, told, over));
        }
        scope.spawn(|| load::detached(api, &runtime, &told, &over));
        scope.spawn(|| load::once(api, &runtime, &told, &over));
        scope.spawn(|| load::pages(api, &runtime, &told, &over));
        scope.spawn(|| load::life(api, &over));
        for to in JUMPS {
            load::goes_on(&told);
            jump(&clock, &server, &runtime, to);
            stands(api, &runtime, "first", &first);
        }
        load::goes_on(&told);
        drop(end);
    });
    judge(api, &runtime, &told);
    assert_eq!(pids, [server.api_pid(), server.warden_pid()], "one died");
    before.assert_again(|| Counts::of(&server));
}

/// A configuration file with this line.
fn configured(line: &str) -> (Options, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    writeln!(file, "{line}").expect("write the configuration");
    let options = Options {
        args: vec!["--config".to_owned(), file.path().display().to_string()],
        ..Options::default()
    };
    (options, file)
}

#[test]
fn a_record_is_kept_for_its_time_when_the_clock_jumps_ahead() {
    needs!(Root, MaySetClock);
    let _turn = alone();
    let clock = Clock::take();
    let kept = bound(10_000).as_secs().min(40);
    let (options, _file) = configured(&format!("record_retention_secs = {kept}"));
    let server = Server::start(options);
    let began = Instant::now();
    let body = json!({"command": "true"});
    let exec = server
        .api
        .post("/v1/runtimes/example/exec", &body)
        .data(200);
    let path = format!("/v1/execs/{}", exec["exec_id"].as_str().expect("an id"));
    server.api.get(&path).data(200);
    clock.set(To::Year2037);
    let gone = || server.api.get(&path).status == 404;
    assert!(eventually(bound(60_000), gone), "it is kept for ever");
    let held = began.elapsed();
    // The clock runs by itself a little faster or slower than what it is held against.
    let least = Duration::from_secs(kept - 1);
    assert!(held >= least, "it was kept for {held:?} only");
}

#[test]
fn a_server_that_starts_under_a_clock_set_back_knows_all_it_knew() {
    needs!(Root, MaySetClock);
    let _turn = alone();
    let clock = Clock::take();
    let mut server = Server::start(Options::default());
    let runtime = Runtime::create(&server.api, &json!({"limits": {"disk_mib": 16}}));
    let told = Told::default();
    let mut detached = Vec::new();
    // Ids of the future, of the present and of the past, in this order.
    for to in [To::Year2037, To::Truth, To::DayBack, To::Year2000] {
        server.stop();
        clock.set(to);
        server = server.restart();
        let api = &server.api;
        let key = format!("{to:?}");
        let first = api.post_once(&runtime.exec_path(), &key, &counted(&key));
        told.keys
            .lock()
            .expect("no panic")
            .push((key, first.text()));
        let exec = runtime.sh(&format!("echo {to:?}"));
        let id = exec.data["exec_id"].as_str().expect("an id").to_owned();
        told.execs
            .lock()
            .expect("no panic")
            .push((id, exec.stdout().to_owned()));
        let id = runtime.detach(&format!("head -c 100000 /dev/zero; echo {to:?}"), json!({}));
        let record: Value = api.ended(&id, bound(20_000));
        assert_eq!(record["stdout_bytes"], 100_000 + format!("{to:?}\n").len());
        detached.push((id, to));
        judge(api, &runtime, &told);
        let listed = walk(api, &runtime.id, 2);
        for (id, to) in &detached {
            assert!(listed.contains(id), "{id} of {to:?} is not listed");
            let output = api.get(&format!("/v1/execs/{id}/output"));
            assert!(
                output.text().ends_with(&format!("\0{to:?}\n")),
                "{to:?}: its output is gone"
            );
        }
    }
}
