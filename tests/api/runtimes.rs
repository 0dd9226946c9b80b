//! The life of the API's objects: create, get, list, delete.

use crate::needs;
use crate::support::client::is_uuid_v7;
use crate::support::{
    Runtime, alone, api, assert_error, assert_invalid, runtime, runtime_with, together,
};
use serde_json::{Value, json};

/// Whether a value is as the contract says.
type Fits = fn(&Value) -> bool;

fn list(query: &str) -> Value {
    let reply = api().get(&format!("/v1/runtimes{query}"));
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn ids(list: &Value) -> Vec<String> {
    let data = list["data"].as_array().expect("a list");
    data.iter()
        .map(|item| item["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[test]
fn a_created_runtime_can_run_at_once() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    assert_eq!(runtime.object["status"], "running");
    runtime.sh("echo hi").assert_stdout("hi\n");
}

#[test]
fn the_object_has_every_field_that_clients_parse() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let object = &runtime.object;
    let kinds: &[(&str, Fits)] = &[
        ("/id", |v| v.as_str().is_some_and(is_uuid_v7)),
        ("/display_name", Value::is_string),
        ("/status", Value::is_string),
        ("/created_at", is_rfc3339),
        ("/updated_at", is_rfc3339),
        ("/resources/requests/memory_mib", Value::is_u64),
        ("/resources/requests/vcpus", Value::is_number),
        ("/resources/limits/memory_mib", Value::is_u64),
        ("/resources/current/memory_mib", Value::is_u64),
        ("/environment_variables", Value::is_object),
        ("/ingress_specs", Value::is_array),
        ("/egress_policy/mode", Value::is_string),
        ("/egress_policy/allowed_hosts", Value::is_array),
        ("/egress_policy/denied_hosts", Value::is_array),
        ("/egress_policy/enabled", Value::is_boolean),
        ("/egress_policy/intercept_enabled", Value::is_boolean),
        ("/ssh_enabled", |v| *v == json!(false)),
        ("/llm_tool_io_capture_enabled", Value::is_boolean),
        (
            "/llm_token_saving_policy/json_array_enabled",
            Value::is_boolean,
        ),
        ("/llm_token_saving_policy/log_enabled", Value::is_boolean),
        (
            "/llm_token_saving_policy/search_results_enabled",
            Value::is_boolean,
        ),
        (
            "/llm_token_saving_policy/git_diff_enabled",
            Value::is_boolean,
        ),
        ("/vcpus", Value::is_number),
        ("/min_memory_mib", Value::is_u64),
        ("/cur_memory_mib", Value::is_u64),
        ("/max_memory_mib", Value::is_u64),
        ("/arch", |v| *v == json!("x86_64") || *v == json!("aarch64")),
        ("/image", |v| *v == json!("host")),
        ("/profile", |v| *v == json!("default")),
        ("/filesystem", |v| *v == json!("persistent")),
        ("/network", |v| *v == json!("none")),
        ("/limits", Value::is_object),
    ];
    for (pointer, fits) in kinds {
        let value = object.pointer(pointer);
        assert!(
            value.is_some_and(fits),
            "{pointer} is {value:?} in {object:#}"
        );
    }
    assert!(
        object.get("idle_policy").is_some(),
        "no idle_policy in {object:#}"
    );
    assert_eq!(
        object["resources"]["requests"],
        json!({"memory_mib": 1024, "vcpus": 1})
    );
}

fn is_rfc3339(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() >= 20 && text.as_bytes()[10] == b'T' && text.ends_with('Z')
}

#[test]
fn get_finds_it_by_id_and_by_name() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({"name": "Found.by_name-1"}));
    let by_id = api().get(&format!("/v1/runtimes/{}", runtime.id)).data(200);
    let by_name = api().get("/v1/runtimes/Found.by_name-1").data(200);
    assert_eq!(by_id, by_name);
    assert_eq!(by_id["id"], runtime.id);
    assert_eq!(by_id["display_name"], "Found.by_name-1");
    let upper = api().get(&format!("/v1/runtimes/{}", runtime.id.to_uppercase()));
    assert_eq!(
        upper.data(200)["id"],
        runtime.id,
        "a UUID is the same in capitals"
    );
}

#[test]
fn unknown_runtimes_are_404_on_every_route() {
    needs!(Root);
    let _turn = together();
    let unknown = [
        "no-such-runtime",
        "0198f3c2-7b5e-7cc3-98d5-1f2a3b4c5d6e",
        "..",
        "%2e%2e%2f",
        "%00",
    ];
    for name in unknown {
        let path = format!("/v1/runtimes/{name}");
        for reply in [api().get(&path), api().delete(&path)] {
            assert_error(&reply, 404, "not_found");
        }
        let reply = api().post(&format!("{path}/exec"), &json!({"command": "true"}));
        assert_error(&reply, 404, "not_found");
        let known = !name.contains('.') && !name.contains('%');
        assert!(
            !known || reply.text().contains("was not found"),
            "{}",
            reply.text()
        );
    }
}

#[test]
fn a_name_is_taken_once_and_free_after_delete() {
    needs!(Root);
    let _turn = together();
    let first = runtime_with(json!({"name": "taken-once"}));
    let reply = api().post("/v1/runtimes", &json!({"name": "taken-once"}));
    assert_error(&reply, 409, "already_exists");
    let path = "/v1/runtimes/taken-once";
    assert_eq!(api().delete(path).data(200), json!({}));
    assert_error(&api().delete(path), 404, "not_found");
    assert_error(
        &api().get(&format!("/v1/runtimes/{}", first.id)),
        404,
        "not_found",
    );
    let second = runtime_with(json!({"name": "taken-once"}));
    assert_ne!(first.id, second.id);
}

#[test]
fn one_name_asked_for_by_many_at_once_is_given_once() {
    needs!(Root);
    let _turn = together();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let create = || {
            api()
                .post("/v1/runtimes", &json!({"name": "raced-for"}))
                .status
        };
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(create)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        1,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == 409).count(),
        5,
        "{statuses:?}"
    );
    api().delete("/v1/runtimes/raced-for").data(200);
}

#[test]
fn absent_names_are_made_up_and_differ() {
    needs!(Root);
    let _turn = together();
    let (first, second) = (runtime(), runtime());
    assert_ne!(first.name, second.name);
    assert!(
        !first.name.is_empty() && first.name.len() <= 63,
        "{}",
        first.name
    );
}

#[test]
fn a_deleted_runtime_loses_its_running_commands() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let reply = std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| runtime.try_exec(&json!({"command": "sleep", "args": ["60"]})));
        runtime.while_sleeping(|_| {
            api()
                .delete(&format!("/v1/runtimes/{}", runtime.id))
                .data(200)
        });
        waiting.join().expect("no panic")
    });
    // Killed with its runtime, or too late to start: either way an answer, and no made-up success.
    match reply.status {
        200 => assert_ne!(reply.json()["data"]["exit_code"], 0, "{}", reply.text()),
        status => assert!(matches!(status, 404 | 409 | 503), "{}", reply.text()),
    }
    assert_error(
        &runtime.try_exec(&json!({"command": "true"})),
        404,
        "not_found",
    );
}

#[test]
fn a_runtime_that_failed_to_be_created_leaves_nothing() {
    needs!(Root);
    let _turn = alone();
    let on_disk = || {
        std::fs::read_dir(crate::support::server().data_dir().join("runtimes"))
            .map_or(0, |d| d.count())
    };
    let before = (ids(&list("")), on_disk());
    for body in [
        json!({"name": "half-made", "image": "no-such-image"}),
        json!({"name": "half-made", "profile": "no-such-profile"}),
        json!({"name": "half-made", "limits": {"disk_mib": 1_000_000_000}}),
    ] {
        let reply = api().post("/v1/runtimes", &body);
        assert_error(&reply, 422, "invalid_argument");
        assert_error(&api().get("/v1/runtimes/half-made"), 404, "not_found");
    }
    assert_eq!((ids(&list("")), on_disk()), before);
}

#[test]
fn paging_carries_six_keys_and_walks_everything() {
    needs!(Root);
    let _turn = alone();
    let runtimes: Vec<Runtime> = (0..5).map(|_| runtime()).collect();
    let all = list("");
    let everything = ids(&all);
    assert!(
        runtimes
            .iter()
            .all(|runtime| everything.contains(&runtime.id)),
        "{everything:?}"
    );
    let pagination = all["pagination"].as_object().expect("pagination");
    let mut keys: Vec<&str> = pagination.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "has_more",
            "limit",
            "next_cursor",
            "next_offset",
            "offset",
            "total"
        ]
    );
    assert_eq!(all["pagination"]["has_more"], false);
    assert_eq!(all["pagination"]["total"], everything.len());
    assert!(
        all["pagination"]["next_cursor"].is_null() && all["pagination"]["next_offset"].is_null()
    );

    let (mut by_cursor, mut query) = (Vec::new(), "?limit=2".to_owned());
    while by_cursor.len() <= everything.len() {
        let page = list(&query);
        by_cursor.extend(ids(&page));
        assert_eq!(page["pagination"]["limit"], 2);
        let more = page["pagination"]["has_more"] == true;
        assert_eq!(
            more,
            page["pagination"]["next_cursor"].is_string(),
            "{}",
            page["pagination"]
        );
        match page["pagination"]["next_cursor"].as_str() {
            Some(cursor) => query = format!("?limit=2&after={cursor}"),
            None => break,
        }
    }
    assert_eq!(by_cursor, everything);

    let (mut by_offset, mut offset) = (Vec::new(), 0);
    while by_offset.len() <= everything.len() {
        let page = list(&format!("?limit=2&offset={offset}"));
        by_offset.extend(ids(&page));
        assert_eq!(page["pagination"]["offset"], offset);
        match page["pagination"]["next_offset"].as_u64() {
            Some(next) => offset = next,
            None => break,
        }
    }
    assert_eq!(by_offset, everything);

    let beyond = list("?limit=1&offset=100000");
    assert_eq!(ids(&beyond), [""; 0]);
    let expected = json!({
        "next_cursor": null, "has_more": false, "limit": 1, "offset": 100_000, "total": everything.len(),
        "next_offset": null,
    });
    assert_eq!(beyond["pagination"], expected);
}

#[test]
fn bad_paging_is_422_naming_the_parameter() {
    needs!(Root);
    let _turn = together();
    for limit in ["0", "101", "-1", "x", "1.5", "99999999999999999999"] {
        assert_invalid(&api().get(&format!("/v1/runtimes?limit={limit}")), "limit");
    }
    assert_invalid(&api().get("/v1/runtimes?limit=1&offset=-1"), "offset");
    assert_invalid(
        &api().get("/v1/runtimes?limit=1&after=not-a-cursor"),
        "after",
    );
}

#[test]
fn the_list_is_filtered_by_status() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for query in [
        "?status=running",
        "?status=active",
        "?status=paused,running",
    ] {
        assert!(ids(&list(query)).contains(&runtime.id), "{query}");
    }
    for query in [
        "?status=stopped",
        "?status=shutdown",
        "?status=paused,error",
    ] {
        assert!(!ids(&list(query)).contains(&runtime.id), "{query}");
    }
}
