//! What an image says of its commands: their environment, who they are, where they begin.

use crate::needs;
use crate::support::{Runtime, api, assert_invalid, files, server, store, together};
use cellblock::image::content::ImageConfig;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;

/// A runtime of an image with this configuration, above a layer with homes in it.
fn runtime_of(name: &str, config: &ImageConfig, body: Value) -> Runtime {
    let homes = store::layer(server(), "homes", |tree| {
        for (path, owner) in [("home/app", 33), ("srv/work", 0)] {
            fs::create_dir_all(tree.join(path)).expect("make a directory");
            chown(tree.join(path), Some(owner), Some(owner)).expect("chown it");
        }
    });
    let layers = [store::base(server()), homes];
    let content = store::content(name, &layers, config.clone());
    store::put(server(), name, &content);
    let mut body = body;
    body["image"] = json!(name);
    let runtime = Runtime::create(api(), &body);
    assert_eq!(runtime.object["image"], name);
    assert_eq!(runtime.object["image_id"], json!(content.id));
    runtime
}

fn ids(runtime: &Runtime) -> String {
    let exec = runtime.sh("id -u; id -g; echo $USER $HOME; pwd");
    exec.lines().join(" ")
}

#[test]
fn the_environment_of_an_image_is_beneath_that_of_the_runtime() {
    needs!(Root);
    let _turn = together();
    let variable = |name: &str| (name.to_owned(), "image".to_owned());
    let mut env: BTreeMap<String, String> = ["LANG", "A", "B", "C"].map(variable).into();
    // More than a message to the api process holds, and a name and a value that no client could set.
    env.insert("PATH".into(), "/bin:/of/the/image".into());
    env.insert("LONG".into(), "x".repeat(60_000));
    env.insert("A.B".into(), "two\nlines".into());
    let config = ImageConfig {
        env,
        ..ImageConfig::default()
    };
    let body = json!({"environment_variables": {"B": "runtime", "C": "runtime"}});
    let runtime = runtime_of("env", &config, body);
    let exec = runtime.exec(&json!({
        "command": "env", "args": ["-u", "LONG"], "env": {"C": "exec"},
    }));
    let mut lines = exec.lines();
    lines.sort_unstable();
    let expected = [
        "A.B=two",
        "A=image",
        "B=runtime",
        "C=exec",
        "HOME=/root",
        "LANG=image",
        "PATH=/bin:/of/the/image",
        "USER=root",
        "lines",
    ];
    assert_eq!(lines, expected);
    runtime.sh("echo ${#LONG}").assert_stdout("60000\n");
    // What is the image's own is not shown as the runtime's.
    let shown = &runtime.object["environment_variables"];
    assert_eq!(shown, &json!({"B": "runtime", "C": "runtime"}));
}

#[test]
fn the_user_of_an_image_is_who_commands_are_but_strict_is_never_root() {
    needs!(Root);
    let _turn = together();
    let app = store::user(33, 34, "app", "/home/app");
    let root = store::user(0, 0, "root", "/root");
    let nobody = store::user(65_534, 65_534, "nobody", "/");
    let none = ImageConfig::default();
    let user = "1000 1000 user /home/user /home/user";
    let cases = [
        ("app", &app, "default", "33 34 app /home/app /home/app"),
        ("app", &app, "strict", "33 34 app /home/app /home/app"),
        ("root", &root, "default", "0 0 root /root /root"),
        ("root", &root, "strict", user),
        ("none", &none, "default", "0 0 root /root /root"),
        ("none", &none, "strict", user),
        ("nobody", &nobody, "default", "65534 65534 nobody / /"),
    ];
    for (name, config, profile, expected) in cases {
        let name = format!("user-{name}");
        let runtime = runtime_of(&name, config, json!({"profile": profile}));
        assert_eq!(ids(&runtime), expected, "{name} {profile}");
        // Its streams are its own, whoever it is.
        runtime
            .sh("echo a > /dev/stdout; cat /proc/self/status > /dev/null; echo b > /dev/stderr")
            .assert_stdout("a\n");
        let caps = runtime
            .sh("while read k v; do case $k in Cap*) echo $v;; esac; done < /proc/self/status");
        assert_eq!(caps.lines(), ["0000000000000000"; 5], "{name} {profile}");
    }
}

#[test]
fn a_user_called_nobody_is_not_the_first_process_of_its_cell() {
    needs!(Root);
    let _turn = together();
    let config = store::user(65_534, 65_534, "nobody", "/");
    let runtime = runtime_of("nobody", &config, json!({}));
    runtime
        .sh("kill -0 $$ && kill -0 1 2> /dev/null || echo refused")
        .assert_stdout("refused\n");
    runtime.sh("cat /proc/1/maps").assert_failed();
}

#[test]
fn files_and_terminals_belong_to_the_user_of_the_image() {
    needs!(Root);
    let _turn = together();
    let config = ImageConfig {
        working_dir: Some("/srv/work".to_owned()),
        ..store::user(33, 33, "app", "/home/app")
    };
    let runtime = runtime_of("files", &config, json!({}));
    files::must_write(api(), &runtime, "notes", b"hello");
    // Relative paths begin at home, commands where the image says.
    let exec = runtime.sh("pwd; stat -c '%u:%g %n' /home/app/notes; cat /home/app/notes");
    exec.assert_stdout("/srv/work\n33:33 /home/app/notes\nhello");
    assert_eq!(files::must_read(api(), &runtime, "notes"), b"hello");
    runtime
        .exec(&json!({"command": "pwd", "cwd": "."}))
        .assert_stdout("/home/app\n");
    // Root's, and this is not root.
    let refused = files::write(api(), &runtime, "/bin/new", b"hello");
    assert!((400..500).contains(&refused.status), "{}", refused.text());
    let line = "stat -c 'owner %u' /dev/pts/0; echo x > /dev/pts/0";
    let terminal = json!({"command": "sh", "args": ["-c", line], "tty": true});
    let said = runtime.stream(terminal).end().text();
    assert_eq!(said, "owner 33\r\nx\r\n");
}

#[test]
fn a_directory_that_the_image_lacks_is_not_where_commands_begin() {
    needs!(Root);
    let _turn = together();
    let nowhere = ImageConfig {
        working_dir: Some("/not/there".to_owned()),
        ..store::user(33, 33, "app", "/home/app")
    };
    let runtime = runtime_of("no-directory", &nowhere, json!({}));
    runtime
        .exec(&json!({"command": "pwd"}))
        .assert_stdout("/home/app\n");
    // Who names it means it.
    let named = runtime.try_exec(&json!({"command": "pwd", "cwd": "/not/there"}));
    assert_invalid(&named, "cwd");
    let homeless = store::user(33, 33, "app", "/nonexistent");
    let runtime = runtime_of("no-home", &homeless, json!({"filesystem": "read_only"}));
    runtime
        .exec(&json!({"command": "pwd"}))
        .assert_stdout("/\n");
}

#[test]
fn an_image_of_another_machine_is_refused_by_its_name() {
    needs!(Root);
    let _turn = together();
    let layers = [store::base(server())];
    let mut content = store::content("foreign", &layers, ImageConfig::default());
    content.architecture = "s390x".to_owned();
    store::put(server(), "foreign", &content);
    let refused = api().post("/v1/runtimes", &json!({"image": "foreign"}));
    assert_invalid(&refused, "image");
    assert!(refused.text().contains("s390x"), "{}", refused.text());
}

#[test]
fn the_list_tells_what_an_image_is() {
    needs!(Root);
    let _turn = together();
    let config = ImageConfig {
        env: BTreeMap::from([("A".to_owned(), "x".repeat(50_000))]),
        working_dir: Some("/srv".to_owned()),
        ..store::user(33, 34, "app", "/home/app")
    };
    let layers = [store::base(server())];
    let content = store::content("listed", &layers, config.clone());
    store::put(server(), "listed", &content);
    let images = api().get("/v1/images").data(200);
    let of = |name: &str| {
        let images = images.as_array().expect("a list");
        let found = images.iter().find(|image| image["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is not listed"))
    };
    let expected = json!({
        "name": "listed", "kind": "imported", "id": content.id, "architecture": store::ARCHITECTURE,
        "size_bytes": 12_345, "layers": layers, "created_at": "2024-05-06T07:08:09Z",
        "config": {
            "env": config.env,
            "user": {"uid": 33, "gid": 34, "name": "app", "home": "/home/app"},
            "working_dir": "/srv",
        },
    });
    assert_eq!(of("listed"), &expected);
    let host = json!({
        "name": "host", "kind": "host", "id": null, "architecture": store::ARCHITECTURE,
        "size_bytes": null, "layers": [], "created_at": null, "config": null,
    });
    assert_eq!(of("host"), &host);
}
