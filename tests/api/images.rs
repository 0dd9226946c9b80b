//! The list of images, which only the warden can read.

use crate::needs;
use crate::support::mounts::TestDir;
use crate::support::server::{Options, Server, run};
use crate::support::{Reply, api, assert_invalid, image, together};
use serde_json::json;
use std::fs;

fn names(reply: &Reply) -> Vec<String> {
    let images = reply.data(200);
    let images = images.as_array().expect("a list");
    let name = |image: &serde_json::Value| image["name"].as_str().expect("a name").to_owned();
    images.iter().map(name).collect()
}

/// What the operator is told on the command line.
fn listed(server: &Server) -> Vec<String> {
    let data = server.data_dir();
    let output = run(
        &["image", "ls", "--quiet"],
        &[("CELLBLOCK_DATA_DIR", &data)],
    );
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_images_are_those_of_the_command_line_however_many() {
    needs!(Root);
    let _turn = together();
    let server = Server::start(Options::default());
    let first = server.api.get("/v1/images");
    assert_eq!(names(&first), ["host"]);
    assert_eq!(
        first.json()["pagination"],
        json!({
            "next_cursor": null, "has_more": false, "limit": 1, "offset": 0, "total": 1,
            "next_offset": null,
        })
    );

    // More than fit one message of the warden's; seen without a restart. The longest names come first.
    let dir = TestDir::new();
    fs::create_dir(dir.path().join("rootfs")).expect("make a rootfs");
    for number in 0..70 {
        let name = format!("{number:02}{}", ".long-name".repeat(6));
        image::add(&server, &name, &dir.path().join("rootfs")).expect("add the image");
    }
    // Nothing that `image add` makes.
    fs::write(server.data_dir().join("images/no image.json"), "{}").expect("write a stray file");
    let all = names(&server.api.get("/v1/images"));
    assert_eq!(all.len(), 71);
    assert_eq!(all, listed(&server));

    let mut by_cursor: Vec<String> = Vec::new();
    let mut query = "limit=30".to_owned();
    loop {
        let reply = server.api.get(&format!("/v1/images?{query}"));
        let page = names(&reply);
        let pagination = &reply.json()["pagination"];
        assert_eq!(pagination["offset"], by_cursor.len());
        assert_eq!(
            (&pagination["total"], &pagination["limit"]),
            (&json!(71), &json!(30))
        );
        let offset = server
            .api
            .get(&format!("/v1/images?limit=30&offset={}", by_cursor.len()));
        assert_eq!(names(&offset), page);
        by_cursor.extend(page);
        assert_eq!(pagination["has_more"], by_cursor.len() < 71);
        match pagination["next_cursor"].as_str() {
            Some(cursor) => query = format!("limit=30&after={cursor}"),
            None => break,
        }
        assert_eq!(pagination["next_offset"], by_cursor.len());
    }
    assert_eq!(by_cursor, all);
}

#[test]
fn wrong_pages_name_their_parameter() {
    needs!(Root);
    let _turn = together();
    assert_invalid(&api().get("/v1/images?limit=0"), "limit");
    assert_invalid(&api().get("/v1/images?limit=101"), "limit");
    assert_invalid(&api().get("/v1/images?offset=-1"), "offset");
    assert_invalid(&api().get("/v1/images?after=nonsense"), "after");
}
