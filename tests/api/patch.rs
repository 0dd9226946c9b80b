//! PATCH: what each client sends, all or nothing, at once.

use crate::needs;
use crate::support::{
    Reply, Runtime, api, assert_error, assert_invalid, bound, eventually, procs, runtime,
    runtime_with, together,
};
use serde_json::{Value, json};

fn patch(runtime: &Runtime, body: &Value) -> Reply {
    let path = format!("/v1/runtimes/{}", runtime.id);
    let headers = [("Content-Type", "application/json")];
    api().send("PATCH", &path, &headers, Some(body.to_string().as_bytes()))
}

fn object(runtime: &Runtime) -> Value {
    api().get(&format!("/v1/runtimes/{}", runtime.id)).data(200)
}

#[test]
fn a_rename_frees_the_old_name_and_keeps_the_runtime() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({"name": "before-rename"}));
    runtime.sh("echo kept > /root/file").assert_code(0);
    let patched = patch(&runtime, &json!({"display_name": "after-rename"})).data(200);
    assert_eq!(patched["display_name"], "after-rename");
    assert_eq!(patched["id"], runtime.id);
    assert_eq!(api().get("/v1/runtimes/after-rename").data(200), patched);
    assert_error(&api().get("/v1/runtimes/before-rename"), 404, "not_found");
    runtime
        .sh("cat /root/file; hostname")
        .assert_stdout("kept\nafter-rename\n");
    let second = runtime_with(json!({"name": "before-rename"}));
    let taken = patch(&second, &json!({"display_name": "after-rename"}));
    assert_error(&taken, 409, "already_exists");
    assert_eq!(object(&second)["display_name"], "before-rename");
    patch(&second, &json!({"display_name": "before-rename"})).data(200);
    for name in ["", "a b", "-x", "0198f3c2-7b5e-7cc3-98d5-1f2a3b4c5d6e"] {
        assert_invalid(&patch(&runtime, &json!({"display_name": name})), "name");
    }
}

#[test]
fn one_name_wished_for_by_many_at_once_is_given_once() {
    needs!(Root);
    let _turn = together();
    let runtimes: Vec<Runtime> = (0..4).map(|_| runtime()).collect();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = runtimes
            .iter()
            .map(|one| scope.spawn(|| patch(one, &json!({"name": "wished-for"})).status))
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().expect("no panic"))
            .collect()
    });
    assert_eq!(
        statuses.iter().filter(|s| **s == 200).count(),
        1,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|s| **s == 409).count(),
        3,
        "{statuses:?}"
    );
}

#[test]
fn what_each_client_sends_is_understood() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({"resources": {"requests": {"memory_mib": 256}}}));
    // 0.1.21
    let body =
        json!({"resources": {"limits": {"memory_mib": 512}, "requests": {"memory_mib": 384}}});
    let patched = patch(&runtime, &body).data(200);
    assert_eq!(patched["resources"]["limits"]["memory_mib"], 512);
    assert_eq!(patched["resources"]["requests"]["memory_mib"], 384);
    assert_eq!(
        (&patched["cur_memory_mib"], &patched["max_memory_mib"]),
        (&json!(384), &json!(512))
    );
    let policy = json!({"mode": "denylist", "allowed_hosts": [], "denied_hosts": ["a.example"]});
    let patched = patch(&runtime, &json!({"egress_policy": policy})).data(200);
    assert_eq!(patched["egress_policy"]["mode"], "denylist");
    assert_eq!(
        patched["egress_policy"]["denied_hosts"],
        json!(["a.example"])
    );
    assert_eq!(patched["network"], "none");
    // 0.1.4
    let patched = patch(
        &runtime,
        &json!({"egress_policy": {"enabled": false, "allowed_hosts": ["b"]}}),
    );
    let policy = patched.data(200)["egress_policy"].clone();
    assert_eq!(
        (&policy["enabled"], &policy["allowed_hosts"]),
        (&json!(false), &json!(["b"]))
    );
    // 0.0.7
    let body = json!({"cur_memory_mib": 300, "min_memory_mib": 200, "max_memory_mib": 600});
    let patched = patch(&runtime, &body).data(200);
    assert_eq!(patched["resources"]["limits"]["memory_mib"], 600);
    assert_eq!(patched["min_memory_mib"], 200);
    // None of it touched the rest, and unknown fields are nothing.
    let before = object(&runtime);
    for body in [
        json!({}),
        json!({"later": {"a": [1]}}),
        json!({"resources": {}}),
        json!({"resources": null}),
    ] {
        let after = patch(&runtime, &body).data(200);
        assert_eq!(after, before, "{body}");
    }
}

#[test]
fn settings_are_replaced_as_sent() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({
        "environment_variables": {"A": "1", "B": "2"},
        "llm_token_saving_policy": {"log_enabled": true},
    }));
    let body = json!({
        "environment_variables": {"A": "3"},
        "ingress_specs": [{"protocol": "http", "runtime_port": 80}],
        "idle_policy": {"mode": "suspend_only", "suspend_after_secs": 9},
        "llm_tool_io_capture_enabled": true,
        "llm_token_saving_policy": {"git_diff_enabled": true},
        "limits": {"pids": 77},
        "resources": {"requests": {"vcpus": 2}},
    });
    let patched = patch(&runtime, &body).data(200);
    for (pointer, value) in [
        ("/environment_variables", json!({"A": "3"})),
        (
            "/ingress_specs",
            json!([{"protocol": "http", "runtime_port": 80}]),
        ),
        (
            "/idle_policy",
            json!({"mode": "suspend_only", "suspend_after_secs": 9}),
        ),
        ("/llm_tool_io_capture_enabled", json!(true)),
        ("/llm_token_saving_policy/git_diff_enabled", json!(true)),
        ("/llm_token_saving_policy/log_enabled", json!(true)),
        ("/limits/pids", json!(77)),
        ("/vcpus", json!(2)),
    ] {
        assert_eq!(patched.pointer(pointer), Some(&value), "{pointer}");
    }
    assert_ne!(patched["updated_at"], patched["created_at"]);
    runtime.sh("echo $A-$B").assert_stdout("3-\n");
    patch(&runtime, &json!({"environment_variables": {}})).data(200);
    runtime.sh("echo $A-$B").assert_stdout("-\n");
}

#[test]
fn what_is_wrong_changes_nothing() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({"resources": {"limits": {"memory_mib": 512}}}));
    let before = object(&runtime);
    let limits = |mib: u64| json!({"resources": {"limits": {"memory_mib": mib}}});
    for (body, field) in [
        (limits(1), "resources.limits.memory_mib"),
        (limits(999_999_999), "resources.limits.memory_mib"),
        (
            json!({"resources": {"requests": {"memory_mib": 513}}}),
            "resources.requests.memory_mib",
        ),
        (
            json!({"resources": {"requests": {"vcpus": 0}}}),
            "resources.requests.vcpus",
        ),
        (json!({"resources": []}), "resources"),
        (
            json!({"environment_variables": {"1A": ""}}),
            "environment_variables",
        ),
        (
            json!({"egress_policy": {"mode": "maybe"}}),
            "egress_policy.mode",
        ),
        (
            json!({"ingress_specs": [{"protocol": "x"}]}),
            "ingress_specs[0].protocol",
        ),
        (json!({"limits": {"pids": 0}}), "limits.pids"),
        (json!({"limits": {"disk_mib": 16}}), "limits.disk_mib"),
        (json!({"image": "other"}), "image"),
        (json!({"profile": "strict"}), "profile"),
        (json!({"filesystem": "ephemeral"}), "filesystem"),
        (json!({"network": "host"}), "network"),
        (
            json!({"name": "good-name", "limits": {"pids": 0}}),
            "limits.pids",
        ),
    ] {
        assert_invalid(&patch(&runtime, &body), field);
        assert_eq!(object(&runtime), before, "{body}");
    }
    assert_error(&api().get("/v1/runtimes/good-name"), 404, "not_found");
    let path = format!("/v1/runtimes/{}", runtime.id);
    let none = api().send("PATCH", &path, &[], None);
    assert_error(&none, 400, "invalid_argument");
    let unknown = api().send("PATCH", "/v1/runtimes/no-such", &[], Some(b"{}"));
    assert_error(&unknown, 404, "not_found");
}

#[test]
fn a_stopped_and_a_paused_runtime_can_be_changed() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for (operation, back) in [("stop", "start"), ("pause", "resume")] {
        let post = |operation: &str| {
            let path = format!("/v1/runtimes/{}/{operation}", runtime.id);
            api().send("POST", &path, &[], None).data(200)["status"].clone()
        };
        let status = post(operation);
        let patched = patch(
            &runtime,
            &json!({"environment_variables": {"AT": operation}}),
        )
        .data(200);
        assert_eq!(patched["status"], status);
        assert_eq!(post(back), "running");
        runtime
            .sh("echo $AT")
            .assert_stdout(&format!("{operation}\n"));
    }
}

/// Touches so many MiB when it gets a line, says so, and ends at the next one.
const HOG: &str = "import sys, os
sys.stdin = open('/root/fifo')
for line in sys.stdin:
    if line.strip() == 'end': break
    held = bytearray(int(line) << 20)
    open('/root/said', 'w').write(line)
";

#[test]
fn more_memory_is_there_at_once_for_what_runs_already() {
    needs!(Root, Python);
    let _turn = together();
    let runtime = runtime_with(json!({"resources": {"limits": {"memory_mib": 64}}}));
    runtime.sh("mkfifo /root/fifo").assert_code(0);
    let body = json!({"command": "/usr/bin/python3", "args": ["-c", HOG]});
    let tell = |line: &str| {
        let line = format!(
            "rm -f /root/said; timeout 20 sh -c 'echo {line} > /root/fifo'; \
                            i=0; until [ -e /root/said ] || [ $i -ge 200 ]; do sleep 0.05; i=$((i+1)); done; cat /root/said"
        );
        runtime.sh(&line)
    };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.exec(&body));
        assert!(eventually(bound(10_000), || !procs::with_arg(HOG).is_empty()));
        patch(
            &runtime,
            &json!({"resources": {"limits": {"memory_mib": 512}}}),
        )
        .data(200);
        // The writer holds the only other end of the FIFO: one line, then its end.
        tell("200").assert_stdout("200\n");
        let ended = waiting.join().expect("no panic");
        ended.assert_code(0);
    });
    runtime
        .python("held = bytearray(200 << 20); print('ok')")
        .assert_stdout("ok\n");
}

#[test]
fn less_memory_than_is_in_use_is_refused_and_kills_nothing() {
    needs!(Root, Python);
    let _turn = together();
    let runtime = runtime_with(json!({"resources": {"limits": {"memory_mib": 512}}}));
    let marker = procs::marker();
    let code = format!(
        "import time; held = bytearray(200 << 20); open('/root/said', 'w').close(); time.sleep(8) # {marker}"
    );
    let body = json!({"command": "/usr/bin/python3", "args": ["-c", code]});
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.exec(&body));
        runtime.sh("i=0; until [ -e /root/said ] || [ $i -ge 400 ]; do sleep 0.05; i=$((i+1)); done; [ -e /root/said ]").assert_code(0);
        let reply = patch(
            &runtime,
            &json!({"resources": {"limits": {"memory_mib": 64}, "requests": {"memory_mib": 64}}}),
        );
        assert_error(&reply, 409, "failed_precondition");
        assert_eq!(object(&runtime)["resources"]["limits"]["memory_mib"], 512);
        waiting.join().expect("no panic").assert_code(0);
    });
    let lower =
        json!({"resources": {"limits": {"memory_mib": 64}, "requests": {"memory_mib": 64}}});
    patch(&runtime, &lower).data(200);
    runtime
        .python("held = bytearray(200 << 20)")
        .assert_oom_killed();
}

#[test]
fn fewer_processes_and_cpus_hold_at_once() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({"resources": {"requests": {"vcpus": 2}}}));
    let marker = procs::marker();
    let line = format!(
        "i=0; until [ -e /root/go ] || [ $i -ge 400 ]; do sleep 0.05; i=$((i+1)); done; \
                        for i in 1 2 3 4 5 6 7 8 9; do sleep 0.5 & done; wait # {marker}"
    );
    let body = json!({"command": "sh", "args": ["-c", line]});
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.exec(&body));
        assert!(eventually(bound(10_000), || !procs::with_arg(&line).is_empty()));
        patch(
            &runtime,
            &json!({"limits": {"pids": 6}, "resources": {"requests": {"vcpus": 1}}}),
        )
        .data(200);
        runtime.sh("touch /root/go").assert_code(0);
        let ended = waiting.join().expect("no panic");
        assert!(
            ended.stderr().contains("fork") || ended.code() != 0,
            "{ended:?}"
        );
    });
}
