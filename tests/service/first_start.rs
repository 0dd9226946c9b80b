//! What the first start makes and says, and what a second one finds.

use crate::needs;
use crate::support::server::{Options, run};
use crate::support::{Runtime, Server, alone, bound, eventually};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

#[test]
fn the_first_start_makes_a_token_and_an_example_and_says_how_to_use_them() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let file = server.data_dir().join("admin-token");
    let mode = std::fs::metadata(&file)
        .expect("the token file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(server.api.token.len() >= 32, "a short token");
    let said = || server.log().contains("curl");
    assert!(
        eventually(bound(10_000), said),
        "no curl line in {}",
        server.log()
    );
    let log = server.log();
    let curl = log
        .lines()
        .find(|line| line.contains("curl "))
        .expect("a curl line");
    assert!(
        curl.contains("$(cat ") && curl.contains("admin-token"),
        "{curl}"
    );
    assert!(curl.contains("/v1/runtimes/example/exec"), "{curl}");
    assert!(!log.contains(&server.api.token), "the token was printed");
    let example = server.api.get("/v1/runtimes/example").data(200);
    assert_eq!(example["status"], "running");
}

#[test]
fn the_curl_line_works_when_pasted() {
    needs!(Root);
    let _turn = alone();
    if std::process::Command::new("curl")
        .arg("--version")
        .output()
        .is_err()
    {
        panic!("curl is missing: it is what the first line of the output asks for");
    }
    let server = Server::start(Options::default());
    assert!(eventually(bound(10_000), || server.log().contains("curl ")));
    let log = server.log();
    let start = log.find("curl ").expect("a curl command");
    // The line, and what it continues on after a backslash.
    let mut command = String::new();
    for line in log[start..].lines() {
        command.push_str(line.trim_end_matches('\\'));
        if !line.ends_with('\\') {
            break;
        }
    }
    let output = std::process::Command::new("sh")
        .args(["-c", &command])
        .output()
        .expect("run it");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("\"exit_code\":0"),
        "{command}\n{output:?}"
    );
}

#[test]
fn a_given_token_is_taken_and_a_short_one_refused() {
    needs!(Root);
    let _turn = alone();
    let token = "0123456789abcdef0123456789abcdef~!";
    let server = Server::start(Options {
        token: Some(token.to_owned()),
        ..Options::default()
    });
    server.api.get("/v1/runtimes").data(200);
    assert!(!server.log().contains(token), "the token was printed");
    let dir = crate::support::mounts::TestDir::new();
    let short = Options {
        token: Some("short".to_owned()),
        ..Options::default()
    };
    let said = Server::start_in(dir, short)
        .err()
        .expect("it started with a short token");
    assert!(
        said.contains("admin token") && said.contains("32"),
        "{said}"
    );
}

#[test]
fn a_replaced_token_does_not_come_back() {
    needs!(Root, Unshare);
    let _turn = alone();
    let server = Server::start(Options::default());
    let (old, new) = (server.api.token.clone(), "n".repeat(40));
    server.stop();
    let given = Options {
        token: Some(new.clone()),
        ..Options::default()
    };
    let server = server.restart_with(given.clone());
    let status = |token: &str, port| {
        let api = crate::support::Api::new(port, token);
        api.get("/v1/runtimes").status
    };
    let port = server.api.port;
    assert_eq!((status(&old, port), status(&new, port)), (401, 200));
    server.stop();
    // Without the variable; the options of a token only tell the test which one to use.
    let server = server.restart_with(Options {
        before: Some("unset CELLBLOCK_ADMIN_TOKEN".to_owned()),
        ..given
    });
    assert_eq!((status(&old, port), status(&new, port)), (401, 200));
    server.stop();
}

#[test]
fn a_restart_keeps_runtimes_files_and_token() {
    needs!(Root);
    let _turn = alone();
    let server = Server::start(Options::default());
    let token = server.api.token.clone();
    let runtime = Runtime::create(
        &server.api,
        &json!({"name": "kept", "limits": {"disk_mib": 64}}),
    );
    runtime.sh("echo kept > /root/file").assert_code(0);
    let before = server.api.get("/v1/runtimes/kept").data(200);
    assert!(server.stop().success());
    let server = server.restart();
    assert_eq!(server.api.token, token);
    let after = server.api.get("/v1/runtimes/kept").data(200);
    assert_eq!(
        (&after["id"], &after["created_at"]),
        (&before["id"], &before["created_at"])
    );
    let path = "/v1/runtimes/kept/exec";
    let read = server
        .api
        .post(path, &json!({"command": "cat", "args": ["/root/file"]}))
        .data(200);
    assert_eq!(read["stdout"], "kept\n");
    assert_eq!(
        server.api.get("/v1/runtimes").json()["pagination"]["total"],
        2
    );
    // The example is made once: deleted, it stays so.
    server.api.delete("/v1/runtimes/example").data(200);
    server.stop();
    let server = server.restart();
    assert_eq!(server.api.get("/v1/runtimes/example").status, 404);
    server.api.delete("/v1/runtimes/kept").data(200);
}

#[test]
fn listen_and_data_directory_come_from_the_environment_too() {
    needs!(Root);
    let _turn = alone();
    let dir = crate::support::mounts::TestDir::new();
    let port = crate::support::server::free_port();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_cellblock"))
        .arg("serve")
        .env("CELLBLOCK_LISTEN", format!("127.0.0.1:{port}"))
        .env("CELLBLOCK_DATA_DIR", dir.path().join("elsewhere"))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("start the server");
    let api = crate::support::Api::new(port, "");
    let answers = || {
        api.try_send("GET", "/healthz", &[], None)
            .is_ok_and(|r| r.status == 200)
    };
    let answered = eventually(bound(20_000), answers);
    // SAFETY: kill(2) takes numbers only; the child has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let status = child.wait().expect("wait for the server");
    assert!(answered && status.success(), "{status}");
    assert!(dir.path().join("elsewhere/admin-token").exists());
}

#[test]
fn a_taken_port_is_said_plainly() {
    needs!(Root);
    let _turn = alone();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("take a port");
    let address = listener.local_addr().expect("an address").to_string();
    let dir = crate::support::mounts::TestDir::new();
    let data = dir.path().join("data");
    let output = run(
        &["serve", "--listen", &address],
        &[("CELLBLOCK_DATA_DIR", &data)],
    );
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(
        !output.status.success() && text.contains(&address),
        "{output:?}"
    );
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn doctor_says_ok_where_serve_works() {
    needs!(Root);
    let _turn = alone();
    let output = run(&["doctor"], &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(
        text.lines().filter(|line| line.contains("ok")).count() >= 10,
        "{text}"
    );
    for word in ["memory", "pids", "cpu", "seccomp", "default", "strict"] {
        assert!(
            text.to_lowercase().contains(word),
            "{word} is not in {text}"
        );
    }
}

#[test]
fn nobody_reading_the_output_is_no_failure() {
    needs!(Root);
    let _turn = alone();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cellblock"))
        .arg("doctor")
        .stdout(writer)
        .output()
        .expect("run doctor");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_directory_of_somebody_elses_is_left_alone() {
    needs!(Root);
    let _turn = alone();
    let dir = crate::support::mounts::TestDir::new();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).expect("make the directory");
    std::fs::write(data.join("thesis.tex"), "ten years").expect("fill it");
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let output = run(
        &["serve", "--listen", "127.0.0.1:0"],
        &[("CELLBLOCK_DATA_DIR", &data)],
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it took the directory over");
    assert!(
        said.contains("thesis.tex") && said.contains("--data-dir"),
        "{said}"
    );
    let mode = std::fs::metadata(&data).expect("it is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o755);
    assert_eq!(std::fs::read_dir(&data).expect("list it").count(), 1);
}

#[test]
fn wrong_arguments_are_said_plainly() {
    needs!(Root);
    let _turn = alone();
    let cases: [&[&str]; 5] = [
        &["serve", "--listen", "nonsense"],
        &["serve", "--config", "/no/such/config"],
        &["serve", "--allow-missing-limits=nonsense"],
        &["nonsense"],
        &["image", "add", "x", "/no/such/dir"],
    ];
    let dir = crate::support::mounts::TestDir::new();
    let data = dir.path().join("data");
    for args in cases {
        let output = run(args, &[("CELLBLOCK_DATA_DIR", &data)]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{args:?} was taken");
        assert!(
            !text.trim().is_empty() && !text.contains("panicked"),
            "{args:?}: {text}"
        );
    }
}
