//! Paths and bodies that can't be: each has its own answer, at once, and changes nothing.

use crate::needs;
use crate::support::files::{answer, begin, must_read, must_write, read, uri, write};
use crate::support::{
    Reply, Runtime, alone, api, assert_error, assert_invalid, bound, runtime, runtime_with,
    together,
};
use serde_json::json;

fn reason(reply: &Reply) -> String {
    let reason = &reply.json()["error"]["details"]["reason"];
    reason.as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn assert_refused(reply: &Reply, status: u16, why: &str) {
    let code = match status {
        403 => "permission_denied",
        404 => "not_found",
        409 => "failed_precondition",
        _ => "invalid_argument",
    };
    assert_error(reply, status, code);
    assert_eq!(reason(reply), why, "{}", reply.text());
    assert_eq!(reply.json()["error"]["details"]["field"], "path");
}

#[test]
fn the_path_must_be_one() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let base = format!("/v1/runtimes/{}/files", runtime.id);
    let long = format!("{base}?path=/{}", "x/".repeat(2100));
    let queries = [
        base.clone(),
        format!("{base}?path="),
        format!("{base}?paths=/root/x"),
        format!("{base}?path=/root/a%00b"),
        format!("{base}?path=/root/a&path=/root/b"),
        long,
    ];
    for uri in queries {
        assert_invalid(&api().get(&uri), "path");
        assert_invalid(&api().send("PUT", &uri, &[], Some(b"x")), "path");
    }
    runtime.sh("ls -A").assert_stdout("");
}

#[test]
fn what_is_not_there_is_404() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime
        .sh("ln -s nothing link; echo x > file")
        .assert_code(0);
    for path in ["absent", "/no/such/directory/x", "link"] {
        assert_refused(&read(api(), &runtime, path), 404, "not_found");
    }
    assert_refused(&read(api(), &runtime, "file/x"), 422, "not_a_directory");
    for path in ["file/", "file/.", "file/.."] {
        assert_refused(&read(api(), &runtime, path), 422, "not_a_directory");
        let reply = write(api(), &runtime, path, b"y");
        assert_refused(&reply, 422, "not_a_directory");
    }
    let uri = "/v1/runtimes/nobody/files?path=x";
    assert_error(&api().get(uri), 404, "not_found");
    assert_error(&api().send("PUT", uri, &[], Some(b"x")), 404, "not_found");
    let stranger = api().with_token("");
    let uri = crate::support::files::uri(&runtime, "file");
    assert_error(&stranger.get(&uri), 401, "unauthenticated");
    let reply = stranger.send("PUT", &uri, &[], Some(b"y"));
    assert_error(&reply, 401, "unauthenticated");
    assert_error(&api().delete(&uri), 405, "invalid_argument");
    assert_eq!(must_read(api(), &runtime, "file"), b"x\n");
}

#[test]
fn only_a_regular_file_is_one() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let line = "mkfifo fifo; ln -s fifo to-fifo; ln -s /dev/zero to-zero; ln -s loop loop; mkdir -p dir/full/x; \
                perl -MSocket -e 'socket(S,AF_UNIX,SOCK_STREAM,0);bind(S,sockaddr_un(\"socket\"))'";
    runtime.sh(line).assert_code(0);
    for path in [
        "fifo",
        "to-fifo",
        "socket",
        "/dev/zero",
        "/dev/random",
        "/dev/null",
        "/dev/tty",
        "/dev/ptmx",
        "to-zero",
    ] {
        let reply = read(api(), &runtime, path);
        assert_refused(&reply, 422, "not_regular");
        assert!(reply.took < bound(1_000), "{path}: {:?}", reply.took);
    }
    for path in [
        "fifo",
        "to-fifo",
        "socket",
        "/dev/zero",
        "/dev/null",
        "to-zero",
    ] {
        let reply = write(api(), &runtime, path, b"x");
        assert_refused(&reply, 422, "not_regular");
        assert!(reply.took < bound(1_000), "{path}: {:?}", reply.took);
    }
    for path in ["dir", "dir/", "dir/full", "/", ".", "..", "dir/.", "dir/.."] {
        assert_refused(&read(api(), &runtime, path), 422, "is_directory");
        assert_refused(&write(api(), &runtime, path, b"x"), 422, "is_directory");
    }
    assert_refused(&write(api(), &runtime, "new/", b"x"), 422, "is_directory");
    for reply in [
        read(api(), &runtime, "loop"),
        write(api(), &runtime, "loop", b"x"),
        write(api(), &runtime, "loop/x", b"x"),
    ] {
        assert_refused(&reply, 422, "link_loop");
    }
    let name = "x".repeat(256);
    assert_refused(&read(api(), &runtime, &name), 422, "too_long");
    assert_refused(&write(api(), &runtime, &name, b"x"), 422, "too_long");
    runtime
        .sh("ls -A; test -p fifo && test -S socket")
        .assert_stdout("dir\nfifo\nloop\nsocket\nto-fifo\nto-zero\n");
}

#[test]
fn looking_at_a_fifo_wakes_nobody() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    runtime.sh("mkfifo fifo").assert_code(0);
    // A writer that waits for a reader. To open the FIFO for reading would let it go on, and to close it would kill it.
    let writer = "echo x > fifo & pid=$!; echo ready > state; while [ -e state ]; do sleep 0.02; done; \
                  kill $pid && echo waiting";
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.sh(writer));
        let ready = || read(api(), &runtime, "state").status == 200;
        assert!(crate::support::eventually(bound(10_000), ready));
        for _ in 0..5 {
            assert_refused(&read(api(), &runtime, "fifo"), 422, "not_regular");
        }
        runtime.sh("rm state").assert_code(0);
        waiting.join().expect("no panic").assert_stdout("waiting\n");
    });
}

#[test]
fn what_commands_may_not_do_is_403() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let line = "echo x > secret; chmod 000 secret; mkdir sealed closed; echo x > closed/x; chmod 555 sealed; chmod 000 closed";
    runtime.sh(line).assert_code(0);
    for path in ["secret", "closed/x"] {
        assert_refused(&read(api(), &runtime, path), 403, "permission_denied");
    }
    for path in ["sealed/x", "sealed/new/x", "closed/x"] {
        let reply = write(api(), &runtime, path, b"y");
        assert_refused(&reply, 403, "permission_denied");
    }
    runtime.sh("ls -A sealed").assert_stdout("");
    let strict = runtime_with(json!({"profile": "strict"}));
    let reply = write(api(), &strict, "/etc/passwd", b"x");
    assert_refused(&reply, 403, "permission_denied");
}

#[test]
fn what_would_not_be_kept_is_refused() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for path in [
        "/dev/shm/x",
        "/dev/x",
        "/proc/x",
        "/proc/self/comm",
        "/proc/sys/kernel/hostname",
        "/usr/bin/x",
    ] {
        let reply = write(api(), &runtime, path, b"x");
        assert_error(&reply, 422, "invalid_argument");
        assert!(
            matches!(reason(&reply).as_str(), "not_on_disk" | "link_loop"),
            "{path}: {}",
            reply.text()
        );
    }
    // Parents that would have to be made where nothing may be left half made.
    for path in ["absent/../x", "/root/a/b/../../x"] {
        assert_refused(&write(api(), &runtime, path, b"x"), 404, "not_found");
    }
    runtime.sh("ls -A").assert_stdout("");
}

#[test]
fn a_part_does_not_pass_for_the_whole() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    must_write(api(), &runtime, "file", b"whole");
    let uri = uri(&runtime, "file");
    let range = [("Content-Range", "bytes 0-0/5")];
    assert_invalid(
        &api().send("PUT", &uri, &range, Some(b"p")),
        "Content-Range",
    );
    let gzip = [("Content-Encoding", "gzip")];
    let reply = api().send("PUT", &uri, &gzip, Some(b"p"));
    assert_error(&reply, 415, "invalid_argument");
    let identity = [("Content-Encoding", "identity")];
    assert_eq!(api().send("PUT", &uri, &identity, Some(b"all")).status, 204);
    assert_eq!(must_read(api(), &runtime, "file"), b"all");
}

#[test]
fn a_condition_is_not_passed_over() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    must_write(api(), &runtime, "file", b"old");
    let uri = uri(&runtime, "file");
    for (name, value) in [
        ("If-None-Match", "*"),
        ("If-Match", "\"tag\""),
        ("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ] {
        let reply = api().send("PUT", &uri, &[(name, value)], Some(b"new"));
        assert_invalid(&reply, name);
    }
    assert_eq!(must_read(api(), &runtime, "file"), b"old");
}

#[test]
fn a_body_that_breaks_off_leaves_the_old_file() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let uids = runtime.host_uids();
    must_write(api(), &runtime, "file", b"old");
    let half = [b'x'; 100_000];
    let chunk = [b"186A0\r\n".as_slice(), &half, b"\r\n"].concat();
    let refused = |headers: &str, body: &[u8], path: &str| {
        use std::io::Write;
        let mut stream = begin(api(), "PUT", &uri(&runtime, path), headers);
        stream.write_all(body).expect("send the half");
        stream
    };
    for path in ["file", "new/deep/file"] {
        // Closed in the middle: by its length, by chunks, and half closed, so that the answer can be read.
        drop(refused("Content-Length: 200000\r\n", &half, path));
        drop(refused("Transfer-Encoding: chunked\r\n", &chunk, path));
        let stream = refused("Content-Length: 200000\r\n", &half, path);
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("close one half");
        let stream = refused(
            "Transfer-Encoding: chunked\r\n",
            &[&chunk[..], b"zz\r\n"].concat(),
            path,
        );
        assert_eq!(answer(stream).status, 400);
    }
    let gone = || crate::support::in_uids(&uids).is_empty();
    assert!(
        crate::support::eventually(bound(5_000), gone),
        "cells are left"
    );
    runtime.sh("ls -A; cat file").assert_stdout("file\nold");
}

#[test]
fn what_does_not_fit_the_disk_says_so() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({"limits": {"disk_mib": 32}}));
    must_write(api(), &runtime, "file", b"old");
    let assert_full = |reply: &Reply| {
        assert_error(reply, 409, "failed_precondition");
        assert_eq!(reason(reply), "disk_full");
        assert!(
            reply.text().contains("`limits.disk_mib` is 32"),
            "{}",
            reply.text()
        );
    };
    // More than ever fits, by its length alone, and what turns out not to fit.
    let stream = begin(
        api(),
        "PUT",
        &uri(&runtime, "file"),
        "Content-Length: 33554432\r\n",
    );
    let early = answer(stream);
    assert_eq!(early.status, 409, "{early:?}");
    assert_full(&write(api(), &runtime, "file", &vec![b'x'; 31 << 20]));
    runtime
        .sh("ls -A; cat file; head -c 16M /dev/zero > room && echo room")
        .assert_stdout("file\noldroom\n");
    assert_full(&write(api(), &runtime, "file", &vec![b'x'; 20 << 20]));
    runtime.sh("rm room").assert_code(0);
    must_write(api(), &runtime, "file", &vec![b'x'; 20 << 20]);
    let size: &Runtime = &runtime;
    size.sh("stat -c %s file").assert_stdout("20971520\n");
}
