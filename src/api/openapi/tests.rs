//! Whether the description is complete, and the one that is checked in is up to date.

use super::{conventions, description, json};
use crate::api::routes;
use crate::api::test_support::Api;
use std::collections::{BTreeMap, BTreeSet};

/// Where HEAD is described.
const HEADS: [&str; 2] = ["/healthz", "/v1/runtimes/{runtime}/files"];

/// Methods by path.
type Table = BTreeMap<String, BTreeSet<String>>;

#[test]
fn the_checked_in_description_is_up_to_date() {
    assert!(
        json() == include_str!("../../../openapi.json"),
        "openapi.json is out of date: cargo run -- openapi > openapi.json"
    );
}

/// What the router itself says, which names all methods of a path when it refuses another one.
fn routed() -> Table {
    let api = Api::start();
    let methods = |path: &&str| {
        let answer = api.call("UNKNOWN", path, "");
        if routes::NOT_HERE.contains(path) {
            // Every method; one of them stands for all in the description.
            let below = api.call("UNKNOWN", &format!("{path}/some/thing"), "");
            assert_eq!((answer.status, below.status), (501, 501), "{path}");
            return (path.to_string(), BTreeSet::from(["GET".to_owned()]));
        }
        assert_eq!(answer.status, 405, "{path}");
        let allowed = answer.header("allow").unwrap_or_default();
        let mut methods: BTreeSet<String> = allowed.split(',').map(str::to_owned).collect();
        if methods.contains("GET") {
            // Any GET has it; where it is of use by itself it is described.
            assert!(methods.contains("HEAD"), "{path}");
            if !HEADS.contains(path) {
                methods.remove("HEAD");
            }
        }
        (path.to_string(), methods)
    };
    routes::table().paths.iter().map(methods).collect()
}

fn described() -> Table {
    let description = serde_json::to_value(description()).unwrap();
    let paths = description["paths"].as_object().unwrap();
    let methods = |(path, item): (&String, &serde_json::Value)| {
        let methods = item.as_object().unwrap().keys();
        (path.clone(), methods.map(|m| m.to_uppercase()).collect())
    };
    paths.iter().map(methods).collect()
}

#[test]
fn the_description_and_the_router_know_the_same_operations() {
    assert_eq!(described(), routed());
}

#[test]
fn every_operation_says_how_it_can_fail_and_is_named_once() {
    let mut description = description();
    let mut names = BTreeSet::new();
    for (path, item) in &mut description.paths.paths {
        for operation in conventions::operations(item) {
            let name = operation.operation_id.clone().unwrap_or_default();
            assert!(operation.summary.is_some(), "{path} {name}");
            assert_eq!(
                operation.security.is_some(),
                operation.responses.responses.contains_key("401"),
                "{path} {name}"
            );
            assert!(names.insert(name.clone()), "{name} is there twice");
        }
    }
    assert!(names.len() > 20);
}
