//! `Idempotency-Key`: sent again, not run again.

use crate::needs;
use crate::support::timing::factor;
use crate::support::{
    Reply, Runtime, alone, api, assert_error, assert_invalid, bound, eventually, procs, runtime,
    together,
};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// A key that no other test uses.
fn key() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "key-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A line that leaves a trace each time it runs.
fn counted(rest: &str) -> Value {
    json!({"command": "sh", "args": ["-c", format!("echo x >> /root/ran; {rest}")]})
}

fn runs(runtime: &Runtime) -> usize {
    runtime
        .sh("cat /root/ran 2>/dev/null")
        .stdout()
        .lines()
        .count()
}

fn once(runtime: &Runtime, key: &str, body: &Value) -> Reply {
    api().post_once(&runtime.exec_path(), key, body)
}

#[track_caller]
fn assert_reused(reply: &Reply) {
    assert_error(reply, 409, "failed_precondition");
    assert_eq!(reply.json()["error"]["details"]["reason"], "key_reused");
}

#[test]
fn the_same_request_gets_the_same_answer_and_runs_nothing() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let key = key();
    let body = counted("date +%N; echo err >&2; exit 3");
    let first = once(&runtime, &key, &body);
    assert_eq!(first.data(200)["exit_code"], 3);
    let again = once(&runtime, &key, &body);
    assert_eq!((again.status, again.text()), (200, first.text()));
    // The same, written otherwise, and by name.
    let path = format!("/v1/runtimes/{}/exec", runtime.name);
    let text = format!(
        "{{ \"stdin\" : null, \"args\":{},\"command\":\"sh\" }}",
        body["args"]
    );
    let headers = [("Idempotency-Key", key.as_str())];
    let again = api().send("POST", &path, &headers, Some(text.as_bytes()));
    assert_eq!(again.text(), first.text());
    assert_eq!(runs(&runtime), 1);
}

#[test]
fn another_request_under_the_same_key_is_409() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let key = key();
    once(&runtime, &key, &counted("true")).data(200);
    assert_reused(&once(&runtime, &key, &counted("false")));
    let mut detached = counted("true");
    detached["detach"] = json!(true);
    assert_reused(&once(&runtime, &key, &detached));
    assert_eq!(runs(&runtime), 1);
}

#[test]
fn a_key_is_a_runtimes_own() {
    needs!(Root);
    let _turn = together();
    let (one, other) = (runtime(), runtime());
    let key = key();
    let first = once(&one, &key, &counted("true")).data(200);
    let second = once(&other, &key, &counted("true")).data(200);
    assert_ne!(first["exec_id"], second["exec_id"]);
    assert_eq!((runs(&one), runs(&other)), (1, 1));
}

#[test]
fn fifty_at_once_are_one_run_and_fifty_answers() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let key = key();
    let body = counted("sleep 1; date +%N");
    let replies: Vec<Reply> = thread::scope(|scope| {
        let send = || once(&runtime, &key, &body);
        let threads: Vec<_> = (0..50).map(|_| scope.spawn(send)).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        joined.collect()
    });
    for reply in &replies {
        assert_eq!((reply.status, reply.text()), (200, replies[0].text()));
    }
    assert_eq!(runs(&runtime), 1);
}

#[test]
fn a_request_in_flight_is_not_joined_by_another_one() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let key = key();
    let marker = procs::marker();
    let body = counted(&format!("sleep {marker} & sleep 1"));
    thread::scope(|scope| {
        let first = scope.spawn(|| once(&runtime, &key, &body));
        assert!(eventually(bound(5_000), || !procs::with_arg(&marker).is_empty()));
        assert_reused(&once(&runtime, &key, &counted("true")));
        first.join().expect("no panic").data(200);
    });
    assert_eq!(runs(&runtime), 1);
}

#[test]
fn the_command_lives_as_long_as_anybody_waits() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let key = key();
    let marker = procs::marker();
    let body = counted(&format!("sleep {marker}")).to_string();
    let begin = || {
        use std::io::Write;
        let mut stream = api().connect();
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nIdempotency-Key: {key}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            runtime.exec_path(),
            api().token,
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("send");
        stream
    };
    let alive = || !procs::with_arg(&marker).is_empty();
    let first = begin();
    assert!(eventually(bound(5_000), alive), "it never ran");
    let second = begin();
    // It joins when its request is read; nothing outside tells when that is.
    thread::sleep(bound(500));
    drop(first);
    thread::sleep(bound(500));
    assert!(alive(), "killed with the first of two that waited");
    drop(second);
    assert!(
        eventually(bound(100), || !alive()),
        "nobody waits, and it lives on"
    );
    // That, too, is an outcome: it ran.
    let again = once(&runtime, &key, &serde_json::from_str(&body).expect("JSON"));
    assert_eq!(again.data(200)["outcome"], "cancelled");
    assert_eq!(runs(&runtime), 1);
}

#[test]
fn what_ran_nothing_is_not_remembered() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let key = key();
    let mut body = counted("true");
    body["cwd"] = json!("/root/later");
    assert_invalid(&once(&runtime, &key, &body), "cwd");
    runtime.sh("mkdir /root/later").assert_code(0);
    once(&runtime, &key, &body).data(200);
    assert_eq!(runs(&runtime), 1);
    let bad = json!({"command": "true", "timeout_secs": 99_999});
    let other = self::key();
    assert_invalid(&once(&runtime, &other, &bad), "timeout_secs");
    once(&runtime, &other, &json!({"command": "true"})).data(200);
}

#[test]
fn large_answers_are_repeated_exactly() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let key = key();
    for encoding in ["utf8", "base64"] {
        // Text that is cut inside a character, and bytes that are none.
        let line = "yes \u{1f600}\u{e9} | head -c 9999999; head -c 99999 /dev/urandom >&2";
        let mut body = counted(line);
        body["max_output_bytes"] = json!(7_777_777);
        body["output_encoding"] = json!(encoding);
        let key = format!("{key}-{encoding}");
        let first = once(&runtime, &key, &body);
        let length = first.data(200)["stdout"].as_str().expect("text").len();
        assert!(length > 7_000_000, "{length}");
        let again = once(&runtime, &key, &body);
        assert!(again.body == first.body, "{encoding}: another answer");
    }
    assert_eq!(runs(&runtime), 2);
}

#[test]
fn a_detached_exec_is_started_once() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let key = key();
    let mut body = counted("sleep 0.5");
    body["detach"] = json!(true);
    let first = once(&runtime, &key, &body);
    let id = first.data(200)["exec_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert_eq!(once(&runtime, &key, &body).text(), first.text());
    api().ended(&id, bound(10_000));
    assert_eq!(once(&runtime, &key, &body).text(), first.text());
    assert_eq!(runs(&runtime), 1);
}

#[test]
fn a_detached_exec_that_was_refused_stays_refused() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime.sh("true");
    let body = json!({"command": "true", "cwd": "/no/such", "detach": true});
    let mut refused = 0;
    for _ in 0..10 {
        let key = key();
        let first = once(&runtime, &key, &body);
        let again = once(&runtime, &key, &body);
        // Where it did not show in time the record tells, then and now.
        if first.status == 422 {
            assert_invalid(&first, "cwd");
            if again.status == 422 {
                assert_invalid(&again, "cwd");
                refused += 1;
            } else {
                let id = again.data(200)["exec_id"]
                    .as_str()
                    .expect("an id")
                    .to_owned();
                assert_eq!(api().ended(&id, bound(10_000))["outcome"], "failed");
            }
        } else {
            assert_eq!(again.text(), first.text());
        }
    }
    assert!(
        refused > 0 || factor() > 2.0,
        "nothing was ever refused in time"
    );
}

#[test]
fn an_answer_outlives_its_runtime() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let key = key();
    let body = json!({"command": "date", "args": ["+%N"]});
    let by_name = format!("/v1/runtimes/{}/exec", runtime.name);
    let first = once(&runtime, &key, &body);
    first.data(200);
    let detached = json!({"command": "true", "detach": true});
    let other = self::key();
    let started = once(&runtime, &other, &detached);
    api()
        .delete(&format!("/v1/runtimes/{}", runtime.id))
        .data(200);
    assert_eq!(once(&runtime, &key, &body).text(), first.text());
    let named = api().post_once(&by_name, &key, &body);
    assert_eq!(named.text(), first.text());
    assert_eq!(once(&runtime, &other, &detached).text(), started.text());
    assert_reused(&once(&runtime, &key, &detached));
    let new = once(&runtime, &self::key(), &body);
    assert_error(&new, 404, "not_found");
    let nobody = api().post_once("/v1/runtimes/no-such-name/exec", &key, &body);
    assert_error(&nobody, 404, "not_found");
}

#[test]
fn a_runtime_is_created_once() {
    needs!(Root);
    let _turn = together();
    let key = key();
    let body = json!({"limits": {"disk_mib": 16}});
    let replies: Vec<Reply> = thread::scope(|scope| {
        let send = || api().post_once("/v1/runtimes", &key, &body);
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(send)).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        joined.collect()
    });
    let made = replies[0].data(200);
    for reply in &replies {
        assert_eq!((reply.status, reply.text()), (200, replies[0].text()));
    }
    assert_reused(&api().post_once("/v1/runtimes", &key, &json!({"limits": {"disk_mib": 17}})));
    let path = format!("/v1/runtimes/{}", made["id"].as_str().expect("an id"));
    api().delete(&path).data(200);
    // The first outcome, even where it is history.
    let again = api().post_once("/v1/runtimes", &key, &body);
    assert_eq!(again.text(), replies[0].text());
    assert_error(&api().get(&path), 404, "not_found");
}

#[test]
fn a_refused_creation_may_be_tried_again() {
    needs!(Root);
    let _turn = together();
    let taken = runtime();
    let key = key();
    let body = json!({"name": taken.name, "limits": {"disk_mib": 16}});
    assert_error(
        &api().post_once("/v1/runtimes", &key, &body),
        409,
        "already_exists",
    );
    api()
        .delete(&format!("/v1/runtimes/{}", taken.id))
        .data(200);
    let made = api().post_once("/v1/runtimes", &key, &body).data(200);
    api()
        .delete(&format!(
            "/v1/runtimes/{}",
            made["id"].as_str().expect("an id")
        ))
        .data(200);
}
