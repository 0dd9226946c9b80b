//! Commands in a terminal: it is one, it is theirs, and nothing is lost in it.

use crate::needs;
use crate::support::procs;
use crate::support::{Ws, alone, bound, eventually, runtime, runtime_with, together};
use serde_json::{Value, json};

fn bash(runtime: &crate::support::Runtime, more: Value) -> Ws {
    let mut start = json!({"command": "bash", "args": ["--norc", "-i"], "tty": true});
    for (key, value) in more.as_object().expect("an object") {
        start[key] = value.clone();
    }
    let mut ws = runtime.stream(start);
    // A word that the echo of the line does not hold; and no escape sequence with each prompt.
    ws.stdin(b"PS1=; stty -echo; bind 'set enable-bracketed-paste off'; echo rea''dy\n");
    ws.expect("ready\r\n");
    ws
}

#[test]
fn a_terminal_is_one_with_the_size_and_the_name_that_were_asked_for() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let line = "tty; stty size; echo $TERM; test -t 0 -a -t 1 -a -t 2 && echo all; echo err >&2; \
                stty -a | grep -o '[ -]iutf8'; ps -o tty= -p $$ 2>/dev/null || true";
    let start =
        json!({"command": "sh", "args": ["-c", line], "tty": true, "rows": 33, "cols": 101});
    let said = runtime.stream(start).end();
    assert_eq!(said.code(), 0);
    let text = said.text();
    assert!(
        text.starts_with("/dev/pts/0\r\n33 101\r\nxterm-256color\r\nall\r\nerr\r\n iutf8\r\n"),
        "{text:?}"
    );
    assert!(said.stderr.is_empty(), "a terminal has one output");
    let said = runtime.terminal("stty size; echo $TERM").end();
    assert_eq!(said.text(), "24 80\r\nxterm-256color\r\n");
    let start = json!({"command": "sh", "args": ["-c", "echo $TERM"], "tty": true, "env": {"TERM": "dumb"}});
    assert_eq!(runtime.stream(start).end().text(), "dumb\r\n");
    // And without one there is none.
    let said = runtime
        .stream_sh("tty; test -e /dev/pts/0 || echo no; : > /dev/tty")
        .end();
    assert!(said.text().starts_with("not a tty\nno\n"), "{said:?}");
    assert_ne!(said.code(), 0);
}

#[test]
fn the_terminal_belongs_to_the_command_and_can_be_opened_again() {
    needs!(Root);
    let _turn = together();
    for body in [
        json!({}),
        json!({"profile": "strict"}),
        json!({"filesystem": "ephemeral"}),
    ] {
        let runtime = runtime_with(body);
        let line = "stat -c '%u %a' /dev/pts/0; id -u; echo a > /dev/tty; echo b > /dev/pts/0; \
                    echo c > /dev/stdout; echo d > /dev/stderr; ls /dev/pts";
        let said = runtime.terminal(line).end();
        let uid = said.text().lines().nth(1).expect("a line").to_owned();
        assert_eq!(
            said.text(),
            format!("{uid} 620\r\n{uid}\r\na\r\nb\r\nc\r\nd\r\n0  ptmx\r\n")
        );
    }
}

#[test]
fn a_command_in_a_terminal_has_no_other_descriptor() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let line =
        "for fd in /proc/self/fd/*; do readlink $fd; done; cat /proc/self/stat | cut -d' ' -f5-7";
    let said = runtime
        .stream(json!({"command": "sh", "args": ["-c", line], "tty": true}))
        .end();
    let text = said.text();
    let (open, ids) = text.split_at(text.rfind("pts/0\r\n").expect("a terminal") + 7);
    assert_eq!(
        open.lines().collect::<Vec<_>>(),
        ["/dev/pts/0"; 3],
        "{text}"
    );
    // Process group, session, terminal (136:0): its own session, which the terminal belongs to.
    let ids: Vec<&str> = ids.split_whitespace().collect();
    assert_eq!(ids, ["2", "2", "34816"], "{text}");
}

#[test]
fn every_terminal_is_in_an_instance_of_its_own() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let mut first = bash(&runtime, json!({}));
    let mut second = bash(&runtime, json!({}));
    for ws in [&mut first, &mut second] {
        ws.stdin(b"tty; ls /dev/pts | wc -l; echo nobody > /dev/pts/1 || echo fail''ed\n");
        let seen = ws.expect("failed\r\n");
        assert!(seen.contains("/dev/pts/0\r\n2\r\n"), "{seen:?}");
    }
    first.stdin(b"echo only-first\n");
    first.expect("only-first\r\n");
    second.stdin(b"echo only-second\n");
    let seen = second.expect("only-second\r\n");
    assert!(!seen.contains("only-first"), "{seen:?}");
}

#[test]
fn a_new_size_is_seen_and_signalled() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for (rows, cols) in [(50, 132), (1, 1), (65_535, 65_535)] {
        // Once in a command's life: shells lose a signal that comes while they handle one, and dash while it starts one.
        let line = "trap 'stty size; exit 3' WINCH; echo up; while :; do sleep 0.05; done";
        let mut ws = runtime.terminal(line);
        ws.expect("up\r\n");
        ws.send(&json!({"type": "resize", "rows": rows, "cols": cols}));
        let said = ws.end();
        let size = format!("{rows} {cols}\r\n");
        assert_eq!((said.code(), said.text()), (3, size));
    }
    // Again and again in one.
    let mut ws = runtime.terminal("while :; do stty size; sleep 0.05; done");
    for (rows, cols) in [(50, 132), (1, 1), (65_535, 65_535), (24, 80)] {
        ws.send(&json!({"type": "resize", "rows": rows, "cols": cols}));
        ws.expect(&format!("{rows} {cols}\r\n"));
    }
    ws.signal("KILL");
    assert_eq!(ws.end().code(), 137);
}

#[test]
fn jobs_are_stopped_continued_and_interrupted_by_keys() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let mut ws = bash(&runtime, json!({}));
    // Each key goes in only when the job is in the foreground and runs.
    let job =
        b"bash -c 'trap \"echo conti''nued\" CONT; echo ru''nning; while :; do sleep 0.05; done'\n";
    ws.stdin(job);
    ws.expect("running\r\n");
    ws.stdin(b"\x1a");
    ws.expect("Stopped");
    ws.stdin(b"jobs | grep -c Stopped; fg\n");
    ws.expect("\r\n1\r\n");
    ws.expect("continued\r\n");
    ws.stdin(b"\x03");
    ws.stdin(b"echo rc=$?\n");
    ws.expect("rc=130\r\n");
    ws.stdin(b"sh -c 'echo again; exec sleep 100'\n");
    ws.expect("again\r\n");
    ws.stdin(b"\x1c");
    ws.stdin(b"echo rc=$?\n");
    ws.expect("rc=131\r\n");
    ws.stdin(b"exit 7\n");
    assert_eq!(ws.end().code(), 7);
}

#[test]
fn the_end_of_input_is_typed() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let cat = || {
        runtime.stream(
            json!({"command": "sh", "args": ["-c", "stty -echo; echo up; cat"], "tty": true}),
        )
    };
    for (typed, read) in [
        ("", ""),
        ("a line\n", "a line\r\n"),
        ("half a line", "half a line"),
    ] {
        for by_key in [false, true] {
            let mut ws = cat();
            ws.expect("up\r\n");
            ws.stdin(typed.as_bytes());
            if by_key {
                // As a person does: once ends the line, twice the input.
                ws.stdin(if typed.ends_with("ne") {
                    b"\x04\x04"
                } else {
                    b"\x04"
                });
            } else {
                ws.close_stdin();
            }
            let said = ws.end();
            assert_eq!((said.code(), said.text().as_str()), (0, read), "{typed:?}");
        }
    }
    // Another key, where the command chose one.
    let line = "stty -echo eof ^X; echo up; cat";
    let mut ws = runtime.terminal(line);
    ws.expect("up\r\n");
    ws.stdin(b"x\x04y\n");
    ws.close_stdin();
    assert_eq!(ws.end().text(), "x\x04y\r\n");
    // Bash reads key by key, and takes it as its end as well. It does so from its prompt on: what comes before that, as the
    // kernel's own end-of-file, is nothing to it.
    let mut ws = bash(&runtime, json!({}));
    ws.stdin(b"PS1=pro''mpt\n");
    ws.expect("prompt");
    ws.close_stdin();
    assert_eq!(ws.end().code(), 0);
}

#[test]
fn a_raw_terminal_passes_every_byte_in_both_directions() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let line = "stty raw -echo; echo up; head -c 256000";
    let mut ws = runtime.terminal(line);
    ws.expect("up\n");
    let bytes: Vec<u8> = (0..256_000u32).map(|n| (n % 256) as u8).collect();
    for piece in bytes.chunks(10_000) {
        ws.stdin(piece);
    }
    let said = ws.end();
    assert_eq!(said.code(), 0);
    assert!(said.stdout == bytes, "{} bytes came", said.stdout.len());
}

#[test]
fn nothing_is_lost_at_the_end() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for _ in 0..20 {
        let said = runtime.terminal("stty raw; head -c 200000 /dev/zero").end();
        assert_eq!((said.code(), said.stdout.len()), (0, 200_000));
    }
}

#[test]
fn a_terminal_that_nobody_has_open_may_be_opened_again() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let line = "echo one; exec 0<&- 1>&- 2>&-; sleep 0.5; echo two > /dev/tty; sleep 0.5; \
                exec < /dev/tty > /dev/tty; echo three; read line; echo got $line";
    let mut ws = runtime.terminal(line);
    ws.expect("three\r\n");
    ws.stdin(b"input\n");
    ws.expect("got input\r\n");
    assert_eq!(ws.end().code(), 0);
}

#[test]
fn a_command_that_gives_its_terminal_up_ends_when_it_ends() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let said = runtime
        .terminal("echo one; exec 0<&- 1>&- 2>&-; sleep 1; exit 4")
        .end();
    assert_eq!((said.code(), said.text().as_str()), (4, "one\r\n"));
    let duration = said.last["duration_ms"].as_u64().expect("a number");
    assert!(duration >= 1_000, "{duration}");
    let said = runtime
        .terminal("(sleep 1000 &); setsid sleep 1000 & echo hi")
        .end();
    assert_eq!((said.code(), said.text().as_str()), (0, "hi\r\n"));
    let duration = said.last["duration_ms"].as_u64().expect("a number");
    assert!(
        u128::from(duration) < bound(1_000).as_millis(),
        "{duration}"
    );
}

#[test]
fn hanging_up_kills_everything() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let marker = procs::marker();
    let mut ws = bash(&runtime, json!({}));
    let line =
        format!("trap '' HUP; nohup sleep {marker} & setsid sleep {marker} & echo st''arted\n");
    ws.stdin(line.as_bytes());
    ws.expect("started\r\n");
    let running = || procs::with_arg(&marker).len() == 2;
    assert!(eventually(bound(5_000), running), "they never ran");
    ws.vanish();
    let gone = eventually(bound(100), || procs::with_arg(&marker).is_empty());
    assert!(gone, "still there: {:?}", procs::with_arg(&marker));
}

#[test]
fn a_timeout_and_a_flood_end_in_a_terminal_too() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let said = runtime
        .stream(json!({"command": "yes", "tty": true, "timeout_secs": 1}))
        .end();
    assert_eq!((said.code(), said.outcome()), (124, "timed_out"));
    let text = said.text();
    assert!(
        text.len() > 100_000 && text.starts_with("y\r\ny\r\n"),
        "{} bytes",
        text.len()
    );
    let mut ws = runtime.stream(json!({"command": "yes", "tty": true}));
    ws.expect("y\r\n");
    ws.stdin(b"\x03");
    assert_eq!(ws.end().code(), 130);
}

#[test]
fn nothing_can_be_pushed_into_the_terminals_input() {
    needs!(Root);
    let _turn = together();
    let probe = crate::support::probe::Probe::in_runtime(runtime());
    // TIOCSTI and TIOCLINUX on the controlling terminal itself, also with bits that the kernel ignores.
    for request in ["0x5412", "0x100005412", "0x541c"] {
        let start = json!({
            "command": crate::support::probe::INSIDE, "args": ["ioctl", "0", request], "tty": true,
        });
        let said = probe.runtime.stream(start).end();
        assert_eq!(said.text(), format!("{}\r\n", libc::EPERM), "{request}");
    }
}
