//! Capped, counted, decoded output.

use crate::needs;
use crate::support::probe::base64;
use crate::support::{api, runtime, times, together};
use serde_json::json;

#[test]
fn output_that_another_command_holds_open_is_whole_and_ends() {
    needs!(Root, Python);
    let _turn = together();
    let runtime = runtime();
    // Holds what it is handed for as long as it lives.
    let holder = "import socket, time\n\
                  s = socket.socket(socket.AF_UNIX); s.bind('/tmp/s'); s.listen(1)\n\
                  c = s.accept()[0]\n\
                  fds = socket.recv_fds(c, 1, 1)[1]\n\
                  c.send(b'.'); time.sleep(1000)";
    let body = json!({"command": "/usr/bin/python3", "args": ["-c", holder], "detach": true});
    let id = runtime.exec(&body).data["exec_id"].clone();
    let line = "import socket, sys, time, os\n\
                while not os.path.exists('/tmp/s'): time.sleep(0.01)\n\
                s = socket.socket(socket.AF_UNIX); s.connect('/tmp/s')\n\
                socket.send_fds(s, [b'.'], [1]); s.recv(1)\n\
                sys.stdout.write('his' * 20000)";
    let exec = runtime.python(line);
    exec.assert_stdout(&"his".repeat(20_000));
    let path = format!("/v1/execs/{}", id.as_str().expect("an id"));
    api().delete(&path).data(200);
}

#[test]
fn the_cap_holds_per_stream_and_the_rest_is_counted() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let exec = runtime.sh_with(
        "printf 0123456789; printf abcdef >&2",
        json!({"max_output_bytes": 4}),
    );
    assert_eq!((exec.stdout(), exec.stderr()), ("0123", "abcd"));
    assert_eq!(
        (exec.number("stdout_bytes"), exec.number("stderr_bytes")),
        (10, 6)
    );
    assert_eq!(exec.data["stdout_truncated"], true);
    assert_eq!(exec.data["stderr_truncated"], true);
    assert_eq!(
        (exec.code(), exec.outcome()),
        (0, "exited"),
        "nothing is killed for its output"
    );
}

#[test]
fn exactly_the_cap_is_not_truncated() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for (cap, truncated) in [(3, true), (4, false), (5, false)] {
        let exec = runtime.sh_with("printf 0123", json!({"max_output_bytes": cap}));
        assert_eq!(exec.data["stdout_truncated"], truncated, "{exec:?}");
        assert_eq!(exec.data["stderr_truncated"], false, "{exec:?}");
    }
}

#[test]
fn a_cap_of_zero_keeps_nothing_and_counts() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let exec = runtime.sh_with("printf abc", json!({"max_output_bytes": 0}));
    assert_eq!((exec.stdout(), exec.number("stdout_bytes")), ("", 3));
    assert_eq!(
        (
            &exec.data["stdout_truncated"],
            &exec.data["stderr_truncated"]
        ),
        (&json!(true), &json!(false))
    );
}

#[test]
fn the_default_cap_is_four_mebibytes() {
    needs!(Root);
    let _turn = together();
    let exec = runtime().sh("head -c 5M /dev/zero | tr '\\0' x");
    assert_eq!(
        (exec.stdout().len(), exec.number("stdout_bytes")),
        (4 << 20, 5 << 20)
    );
    assert_eq!(exec.data["stdout_truncated"], true);
}

#[test]
fn a_character_split_by_the_cap_is_dropped() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    // a, then two, three and four bytes long characters.
    for (text, cap, kept) in [
        ("a\u{e9}", 2, "a"),
        ("a\u{20ac}", 2, "a"),
        ("a\u{20ac}", 3, "a"),
        ("a\u{20ac}", 4, "a\u{20ac}"),
        ("a\u{1f600}", 4, "a"),
        ("a\u{1f600}", 5, "a\u{1f600}"),
        ("\u{e9}", 1, ""),
    ] {
        let body = json!({"command": "cat", "stdin": text, "max_output_bytes": cap});
        let exec = runtime.exec(&body);
        assert_eq!(exec.stdout(), kept, "{text} cut after {cap} bytes");
        assert_eq!(exec.data["stdout_truncated"], cap < text.len(), "{exec:?}");
    }
}

#[test]
fn bytes_that_are_no_utf8_become_the_replacement_character() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime.sh("printf 'a\\377b'").assert_stdout("a\u{fffd}b");
    runtime.sh("printf 'a\\303'").assert_stdout("a\u{fffd}");
    let invalid = runtime.sh_with("printf 'a\\377b'", json!({"max_output_bytes": 2}));
    assert_eq!(
        invalid.stdout(),
        "a\u{fffd}",
        "an invalid byte is not a cut character"
    );
}

#[test]
fn split_utf8_is_one_character() {
    needs!(Root);
    let _turn = together();
    runtime()
        .sh("printf '\\303'; sleep .05; printf '\\251'")
        .assert_stdout("\u{e9}");
}

#[test]
fn control_characters_survive_json() {
    needs!(Root);
    let _turn = together();
    runtime()
        .sh("printf '\\000\\001\\033[0m\\r\\n\"\\\\\\177'")
        .assert_stdout("\0\u{1}\u{1b}[0m\r\n\"\\\u{7f}");
}

#[test]
fn output_is_complete_every_time() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let body = json!({
        "command": "head", "args": ["-c", "200000", "/dev/zero"], "output_encoding": "base64",
    });
    let whole = base64(&[0; 200_000]);
    for round in 0..times(200) {
        let exec = runtime.exec(&body);
        let got = (
            exec.stdout() == whole,
            exec.number("stdout_bytes"),
            exec.code(),
        );
        assert_eq!(got, (true, 200_000, 0), "round {round}");
    }
}

#[test]
fn both_streams_full_at_once_do_not_deadlock() {
    needs!(Root);
    let _turn = together();
    let exec =
        runtime().sh("head -c 1M /dev/zero >&2; head -c 1M /dev/zero; head -c 1M /dev/zero >&2");
    assert_eq!(
        (exec.number("stdout_bytes"), exec.number("stderr_bytes")),
        (1 << 20, 2 << 20)
    );
}

#[test]
fn closed_output_is_no_error() {
    needs!(Root);
    let _turn = together();
    let exec = runtime().sh("exec >&- 2>&-; sleep 0.2; exit 5");
    assert_eq!(
        (exec.code(), exec.stdout(), exec.stderr()),
        (5, "", ""),
        "{exec:?}"
    );
}
