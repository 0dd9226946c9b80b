//! Reading and writing files: what is put comes back, and is what commands see.

use crate::needs;
use crate::support::files::{begin, head, must_read, must_write, pattern, read, uri, write};
use crate::support::{Reply, Runtime, api, bound, eventually, runtime, together};
use std::io::{BufReader, Write};
use std::thread;

fn put(runtime: &Runtime, path: impl AsRef<[u8]>, bytes: &[u8]) {
    must_write(api(), runtime, path, bytes);
}

fn get(runtime: &Runtime, path: impl AsRef<[u8]>) -> Vec<u8> {
    must_read(api(), runtime, path)
}

#[test]
fn what_is_put_comes_back() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    // Around the sizes of the pipes and of the pieces.
    for length in [0, 1, 4095, 65_536, 65_537, 3 << 20] {
        let bytes = pattern(length);
        put(&runtime, "/root/file", &bytes);
        let reply = read(api(), &runtime, "/root/file");
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("content-type"), "application/octet-stream");
        assert_eq!(reply.header("content-length"), length.to_string());
        assert!(reply.body == bytes, "{length} bytes changed on the way");
    }
    let size = runtime.sh("stat -c %s /root/file");
    size.assert_stdout(&format!("{}\n", 3 << 20));
}

#[test]
fn commands_see_what_was_put_and_the_other_way_round() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    put(&runtime, "/workspace/a/b/hello.sh", b"echo hello\n");
    runtime
        .sh("sh /workspace/a/b/hello.sh")
        .assert_stdout("hello\n");
    runtime
        .sh("cd /workspace; stat -c '%u:%g %a' a a/b a/b/hello.sh; ls -A a/b")
        .assert_stdout("0:0 755\n0:0 755\n0:0 644\nhello.sh\n");
    runtime
        .sh("printf 'a\\0b' > /tmp/x; mkdir /srv; echo 1 > /srv/y")
        .assert_code(0);
    assert_eq!(get(&runtime, "/tmp/x"), b"a\0b");
    assert_eq!(get(&runtime, "/srv/../srv/./y"), b"1\n");
}

#[test]
fn another_profiles_user_owns_its_files() {
    needs!(Root);
    let _turn = together();
    let runtime = crate::support::runtime_with(serde_json::json!({"profile": "strict"}));
    put(&runtime, "notes/x", b"mine");
    runtime
        .sh("stat -c '%u:%g' /home/user/notes /home/user/notes/x; cat ~/notes/x; echo 2 > notes/x")
        .assert_stdout("1000:1000\n1000:1000\nmine");
    assert_eq!(get(&runtime, "notes/x"), b"2\n");
}

#[test]
fn a_relative_path_begins_at_home() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    put(&runtime, "notes/today", b"x");
    assert_eq!(get(&runtime, "/root/notes/today"), b"x");
    assert_eq!(get(&runtime, "./notes/../notes/today"), b"x");
    runtime.sh("cat notes/today").assert_stdout("x");
}

#[test]
fn a_name_may_hold_anything() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let names: [&[u8]; 9] = [
        b"a b",
        b"a+b",
        b"a%20b",
        "gr\u{fc}\u{df}e \u{1f600}".as_bytes(),
        b"new\nline",
        b"&path=x",
        b"\xff\xfe",
        b"-rf",
        &[b'x'; 255],
    ];
    for name in names {
        put(&runtime, [b"/root/names/", name].concat(), name);
    }
    for name in names {
        assert_eq!(get(&runtime, [b"/root/names/", name].concat()), name);
    }
    runtime
        .sh("ls -A names | wc -l; cat names/a+b names/a%20b 'names/a b'")
        .assert_stdout("10\na+ba%20ba b");
    runtime
        .sh("test -e \"$(printf 'names/\\377\\376')\"")
        .assert_code(0);
    // As a form would send it.
    let plus = format!("/v1/runtimes/{}/files?path=/root/names/a+b", runtime.id);
    assert_eq!(api().get(&plus).text(), "a b");
}

#[test]
fn a_file_keeps_its_mode_and_a_new_one_gets_the_usual() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime
        .sh("for m in 755 600 444; do echo old > $m; chmod $m $m; done")
        .assert_code(0);
    for name in ["755", "600", "444"] {
        put(&runtime, name, b"new");
    }
    runtime
        .sh("stat -c '%n %a' 755 600 444; cat 755 600 444")
        .assert_stdout("755 755\n600 600\n444 444\nnewnewnew");
}

#[test]
fn links_are_followed_and_stay_links() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let line = "mkdir -p real deep/er; echo old > real/file; ln -s real/file direct; ln -s /root/direct twice; \
                ln -s ../../real deep/er/dir; ln -s /root/real/absent dangling; ln -s missing/x nowhere";
    runtime.sh(line).assert_code(0);
    assert_eq!(get(&runtime, "twice"), b"old\n");
    assert_eq!(get(&runtime, "deep/er/dir/file"), b"old\n");
    put(&runtime, "twice", b"one");
    runtime.sh("cat real/file").assert_stdout("one");
    put(&runtime, "deep/er/dir/file", b"two");
    runtime.sh("cat direct").assert_stdout("two");
    put(&runtime, "dangling", b"three");
    runtime.sh("cat real/absent").assert_stdout("three");
    put(&runtime, "nowhere", b"four");
    runtime.sh("cat missing/x").assert_stdout("four");
    runtime
        .sh("for l in direct twice deep/er/dir dangling nowhere; do test -L $l || echo $l; done; ls -A real")
        .assert_stdout("absent\nfile\n");
}

#[test]
fn head_tells_the_length_and_sends_nothing() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    put(&runtime, "file", &pattern(1 << 20));
    let reply = api().send("HEAD", &uri(&runtime, "file"), &[], None);
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert_eq!(reply.header("content-length"), "1048576");
    let reply = api().send("HEAD", &uri(&runtime, "absent"), &[], None);
    assert_eq!((reply.status, reply.body.len()), (404, 0));
}

#[test]
fn a_body_may_come_in_chunks_and_be_of_any_type() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let headers =
        "Transfer-Encoding: chunked\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let mut stream = begin(api(), "PUT", &uri(&runtime, "chunked"), headers);
    for piece in [
        "3\r\nabc\r\n",
        "1;x=y\r\nd\r\n",
        "0\r\nX-Trailer: no\r\n\r\n",
    ] {
        stream.write_all(piece.as_bytes()).expect("send a chunk");
    }
    let answer = crate::support::files::answer(stream);
    assert_eq!(
        (answer.status, answer.body.len()),
        (204, 0),
        "{}",
        answer.head
    );
    assert_eq!(get(&runtime, "chunked"), b"abcd");
    for kind in ["application/json", "text/plain", "nonsense"] {
        let headers = [("Content-Type", kind)];
        let reply = api().send("PUT", &uri(&runtime, "typed"), &headers, Some(b"{"));
        assert_eq!(reply.status, 204, "{}", reply.text());
    }
}

#[test]
fn who_waits_to_be_asked_sends_nothing_in_vain() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let headers = "Content-Length: 3\r\nExpect: 100-continue\r\n";
    let stream = begin(api(), "PUT", &uri(&runtime, "asked"), headers);
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    assert_eq!(head(&mut reader).status, 100);
    (&stream).write_all(b"abc").expect("send the body");
    assert_eq!(head(&mut reader).status, 204);
    assert_eq!(get(&runtime, "asked"), b"abc");
    // A directory is refused before a byte of the body was asked for.
    let stream = begin(api(), "PUT", &uri(&runtime, "/root"), headers);
    let mut reader = BufReader::new(stream);
    assert_eq!(head(&mut reader).status, 422);
}

#[test]
fn readers_see_the_old_file_or_the_new_one() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let versions: Vec<Vec<u8>> = (0..4u8).map(|n| vec![n; 300_000]).collect();
    put(&runtime, "shared", &versions[0]);
    let rounds = crate::support::times(25);
    thread::scope(|scope| {
        for version in &versions {
            let runtime = &runtime;
            scope.spawn(move || (0..rounds).for_each(|_| put(runtime, "shared", version)));
        }
        for _ in 0..rounds {
            let seen = get(&runtime, "shared");
            assert!(
                versions.contains(&seen),
                "a mixture of {} bytes",
                seen.len()
            );
        }
    });
    runtime.sh("ls -A").assert_stdout("shared\n");
}

#[test]
fn runtimes_that_keep_nothing_can_be_read_only() {
    needs!(Root);
    let _turn = together();
    for filesystem in ["ephemeral", "read_only"] {
        let body = serde_json::json!({"filesystem": filesystem});
        let runtime = crate::support::runtime_with(body);
        let reply = write(api(), &runtime, "/root/x", b"x");
        crate::support::assert_error(&reply, 409, "failed_precondition");
        let expected = runtime.sh("cat /etc/passwd");
        assert_eq!(
            get(&runtime, "/etc/passwd"),
            expected.stdout().as_bytes(),
            "{filesystem}"
        );
        let reply = read(api(), &runtime, "/root/x");
        crate::support::assert_error(&reply, 404, "not_found");
    }
}

#[test]
fn directories_that_a_command_removes_meanwhile_are_made_again() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let line = "touch go; while [ -e go ]; do rm -rf p; mkdir -p p/q; done";
    std::thread::scope(|scope| {
        let remover = scope.spawn(|| runtime.sh(line));
        let ready = || read(api(), &runtime, "go").status == 200;
        assert!(eventually(bound(10_000), ready));
        let writes: Vec<Reply> = (0..60)
            .map(|_| write(api(), &runtime, "p/q/file", b"x"))
            .collect();
        runtime.sh("rm go").assert_code(0);
        remover.join().expect("no panic");
        for reply in writes {
            assert_eq!(reply.status, 204, "{}", reply.text());
        }
    });
    runtime.sh("find . -name '.cellblock*'").assert_stdout("");
}
