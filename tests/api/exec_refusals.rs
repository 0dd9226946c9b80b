//! Exec bodies that are refused: always before anything runs, always naming the field.

use crate::needs;
use crate::support::{api, assert_error, assert_invalid, runtime, together};
use serde_json::{Value, json};

#[test]
fn wrong_values_are_422_naming_the_field() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let cases: Vec<(&str, Vec<Value>)> = vec![
        (
            "command",
            vec![
                json!(""),
                json!(3),
                json!(["ls"]),
                json!(null),
                json!({}),
                json!("a\0b"),
            ],
        ),
        (
            "args",
            vec![
                json!("x"),
                json!([1]),
                json!([null]),
                json!({}),
                json!(["a\0b"]),
            ],
        ),
        (
            "cwd",
            vec![
                json!(3),
                json!([]),
                json!("/no/such/dir"),
                json!("/etc/passwd"),
                json!("no-such"),
                json!("/t\0mp"),
                json!(""),
            ],
        ),
        (
            "env",
            vec![
                json!("A=b"),
                json!(["A=b"]),
                json!({"A": 1}),
                json!({"A": null}),
                json!({"": "x"}),
                json!({"1A": "x"}),
                json!({"A=B": "x"}),
                json!({"A B": "x"}),
                json!({"A": "a\0b"}),
                json!({"A": "a\nb"}),
                json!({"A": "a\rb"}),
                json!({"A": "v".repeat(8193)}),
                json!({"A".repeat(129): "x"}),
            ],
        ),
        ("stdin", vec![json!(3), json!(["x"]), json!({})]),
        (
            "stdin_base64",
            vec![
                json!("!"),
                json!("YQ"),
                json!("YQ="),
                json!(3),
                json!("YQ==\n"),
            ],
        ),
        (
            "timeout_secs",
            vec![
                json!(-1),
                json!(3601),
                json!(1.5),
                json!("1"),
                json!(true),
                json!(1e30),
                json!(u64::MAX),
            ],
        ),
        (
            "max_output_bytes",
            vec![
                json!(-1),
                json!((32u64 << 20) + 1),
                json!(0.5),
                json!("1"),
                json!(u64::MAX),
            ],
        ),
        (
            "output_encoding",
            vec![json!("utf-16"), json!(""), json!("UTF8"), json!(8)],
        ),
        ("limits", vec![json!(3), json!([])]),
        (
            "memory_mib",
            vec![
                json!({"memory_mib": 0}),
                json!({"memory_mib": -1}),
                json!({"memory_mib": "1"}),
                json!({"memory_mib": 1u64 << 60}),
            ],
        ),
        (
            "pids",
            vec![
                json!({"pids": 0}),
                json!({"pids": -1}),
                json!({"pids": 1.5}),
            ],
        ),
        (
            "cpu_secs",
            vec![
                json!({"cpu_secs": -1}),
                json!({"cpu_secs": "1"}),
                json!({"cpu_secs": 0.5}),
            ],
        ),
    ];
    for (field, values) in cases {
        let key = if matches!(field, "memory_mib" | "pids" | "cpu_secs") {
            "limits"
        } else {
            field
        };
        for value in values {
            let mut body = json!({"command": "true"});
            body[key] = value.clone();
            let reply = runtime.try_exec(&body);
            assert_eq!(reply.status, 422, "{key}={value} gave {}", reply.text());
            assert_invalid(&reply, field);
        }
    }
    assert_invalid(&runtime.try_exec(&json!({})), "command");
}

#[test]
fn both_kinds_of_stdin_together_are_422() {
    needs!(Root);
    let _turn = together();
    let body = json!({"command": "cat", "stdin": "a", "stdin_base64": "YQ=="});
    assert_invalid(&runtime().try_exec(&body), "stdin");
}

#[test]
fn unknown_fields_are_422_with_the_nearest_name() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let nearest = [
        ("timeout", "timeout_secs"),
        ("timeout_sec", "timeout_secs"),
        ("comand", "command"),
        ("arg", "args"),
        ("envs", "env"),
        ("std_in", "stdin"),
        ("max_output", "max_output_bytes"),
        ("limit", "limits"),
    ];
    for (unknown, known) in nearest {
        let mut body = json!({"command": "true"});
        body[unknown] = json!(1);
        let reply = runtime.try_exec(&body);
        assert_invalid(&reply, unknown);
        assert!(
            reply.text().contains(known),
            "{known} is not in {}",
            reply.text()
        );
    }
    let reply = runtime.try_exec(&json!({"command": "true", "limits": {"memory": 64}}));
    assert_invalid(&reply, "memory");
    assert!(reply.text().contains("memory_mib"), "{}", reply.text());
    assert_invalid(
        &runtime.try_exec(&json!({"command": "true", "zzzzzzzz": 1})),
        "zzzzzzzz",
    );
}

#[test]
fn what_is_given_twice_is_422_and_no_value_of_it_wins() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for (field, body) in [
        (
            "timeout_secs",
            r#"{"command":"true","timeout_secs":1,"timeout_secs":3600}"#,
        ),
        ("command", r#"{"command":"true","command":"true"}"#),
        (
            "limits.pids",
            r#"{"command":"true","limits":{"pids":5,"pids":500}}"#,
        ),
        (
            "env.A",
            r#"{"command":"true","env":{"A":"1","B":"2","A":"3"}}"#,
        ),
    ] {
        let path = runtime.exec_path();
        let reply = api().post_bytes(&path, "application/json", body.as_bytes());
        assert_invalid(&reply, field);
        assert!(reply.text().contains("once"), "{}", reply.text());
    }
}

#[test]
fn text_that_is_no_unicode_is_422_saying_so() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for (field, body) in [
        ("command", r#"{"command":"id \ud800"}"#),
        ("args", r#"{"command":"echo","args":["\udfff"]}"#),
        ("env", r#"{"command":"env","env":{"A":"\ud800x"}}"#),
    ] {
        let path = runtime.exec_path();
        let reply = api().post_bytes(&path, "application/json", body.as_bytes());
        assert_invalid(&reply, field);
        assert!(reply.text().contains("surrogate"), "{}", reply.text());
    }
}

#[test]
fn what_the_kernel_cannot_take_is_422_naming_its_field() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let one = json!({"command": "true", "args": ["x".repeat(128 * 1024)]});
    assert_invalid(&runtime.try_exec(&one), "args");
    let many = vec!["x".repeat(100_000); 64];
    assert_invalid(
        &runtime.try_exec(&json!({"command": "true", "args": many})),
        "args",
    );
    let env: serde_json::Map<String, Value> = (0..1000)
        .map(|n| (format!("V{n}"), json!("v".repeat(8000))))
        .collect();
    assert_invalid(
        &runtime.try_exec(&json!({"command": "true", "env": env})),
        "env",
    );
    let command = json!({"command": "x".repeat(200_000)});
    let reply = runtime.try_exec(&command);
    assert_eq!(reply.status, 422, "{}", reply.text());
}

#[test]
fn unknown_runtimes_are_404_saying_so() {
    needs!(Root);
    let _turn = together();
    for name in ["no-such-runtime", "0198f3c2-7b5e-7cc3-98d5-1f2a3b4c5d6e"] {
        let reply = api().post(
            &format!("/v1/runtimes/{name}/exec"),
            &json!({"command": "true"}),
        );
        assert_error(&reply, 404, "not_found");
        let message = reply.json()["error"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            message.contains("was not found") && message.contains(name),
            "{message}"
        );
    }
}

#[test]
fn a_refused_exec_runs_nothing() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let reply = runtime.try_exec(&json!({
        "command": "sh", "args": ["-c", "touch /root/ran"], "no_such_field": 1,
    }));
    assert_error(&reply, 422, "invalid_argument");
    runtime.sh("ls /root/ran").assert_failed();
}
