//! Packets that are no request.

use crate::needs;
use crate::raw::Raw;
use crate::requests::{create, exec, shell};
use crate::support::together;
use cellblock::warden::memfd;
use cellblock::warden::protocol::{Filesystem, MAX_MESSAGE, Reply};
use serde_json::{Value, json};
use std::os::fd::AsFd;
use uuid::Uuid;

#[test]
fn a_packet_that_is_no_request_is_dropped_and_not_answered() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let mut packets: Vec<Vec<u8>> = [
        "x",
        "\0",
        " ",
        "null",
        "true",
        "7",
        "[]",
        "{}",
        "\"exec\"",
        "{\"type\":",
        r#"{"type":"exec"}"#,
        r#"{"type":"Exec","seq":1}"#,
        r#"{"type":"open_shell","seq":1}"#,
        r#"{"type":"done","seq":1}"#,
        r#"{"type":"started","seq":1}"#,
        r#"{"type":7,"seq":1}"#,
        r#"{"type":["list_runtimes"],"seq":1,"after":null}"#,
        r#"{"seq":1,"after":null}"#,
        r#"{"type":"list_runtimes","seq":1,"seq":2,"after":null}"#,
        r#"{"type":"list_runtimes","type":"list_images","seq":1,"after":null}"#,
        r#"{"type":"list_runtimes","seq":1,"after":null}{"type":"list_runtimes","seq":2,"after":null}"#,
        r#"{"type":"list_runtimes","seq":1,"after":null,"path":"/etc/shadow"}"#,
        r#"{"type":"list_images","seq":1,"after":7}"#,
        r#"{"type":"kill"}"#,
        r#"{"type":"signal","seq":1,"signal":"stop"}"#,
        r#"{"type":"signal","seq":1,"signal":19}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    packets.push(vec![0xff; 100]);
    packets.push(vec![b'['; MAX_MESSAGE]);
    packets.push(vec![b' '; MAX_MESSAGE]);
    packets.push(
        [
            &b"{\"type\":\"list_runtimes\",\"seq\":1,\"after\":\""[..],
            &[0xc3, 0x28],
            b"\"}",
        ]
        .concat(),
    );
    // A proper request, cut at each of its bytes.
    let whole = exec(raw.runtime).to_string();
    packets.extend((1..whole.len()).map(|length| whole.as_bytes()[..length].to_vec()));
    let command = memfd::seal(c"command", &shell("/", "true").encode()).expect("a memfd");
    for packet in packets {
        raw.send(&packet, &[command.as_fd()]);
        raw.assert_silent(&String::from_utf8_lossy(&packet));
    }
    raw.assert_well("malformed packets");
}

#[test]
fn a_packet_that_is_too_long_is_dropped_and_not_cut() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    // What is left of it after the cut would be a request.
    for (length, done) in [
        (MAX_MESSAGE + 1, false),
        (100_000, false),
        (MAX_MESSAGE, true),
    ] {
        let id = Uuid::now_v7();
        raw.create(id, Filesystem::ReadOnly);
        let mut bytes = json!({"type": "delete_runtime", "seq": 7_000_000, "id": id})
            .to_string()
            .into_bytes();
        bytes.resize(length, b' ');
        raw.send(&bytes, &[raw.link.as_fd()]);
        match done {
            false => raw.assert_silent(&format!("{length} bytes")),
            true => assert_eq!(raw.reply(7_000_000).0, Reply::Done { seq: 7_000_000 }),
        }
        if !done {
            raw.delete(id);
        }
    }
    raw.assert_well("packets that are too long");
}

/// SOCK_SEQPACKET can't tell it from a closed socket (recvmsg(2)). So it ends the link, which an api process may always do.
#[test]
fn an_empty_packet_is_the_end_and_takes_every_cell_along() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let sleeper = raw.sleeper(exec(raw.runtime));
    raw.send(b"", &[sleeper.order.as_fd()]);
    assert_eq!(raw.ended(), Some(0), "{}", raw.log());
    assert_eq!(sleeper.processes(), [0; 0], "a cell outlived it");
    raw.assert_nothing_left();
}

/// A request with one field in the place of another.
fn with(mut request: Value, field: &str, value: &Value) -> Value {
    *request.pointer_mut(field).expect("a field") = value.clone();
    request
}

#[test]
fn what_is_no_number_no_id_and_no_word_of_the_protocol_is_dropped() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let command = memfd::seal(c"command", &shell("/", "true").encode()).expect("a memfd");
    let words: Vec<Value> = [
        "-1",
        "1.5",
        "1e3",
        "1e400",
        "18446744073709551616",
        "\"1\"",
        "[1]",
        "{}",
    ]
    .into_iter()
    .chain([
        "\"../../etc\"",
        "\"/\"",
        "\"\"",
        "\"a/b\"",
        "\"..\"",
        "\"\\u0000\"",
    ])
    .filter_map(|text| serde_json::from_str(text).ok())
    .collect();
    let resources = json!({"memory_bytes": 1, "pids": 1, "cpu_millis": 1});
    let id = raw.runtime;
    let (make, run) = (create(Uuid::now_v7(), Filesystem::ReadOnly), exec(id));
    let set = json!({"type": "set_resources", "id": id, "resources": resources});
    let copy = json!({"type": "create_checkpoint", "id": Uuid::now_v7(), "runtime": id});
    let fields = [
        (&make, "/spec/id"),
        (&make, "/spec/disk_mib"),
        (&make, "/spec/filesystem"),
        (&make, "/checkpoint"),
        (&run, "/runtime"),
        (&run, "/runtime_resources/memory_bytes"),
        (&run, "/runtime_resources/pids"),
        (&run, "/runtime_resources/cpu_millis"),
        (&run, "/cell_resources/memory_bytes"),
        (&run, "/cell_resources/pids"),
        (&run, "/cell_resources/cpu_secs"),
        (&run, "/stdin"),
        (&run, "/terminal"),
        (&set, "/id"),
        (&set, "/resources/memory_bytes"),
        (&copy, "/id"),
        (&copy, "/runtime"),
    ];
    for (request, field) in fields {
        for word in &words {
            let wrong = with(request.clone(), field, word);
            raw.send_json(wrong.clone(), &[command.as_fd()]);
            raw.assert_silent(&wrong.to_string());
        }
    }
    // NaN and the like are no JSON.
    for word in ["NaN", "Infinity", "-0x1", "0x10", "01", "1_000"] {
        let text = set
            .to_string()
            .replace("\"pids\":1", &format!("\"pids\":{word}"));
        raw.send(text.as_bytes(), &[]);
        raw.assert_silent(&text);
    }
    raw.assert_well("values of other kinds");
}

/// What only the warden decides has no field: neither a host uid nor a path, nor a profile for one command.
#[test]
fn there_is_no_field_for_what_only_the_warden_decides() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let command = memfd::seal(c"command", &shell("/", "true").encode()).expect("a memfd");
    let zero = json!({"uid": 0, "gid": 0});
    let more = [
        ("uid_base", json!(0)),
        ("disk_base", json!(0)),
        ("ids", zero),
        ("uid", json!(0)),
        ("image_id", json!(format!("sha256:{}", "0".repeat(64)))),
        ("path", json!(raw.host())),
        ("mounts", json!([{"source": "/", "target": "/mnt"}])),
        ("profile", json!("default")),
        ("seccomp", json!(null)),
        ("capabilities", json!(["CAP_SYS_ADMIN"])),
        ("privileged", json!(true)),
    ];
    for (name, value) in more {
        let mut make = create(Uuid::now_v7(), Filesystem::ReadOnly);
        make[name] = value.clone();
        raw.send_json(make.clone(), &[]);
        raw.assert_silent(&make.to_string());
        let mut run = exec(raw.runtime);
        run[name] = value.clone();
        raw.send_json(run.clone(), &[command.as_fd()]);
        raw.assert_silent(&run.to_string());
        if name != "profile" {
            let mut make = create(Uuid::now_v7(), Filesystem::ReadOnly);
            make["spec"][name] = value;
            raw.send_json(make.clone(), &[]);
            raw.assert_silent(&make.to_string());
        }
    }
    raw.assert_well("fields that are none");
}
