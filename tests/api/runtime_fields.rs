//! The create body: what is taken, in three dialects, and what is refused by name.

use crate::needs;
use crate::support::{api, assert_invalid, runtime_with, together};
use serde_json::{Value, json};

fn refused(body: Value, field: &str) {
    let reply = api().post("/v1/runtimes", &body);
    if reply.status == 200 {
        let id = reply.json()["data"]["id"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        api().delete(&format!("/v1/runtimes/{id}"));
        panic!("{body} was taken: {}", reply.text());
    }
    assert_invalid(&reply, field);
}

#[test]
fn bad_names_are_422() {
    needs!(Root);
    let _turn = together();
    let long = "a".repeat(64);
    let bad = [
        "",
        " ",
        "-a",
        ".a",
        "_a",
        "a b",
        "a/b",
        "../a",
        "a\n",
        "a\0",
        "\u{e9}",
        "a:b",
        &long,
        "0198f3c2-7b5e-7cc3-98d5-1f2a3b4c5d6e",
        "0198F3C2-7B5E-7CC3-98D5-1F2A3B4C5D6E",
    ];
    for name in bad {
        refused(json!({"name": name}), "name");
    }
    for name in [json!(3), json!(["a"]), json!({"a": 1}), json!(true)] {
        refused(json!({"name": name}), "name");
    }
}

#[test]
fn the_longest_name_is_taken() {
    needs!(Root);
    let _turn = together();
    let name = format!("Z{}", "9".repeat(62));
    assert_eq!(runtime_with(json!({"name": name})).name, name);
}

#[test]
fn null_means_absent() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({
        "name": null, "resources": null, "environment_variables": null, "image": null,
        "profile": null, "filesystem": null, "limits": null, "network": null,
        "egress_policy": null, "idle_policy": null, "ingress_specs": null, "checkpoint_id": null,
    }));
    assert_eq!(runtime.object["profile"], "default");
}

#[test]
fn impossible_sizes_are_422_at_once() {
    needs!(Root);
    let _turn = together();
    for memory in [
        json!(0),
        json!(15),
        json!(-1),
        json!(1u64 << 40),
        json!("1024"),
        json!(64.5),
    ] {
        refused(
            json!({"resources": {"requests": {"memory_mib": memory}}}),
            "memory_mib",
        );
        refused(
            json!({"resources": {"limits": {"memory_mib": memory}}}),
            "memory_mib",
        );
    }
    refused(json!({"max_memory_mib": 1}), "memory_mib");
    for vcpus in [json!(0), json!(-1), json!(1_000_000), json!("2")] {
        refused(
            json!({"resources": {"requests": {"vcpus": vcpus}}}),
            "vcpus",
        );
        refused(json!({"vcpus": vcpus}), "vcpus");
    }
    for value in [
        json!(0),
        json!(-1),
        json!("x"),
        json!(1u64 << 60),
        json!(1.5),
    ] {
        refused(json!({"limits": {"pids": value}}), "pids");
        refused(json!({"limits": {"disk_mib": value}}), "disk_mib");
    }
    refused(json!({"limits": 3}), "limits");
    refused(json!({"resources": []}), "resources");
}

#[test]
fn the_smallest_memory_runs_a_command() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({"resources": {"limits": {"memory_mib": 16}}}));
    assert_eq!(runtime.object["resources"]["limits"]["memory_mib"], 16);
    runtime.sh("echo small").assert_stdout("small\n");
}

#[test]
fn bad_variables_are_422() {
    needs!(Root);
    let _turn = together();
    let long_name = "A".repeat(129);
    let long_value = "v".repeat(8193);
    let bad = [
        json!({"": "x"}),
        json!({"1A": "x"}),
        json!({"A-B": "x"}),
        json!({"A B": "x"}),
        json!({"A=B": "x"}),
        json!({"\u{c4}": "x"}),
        json!({long_name: "x"}),
        json!({"A": "a\0b"}),
        json!({"A": "a\nb"}),
        json!({"A": "a\rb"}),
        json!({"A": long_value}),
        json!({"A": 3}),
        json!({"A": null}),
        json!(["A=x"]),
        json!("A=x"),
    ];
    for variables in bad {
        refused(
            json!({"environment_variables": variables}),
            "environment_variables",
        );
    }
    let many: serde_json::Map<String, Value> = (0..9)
        .map(|n| (format!("V{n}"), json!("v".repeat(8192))))
        .collect();
    refused(
        json!({"environment_variables": many}),
        "environment_variables",
    );
}

#[test]
fn the_largest_variables_reach_the_command() {
    needs!(Root);
    let _turn = together();
    let name = "N".repeat(128);
    let value = "v".repeat(8192);
    let runtime = runtime_with(json!({"environment_variables": {name.clone(): value, "B": ""}}));
    assert_eq!(runtime.object["environment_variables"]["B"], "");
    runtime
        .sh(&format!(
            "printf %s \"${name}\" | wc -c; echo \"[${{B-unset}}]\""
        ))
        .assert_stdout("8192\n[]\n");
}

#[test]
fn unknown_images_profiles_filesystems_and_networks_are_422() {
    needs!(Root);
    let _turn = together();
    for (field, values) in [
        (
            "image",
            vec![
                json!("no-such"),
                json!("../host"),
                json!(""),
                json!("/"),
                json!(1),
            ],
        ),
        (
            "profile",
            vec![json!("no-such"), json!("../default"), json!(""), json!(1)],
        ),
        (
            "filesystem",
            vec![json!("rw"), json!("Persistent"), json!(""), json!(1)],
        ),
        (
            "network",
            vec![json!("host"), json!("bridge"), json!(""), json!(1)],
        ),
    ] {
        for value in values {
            refused(json!({field: value}), field);
        }
    }
    let reply = api().post("/v1/runtimes", &json!({"filesystem": "rw"}));
    let text = reply.text();
    assert!(
        text.contains("ephemeral") && text.contains("read_only"),
        "allowed ones in {text}"
    );
}

#[test]
fn both_old_dialects_and_unknown_fields_are_taken() {
    needs!(Root);
    let _turn = together();
    let old = runtime_with(json!({
        "vcpus": 1, "cur_memory_mib": 256, "min_memory_mib": 128, "max_memory_mib": 512,
        "idle_suspend_after_secs": 60, "arch": "x86_64", "no_such_field": {"x": 1},
        "egress_policy": {"enabled": true, "allowed_hosts": ["a.test"]},
    }));
    assert_eq!(old.object["max_memory_mib"], 512);
    assert_eq!(old.object["resources"]["limits"]["memory_mib"], 512);
    assert_eq!(
        old.object["egress_policy"]["allowed_hosts"],
        json!(["a.test"])
    );
    assert_eq!(
        old.object["network"], "none",
        "an echoed policy pretends nothing"
    );
    let older = runtime_with(json!({
        "egress_policy": {"intercept_enabled": true, "allowed_hosts": ["b.test"]},
    }));
    assert_eq!(older.object["egress_policy"]["intercept_enabled"], true);
    let new = runtime_with(json!({
        "resources": {"requests": {"memory_mib": 128, "vcpus": 1}, "limits": {"memory_mib": 256}},
        "egress_policy": {"mode": "allowlist", "allowed_hosts": ["c.test"]},
        "idle_policy": {"mode": "suspend_only", "suspend_after_secs": 60}, "ingress_specs": [],
        "llm_tool_io_capture_enabled": false,
    }));
    assert_eq!(
        new.object["resources"]["requests"],
        json!({"memory_mib": 128, "vcpus": 1})
    );
    assert_eq!(new.object["resources"]["limits"]["memory_mib"], 256);
}

#[test]
fn requested_memory_is_the_limit_where_no_other_is_given() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({"resources": {"requests": {"memory_mib": 64, "vcpus": 1}}}));
    runtime
        .sh("head -c 256M /dev/zero | tail")
        .assert_oom_killed();
}
