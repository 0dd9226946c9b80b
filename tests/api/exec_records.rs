//! What is remembered of execs: shown, listed, cancelled.

use crate::needs;
use crate::support::client::is_uuid_v7;
use crate::support::{
    alone, api, assert_error, assert_invalid, bound, eventually, procs, runtime, together,
};
use serde_json::{Value, json};

fn list(query: &str) -> (Vec<Value>, Value) {
    let reply = api().get(&format!("/v1/execs?{query}"));
    let data = reply.data(200);
    let rows = data.as_array().expect("a list").clone();
    (rows, reply.json()["pagination"].clone())
}

fn ids(rows: &[Value]) -> Vec<String> {
    let id = |row: &Value| row["exec_id"].as_str().expect("an id").to_owned();
    rows.iter().map(id).collect()
}

#[test]
fn a_record_says_what_the_answer_said() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let exec = runtime.sh_with(
        "printf 0123456789; printf abc >&2; exit 7",
        json!({"max_output_bytes": 4}),
    );
    let id = exec.data["exec_id"].as_str().expect("an id");
    let record = api().record(id);
    for key in [
        "exec_id",
        "outcome",
        "exit_code",
        "signal",
        "timed_out",
        "oom_killed",
        "duration_ms",
        "stdout_bytes",
        "stderr_bytes",
        "stdout_truncated",
        "stderr_truncated",
        "usage",
    ] {
        assert_eq!(record[key], exec.data[key], "{key} of {record}");
    }
    assert_eq!(
        (&record["exit_code"], &record["stdout_bytes"]),
        (&json!(7), &json!(10))
    );
    assert_eq!(record["runtime_id"], json!(runtime.id));
    assert_eq!(record["runtime"], json!(runtime.name));
    assert_eq!(
        (&record["command"], &record["detached"]),
        (&json!("sh"), &json!(false))
    );
    let time = |key: &str| record[key].as_str().expect("a time").to_owned();
    assert!(time("started_at") <= time("ended_at"), "{record}");
    let output = |stream: &str| {
        api()
            .get(&format!("/v1/execs/{id}/output?stream={stream}"))
            .body
    };
    assert_eq!(
        (output("stdout"), output("stderr")),
        (b"0123".to_vec(), b"abc".to_vec())
    );
}

#[test]
fn each_outcome_is_recorded_and_found_by_its_word() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime.sh("exit 3");
    runtime.sh("kill -TERM $$");
    runtime.sh_with("sleep 100", json!({"timeout_secs": 1}));
    for (outcome, code) in [("exited", 3), ("signaled", 143), ("timed_out", 124)] {
        let (rows, _) = list(&format!("runtime={}&outcome={outcome}", runtime.id));
        assert_eq!(rows.len(), 1, "{outcome}: {rows:?}");
        assert_eq!(rows[0]["exit_code"], code, "{rows:?}");
    }
    let both = format!("runtime={}&outcome=exited,timed_out", runtime.name);
    assert_eq!(list(&both).0.len(), 2);
    assert_eq!(
        list(&format!("runtime={}&outcome=unknown", runtime.id))
            .0
            .len(),
        0
    );
}

#[test]
fn lists_are_newest_first_and_pages_make_the_whole() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let mut made: Vec<String> = (0..5)
        .map(|_| {
            runtime.sh("true").data["exec_id"]
                .as_str()
                .expect("an id")
                .to_owned()
        })
        .collect();
    made.reverse();
    assert!(made.iter().all(|id| is_uuid_v7(id)));
    let all = format!("runtime={}", runtime.id);
    let (rows, pagination) = list(&all);
    assert_eq!(ids(&rows), made);
    let expected = json!({
        "next_cursor": null, "has_more": false, "limit": 5, "offset": 0, "total": 5, "next_offset": null,
    });
    assert_eq!(pagination, expected);

    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let (rows, pagination) = list(&format!("{all}&limit=2&after={after}"));
        assert_eq!(
            (&pagination["total"], &pagination["limit"]),
            (&json!(5), &json!(2))
        );
        assert_eq!(pagination["offset"], seen.len());
        seen.extend(ids(&rows));
        match pagination["next_cursor"].as_str() {
            Some(cursor) => after = cursor.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, made);
    let (rows, pagination) = list(&format!("{all}&limit=2&offset=1"));
    assert_eq!(ids(&rows), made[1..3]);
    assert_eq!(pagination["next_offset"], 3);
}

#[test]
fn without_a_limit_all_come_however_many() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let mut made: Vec<String> = std::thread::scope(|scope| {
        let run = || {
            let one = |_| {
                runtime.sh("true").data["exec_id"]
                    .as_str()
                    .expect("an id")
                    .to_owned()
            };
            (0..53).map(one).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        let joined = threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no panic"));
        joined.collect()
    });
    made.sort();
    made.reverse();
    let (rows, pagination) = list(&format!("runtime={}", runtime.id));
    assert_eq!(ids(&rows), made);
    assert_eq!(
        (&pagination["total"], &pagination["has_more"]),
        (&json!(212), &json!(false))
    );
    let (rows, pagination) = list(&format!("runtime={}&offset=7", runtime.id));
    assert_eq!(ids(&rows), made[7..]);
    assert_eq!(pagination["offset"], 7);
    let (rows, pagination) = list(&format!("runtime={}&offset=1000", runtime.id));
    assert!(rows.is_empty(), "{rows:?}");
    assert_eq!(
        (&pagination["offset"], &pagination["has_more"]),
        (&json!(1000), &json!(false))
    );
}

#[test]
fn since_leaves_out_what_started_before() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime.sh("true");
    // A start is known by the millisecond.
    std::thread::sleep(std::time::Duration::from_millis(5));
    let second = runtime.sh("true").data["exec_id"].clone();
    let started = api().record(second.as_str().expect("an id"))["started_at"].clone();
    let started = started.as_str().expect("a time");
    let (rows, _) = list(&format!("runtime={}&since={started}", runtime.id));
    assert_eq!(ids(&rows), [second.as_str().expect("an id")]);
    assert_eq!(
        list(&format!(
            "runtime={}&since=2000-01-01T00:00:00%2B02:00",
            runtime.id
        ))
        .0
        .len(),
        2
    );
    assert_eq!(list("since=2999-01-01T00:00:00Z").0.len(), 0);
}

#[test]
fn nonsense_names_its_parameter() {
    needs!(Root);
    let _turn = together();
    for (query, field) in [
        ("outcome=ended", "outcome"),
        ("since=yesterday", "since"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("offset=-1", "offset"),
        ("after=zz", "after"),
    ] {
        assert_invalid(&api().get(&format!("/v1/execs?{query}")), field);
    }
    let exec = runtime().sh("true");
    let path = format!(
        "/v1/execs/{}/output",
        exec.data["exec_id"].as_str().expect("an id")
    );
    for (query, field) in [
        ("stream=stdin", "stream"),
        ("offset=-1", "offset"),
        ("offset=x", "offset"),
        ("limit=x", "limit"),
        ("follow=maybe", "follow"),
    ] {
        assert_invalid(&api().get(&format!("{path}?{query}")), field);
    }
}

#[test]
fn what_does_not_exist_is_404() {
    needs!(Root);
    let _turn = together();
    for id in ["0198f3c2-7b5e-7cc3-98d5-1f2a3b4c5d6e", "example", "%ff"] {
        assert_error(&api().get(&format!("/v1/execs/{id}")), 404, "not_found");
        assert_error(&api().delete(&format!("/v1/execs/{id}")), 404, "not_found");
        assert_error(
            &api().get(&format!("/v1/execs/{id}/output")),
            404,
            "not_found",
        );
    }
    for path in ["/v1/execs", "/v1/execs/x", "/v1/execs/x/output"] {
        assert_error(&api().with_token("").get(path), 401, "unauthenticated");
    }
}

#[test]
fn a_running_exec_is_listed_and_can_be_cancelled() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let marker = procs::marker();
    let line = format!("echo begun; sleep {marker}");
    let body = json!({"command": "sh", "args": ["-c", line]});
    let reply = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.try_exec(&body));
        let begun = || !procs::with_arg(&marker).is_empty();
        assert!(eventually(bound(5_000), begun));
        let (rows, _) = list(&format!("runtime={}&outcome=running", runtime.id));
        assert_eq!(rows.len(), 1, "{rows:?}");
        let record = &rows[0];
        assert_eq!(
            (&record["exit_code"], &record["ended_at"]),
            (&Value::Null, &Value::Null)
        );
        let path = format!("/v1/execs/{}", record["exec_id"].as_str().expect("an id"));
        for _ in 0..2 {
            assert_eq!(api().delete(&path).data(200), json!({}));
        }
        let ended = api().get(&path).data(200);
        assert_eq!(
            (&ended["outcome"], &ended["exit_code"]),
            (&json!("cancelled"), &json!(137))
        );
        waiting.join().expect("no panic")
    });
    let data = reply.data(200);
    assert_eq!(
        (&data["outcome"], &data["stdout"]),
        (&json!("cancelled"), &json!("begun\n"))
    );
    assert!(procs::with_arg(&marker).is_empty());
}

#[test]
fn an_exec_whose_client_left_is_recorded_as_cancelled() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime.while_sleeping(|_| ());
    let newest = || list(&format!("runtime={}&limit=1", runtime.id)).0[0]["outcome"].clone();
    assert!(
        eventually(bound(2_000), || newest() == "cancelled"),
        "{}",
        newest()
    );
}

#[test]
fn refused_execs_have_no_record() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let body = json!({"command": "true", "cwd": "/no/such/dir"});
    assert_invalid(&runtime.try_exec(&body), "cwd");
    assert_invalid(&runtime.try_exec(&json!({"command": ""})), "command");
    assert_eq!(
        list(&format!("runtime={}", runtime.id)).0,
        Vec::<Value>::new()
    );
}

#[test]
fn records_outlive_their_runtime() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let exec = runtime.sh("echo still here");
    let id = exec.data["exec_id"].as_str().expect("an id");
    api()
        .delete(&format!("/v1/runtimes/{}", runtime.id))
        .data(200);
    assert_eq!(api().record(id)["runtime"], json!(runtime.name));
    assert_eq!(list(&format!("runtime={}", runtime.id)).0.len(), 1);
    let output = api().get(&format!("/v1/execs/{id}/output"));
    assert_eq!(output.text(), "still here\n");
}
