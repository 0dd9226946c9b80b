//! Clients that break the rules: each is told, none is obeyed, and nobody else notices.

use crate::needs;
use crate::support::probe::base64;
use crate::support::{Said, Ws, alone, api, bound, eventually, procs, runtime, times, together};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tungstenite::Message;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

const NOT_START: &str = "first websocket frame must be start";

#[test]
fn whatever_comes_first_must_be_start() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for garbage in [
        "",
        "hello",
        "{",
        "null",
        "[]",
        "\"start\"",
        "{}",
        r#"{"type":null}"#,
        r#"{"type":["start"]}"#,
        r#"{"type":"START"}"#,
        r#"{"type":"stdin","data_base64":""}"#,
        r#"{"type":"heartbeat"}"#,
        r#"{"command":"true"}"#,
    ] {
        let mut ws = Ws::open(api(), &runtime.stream_path());
        let _ = ws.socket.send(Message::text(garbage));
        let said = ws.end();
        assert_eq!(
            (said.error(), said.close),
            (NOT_START, Some(1008)),
            "{garbage}"
        );
    }
    let mut ws = Ws::open(api(), &runtime.stream_path());
    let _ = ws.socket.send(Message::binary(
        br#"{"type":"start","command":"true"}"#.to_vec(),
    ));
    assert_eq!(ws.end().error(), NOT_START);
}

/// What becomes of a running `cat` whose client does something.
fn after(act: impl FnOnce(&mut Ws)) -> Said {
    let runtime = runtime();
    let mut ws = runtime.stream(json!({"command": "cat"}));
    ws.stdin(b"up\n");
    ws.expect("up\n");
    act(&mut ws);
    ws.end()
}

fn sent(text: &str) -> Said {
    after(|ws| {
        let _ = ws.socket.send(Message::text(text));
    })
}

#[test]
fn a_wrong_frame_ends_the_stream_with_its_reason() {
    needs!(Root);
    let _turn = together();
    let large = format!(
        r#"{{"type":"stdin","data_base64":"{}"}}"#,
        base64(&vec![0; 256 * 1024 + 1])
    );
    for (frame, reason) in [
        ("no json", "valid JSON"),
        ("[]", "`frame`"),
        ("{}", "`type`"),
        (r#"{"type":7}"#, "`type`"),
        (
            r#"{"type":"stdout"}"#,
            "start, stdin, close_stdin, signal, resize, heartbeat",
        ),
        (r#"{"type":"start","command":"true"}"#, "first frame only"),
        (r#"{"type":"stdin"}"#, "`data_base64`"),
        (r#"{"type":"stdin","data":"YQ=="}"#, "`data_base64`"),
        (r#"{"type":"stdin","data_base64":"YQ"}"#, "padded base64"),
        (r#"{"type":"stdin","data_base64":"%%%%"}"#, "padded base64"),
        (&large, "262144"),
        (
            r#"{"type":"signal"}"#,
            "HUP, INT, QUIT, KILL, USR1, USR2, TERM",
        ),
        (r#"{"type":"signal","signal":"STOP"}"#, "INT"),
        (r#"{"type":"signal","signal":"SIGSIGINT"}"#, "INT"),
        (r#"{"type":"signal","signal":15}"#, "`signal`"),
        (r#"{"type":"resize","rows":5,"cols":5}"#, "terminal"),
        (r#"{"type":"resize","rows":5}"#, "`cols`"),
        (r#"{"type":"resize","rows":0,"cols":5}"#, "`rows`"),
        (r#"{"type":"resize","rows":5,"cols":70000}"#, "`cols`"),
    ] {
        let said = sent(frame);
        let shown = &frame[..frame.len().min(80)];
        assert!(said.error().contains(reason), "{shown}: {}", said.error());
        assert_eq!(said.close, Some(1008), "{shown}");
    }
}

#[test]
fn frames_may_hold_more_than_they_must() {
    needs!(Root);
    let _turn = together();
    let said = after(|ws| {
        ws.send(&json!({"type": "heartbeat", "at": 5}));
        ws.send(&json!({"data_base64": base64(b"more"), "type": "stdin", "n": null}));
        ws.close_stdin();
        ws.close_stdin();
    });
    assert_eq!((said.code(), said.text().as_str()), (0, "more"));
}

#[test]
fn input_after_its_end_is_refused_and_not_lost_silently() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let mut ws = runtime.stream_sh("cat; sleep 100");
    ws.stdin(b"up\n");
    ws.expect("up\n");
    ws.close_stdin();
    ws.stdin(b"too late");
    assert!(ws.end().error().contains("end of the input"));
    let mut ws = runtime.stream(json!({"command": "sleep", "args": ["100"], "stdin": "none"}));
    ws.stdin(b"x");
    assert!(ws.end().error().contains("end of the input"));
}

#[test]
fn an_error_kills_the_command() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let marker = procs::marker();
    let mut ws = runtime.stream_sh(&format!("echo up; sleep {marker}"));
    ws.expect("up\n");
    ws.send(&json!({"type": "nonsense"}));
    while ws.said.last.is_null() {
        assert!(ws.step());
    }
    let gone = eventually(bound(100), || procs::with_arg(&marker).is_empty());
    assert!(gone, "it outlived the stream");
}

#[test]
fn binary_messages_are_refused() {
    needs!(Root);
    let _turn = together();
    let said = after(|ws| {
        let _ = ws
            .socket
            .send(Message::binary(br#"{"type":"heartbeat"}"#.to_vec()));
    });
    assert!(said.error().contains("text"));
    assert_eq!(said.close, Some(1003));
}

#[test]
fn a_client_whose_bytes_make_no_sense_any_more_is_let_go_at_once() {
    needs!(Root);
    let _turn = alone();
    for length in [1 << 20, 16 << 20] {
        let said = after(|ws| {
            let _ = ws.socket.send(Message::text("x".repeat(length + 1)));
            assert!(ws.step(), "no last word");
            let since = Instant::now();
            while ws.step() {}
            let took = since.elapsed();
            assert!(took < bound(1_000), "it was held for {took:?}");
        });
        assert_eq!(said.close, Some(1009), "{said:?}");
    }
}

#[test]
fn a_message_of_a_mebibyte_is_too_large_whole_or_in_pieces() {
    needs!(Root);
    let _turn = together();
    let text = json!({"type": "heartbeat", "pad": "x".repeat(1 << 20)}).to_string();
    let said = sent(&text);
    assert!(said.error().contains("1048576"), "{}", said.error());
    assert_eq!(said.close, Some(1009));
    let said = after(|ws| {
        for (n, piece) in text.as_bytes().chunks(1000).enumerate() {
            let kind = if n == 0 { Data::Text } else { Data::Continue };
            let frame = Frame::message(piece.to_vec(), OpCode::Data(kind), false);
            if ws.socket.send(Message::Frame(frame)).is_err() {
                break;
            }
        }
    });
    assert_eq!(said.close, Some(1009), "{said:?}");
    // The very first one as well, and one that is only announced.
    let runtime = runtime();
    let mut ws = Ws::open(api(), &runtime.stream_path());
    let _ = ws.socket.send(Message::text(text));
    assert_eq!(ws.end().close, Some(1009));
    let mut ws = Ws::open(api(), &runtime.stream_path());
    ws.raw(&[0x81, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
    assert_eq!(ws.end().close, Some(1009));
}

#[test]
fn a_message_in_fragments_with_pings_between_is_one_message() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let start = json!({"type": "start", "command": "echo", "args": ["x".repeat(1000)]}).to_string();
    let mut ws = Ws::open(api(), &runtime.stream_path());
    let pieces: Vec<&[u8]> = start.as_bytes().chunks(100).collect();
    for (n, piece) in pieces.iter().enumerate() {
        let kind = if n == 0 { Data::Text } else { Data::Continue };
        let last = n + 1 == pieces.len();
        let frame = Frame::message(piece.to_vec(), OpCode::Data(kind), last);
        ws.socket
            .send(Message::Frame(frame))
            .expect("send a fragment");
        ws.socket
            .send(Message::Ping(vec![n as u8].into()))
            .expect("ping");
    }
    let said = ws.end();
    assert_eq!((said.code(), said.stdout.len()), (0, 1001));
}

#[test]
fn pings_are_answered_also_before_start() {
    needs!(Root);
    let _turn = together();
    let mut ws = Ws::open(api(), &runtime().stream_path());
    ws.socket
        .send(Message::Ping(b"hello".to_vec().into()))
        .expect("ping");
    let answer = ws.socket.read().expect("an answer");
    assert_eq!(answer, Message::Pong(b"hello".to_vec().into()));
}

#[test]
fn what_is_no_websocket_frame_closes_with_a_protocol_error() {
    needs!(Root);
    let _turn = together();
    for (bytes, close) in [
        // Not masked, reserved bits, a reserved opcode, a continuation of nothing, a long ping.
        (vec![0x81, 0x02, b'{', b'}'], 1002),
        (vec![0xf1, 0x80, 0, 0, 0, 0], 1002),
        (vec![0x83, 0x80, 0, 0, 0, 0], 1002),
        (vec![0x80, 0x80, 0, 0, 0, 0], 1002),
        (
            [&[0x89, 0xfe, 0, 126, 0, 0, 0, 0][..], &[0; 126]].concat(),
            1002,
        ),
        // Text that is none.
        (vec![0x81, 0x81, 0, 0, 0, 0, 0xff], 1007),
    ] {
        let said = after(|ws| ws.raw(&bytes));
        said.error();
        assert_eq!(said.close, Some(close), "{bytes:?}");
    }
}

#[test]
fn a_client_that_says_nothing_is_let_go() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let start = Instant::now();
    let mut idle = Ws::open(api(), &runtime.stream_path());
    // Begins a message and does not end it; pings don't count either.
    let mut half = Ws::open(api(), &runtime.stream_path());
    half.raw(&[0x81, 0xfe, 0x10, 0x00, 0, 0, 0, 0, b'{']);
    for ws in [&mut idle, &mut half] {
        while ws.said.last.is_null() {
            assert!(ws.step());
        }
        assert!(
            ws.said.error().contains("within 10 seconds"),
            "{:?}",
            ws.said
        );
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(9), "{took:?}");
    assert!(took < Duration::from_secs(10) + bound(5_000), "{took:?}");
}

#[test]
fn two_hundred_silent_clients_hold_nobody_up() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let silent: Vec<Ws> = (0..200)
        .map(|_| Ws::open(api(), &runtime.stream_path()))
        .collect();
    let start = Instant::now();
    let said = runtime.stream_sh("echo between").end();
    assert_eq!((said.code(), said.text().as_str()), (0, "between\n"));
    assert!(start.elapsed() < bound(2_000), "{:?}", start.elapsed());
    drop(silent);
}

/// A client's move, good or bad.
#[derive(Debug, Clone)]
enum Move {
    Say(Value),
    Text(String),
    Binary(Vec<u8>),
    Ping,
    Pong,
    Raw(Vec<u8>),
    Close,
}

fn moves() -> impl Strategy<Value = Move> {
    let start = prop_oneof![
        Just(json!({"type": "start", "command": "cat"})),
        Just(json!({"type": "start", "command": "cat", "tty": true, "rows": 5, "cols": 5})),
        Just(json!({"type": "start", "command": "sh", "args": ["-c", "exit 3"]})),
        Just(json!({"type": "start", "command": "nope"})),
        Just(json!({"type": "start"})),
    ];
    let stdin = prop::collection::vec(any::<u8>(), 0..2000)
        .prop_map(|bytes| json!({"type": "stdin", "data_base64": base64(&bytes)}));
    let signal = prop_oneof![
        Just("TERM"),
        Just("sigint"),
        Just("KILL"),
        Just("STOP"),
        Just("")
    ]
    .prop_map(|name| json!({"type": "signal", "signal": name}));
    let resize = (0u32..70_000, 0u32..70_000)
        .prop_map(|(rows, cols)| json!({"type": "resize", "rows": rows, "cols": cols}));
    let said = prop_oneof![
        4 => start,
        4 => stdin,
        2 => Just(json!({"type": "close_stdin"})),
        2 => Just(json!({"type": "heartbeat"})),
        2 => resize,
        1 => signal,
        1 => Just(json!({"type": "exit", "code": 0})),
    ];
    prop_oneof![
        16 => said.prop_map(Move::Say),
        1 => "\\PC{0,30}".prop_map(Move::Text),
        1 => prop::collection::vec(any::<u8>(), 0..30).prop_map(Move::Binary),
        1 => Just(Move::Ping),
        1 => Just(Move::Pong),
        1 => prop::collection::vec(any::<u8>(), 1..30).prop_map(Move::Raw),
        1 => Just(Move::Close),
    ]
}

#[test]
fn any_sequence_of_moves_gets_an_answer_of_the_contract() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let config = Config {
        cases: times(150) as u32,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let result = runner.run(&prop::collection::vec(moves(), 0..8), |moves| {
        let mut ws = Ws::open(api(), &runtime.stream_path());
        let mut closed = false;
        for one in &moves {
            let message = match one.clone() {
                Move::Say(frame) => Message::text(frame.to_string()),
                Move::Text(text) => Message::text(text),
                Move::Binary(bytes) => Message::binary(bytes),
                Move::Ping => Message::Ping(b"p".to_vec().into()),
                Move::Pong => Message::Pong(Vec::new().into()),
                Move::Raw(bytes) => {
                    ws.raw(&bytes);
                    continue;
                }
                Move::Close => {
                    closed = true;
                    let _ = ws.socket.close(None);
                    break;
                }
            };
            let _ = ws.socket.send(message);
        }
        // Whatever is still alive is told to end, so that no case waits for a time-out.
        if !closed {
            ws.signal("KILL");
            let _ = ws.socket.close(None);
        }
        // Every frame is one of the contract: `step` checks that, and that the end comes.
        while ws.step() {}
        prop_assert_eq!(ws.said.after_last, 0);
        let ended = ws.said.close.is_some() || moves.iter().any(|one| matches!(one, Move::Raw(_)));
        prop_assert!(ended, "{:?}", ws.said);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    runtime.sh("echo well").assert_stdout("well\n");
}
