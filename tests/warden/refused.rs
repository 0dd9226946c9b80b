//! Requests that are well written and ask for what is not to be had.

use crate::needs;
use crate::raw::Raw;
use crate::requests::{create, exec, shell};
use crate::support::together;
use cellblock::resources::MIB;
use cellblock::warden::memfd;
use cellblock::warden::protocol::{CellEnd, Filesystem, Reply};
use serde_json::{Value, json};
use std::fs;
use std::os::fd::AsFd;
use uuid::Uuid;

fn invalid(field: &str) -> Value {
    json!({"kind": "invalid", "detail": field})
}

#[test]
fn limits_out_of_their_range_are_refused() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let order = memfd::seal(c"command", &shell("/", "true").encode()).expect("a memfd");
    let (most, set) = (
        u64::MAX,
        json!({"type": "set_resources", "id": raw.runtime}),
    );
    let cases = [
        ("memory_bytes", vec![0, 1, MIB - 1]),
        // 4096 is what the profile allows.
        ("pids", vec![0, 4097, 4_194_305, most]),
        ("cpu_millis", vec![0, 9, 10_000_001, most]),
    ];
    for (field, values) in cases {
        for value in values {
            let mut run = exec(raw.runtime);
            run["runtime_resources"][field] = json!(value);
            let mut set = set.clone();
            set["resources"] = run["runtime_resources"].clone();
            assert_eq!(
                raw.refused(run, &[order.as_fd()]),
                invalid(field),
                "{value}"
            );
            assert_eq!(raw.refused(set, &[]), invalid(field), "{value}");
            if field != "cpu_millis" {
                let mut run = exec(raw.runtime);
                run["cell_resources"][field] = json!(value);
                assert_eq!(
                    raw.refused(run, &[order.as_fd()]),
                    invalid(field),
                    "{value}"
                );
            }
        }
    }
    let mut run = exec(raw.runtime);
    run["cell_resources"]["cpu_secs"] = json!(0);
    assert_eq!(raw.refused(run, &[order.as_fd()]), invalid("cpu_secs"));
    for mib in [0, 1, 15, 65_537, 16 * 1024 * 1024 + 1, most] {
        let mut make = create(Uuid::now_v7(), Filesystem::Persistent);
        make["spec"]["disk_mib"] = json!(mib);
        assert_eq!(raw.refused(make, &[]), invalid("disk_mib"), "{mib}");
    }
    raw.assert_well("limits out of range");
}

/// The number in a group's file, where this host has that file.
fn limit(raw: &Raw, file: &str) -> Option<String> {
    let groups = raw.groups(raw.runtime);
    let read = |directory: &std::path::PathBuf| std::fs::read_to_string(directory.join(file)).ok();
    groups
        .iter()
        .find_map(read)
        .map(|text| text.trim().to_owned())
}

/// Neither more than the machine has nor more than the operator lets a runtime have.
#[test]
fn limits_beyond_the_machine_and_the_operators_are_lowered() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let mut run = exec(raw.runtime);
    run["runtime_resources"] =
        json!({"memory_bytes": u64::MAX, "pids": 4096, "cpu_millis": 10_000_000});
    run["cell_resources"] = json!({"memory_bytes": u64::MAX, "pids": 4096, "cpu_secs": u64::MAX});
    let check = |what: &str| {
        let machine = cellblock::config::memory_bytes().expect("the machine's memory");
        let memory = limit(&raw, "memory.limit_in_bytes").or_else(|| limit(&raw, "memory.max"));
        let memory: u64 = memory.expect("a limit").parse().expect("a number");
        assert!(memory <= machine, "{what}: {memory} of {machine}");
        // The test's warden was told that a runtime may have one CPU.
        match limit(&raw, "cpu.cfs_quota_us") {
            Some(quota) => assert_eq!(quota, "100000", "{what}"),
            None => assert_eq!(
                limit(&raw, "cpu.max").as_deref(),
                Some("100000 100000"),
                "{what}"
            ),
        }
    };
    let ran = raw.run(run.clone(), &shell("/", "true").encode());
    assert_eq!(ran.end, CellEnd::Exited(0));
    check("an exec");
    let set =
        json!({"type": "set_resources", "id": raw.runtime, "resources": run["runtime_resources"]});
    let reply = raw.ask(set, &[]);
    assert!(matches!(reply, Reply::Done { .. }), "{reply:?}");
    check("new limits");
    raw.assert_well("limits beyond the machine");
}

#[test]
fn a_name_that_is_a_path_names_nothing() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    // What a name with a path in it would find: a record like those of the images, and a profile.
    let host = raw.host();
    let record = json!({"rootfs": host.join("directory")}).to_string();
    let planted = raw.data().join("planted.json");
    std::fs::write(&planted, &record).expect("plant a record");
    let outside = host.parent().expect("a parent").join("planted");
    std::fs::write(outside.with_extension("json"), &record).expect("plant a record");
    let absolute = outside.display().to_string();
    let long = "x".repeat(64);
    let names = [
        "../planted",
        "../../planted",
        "./../planted",
        &absolute,
        "",
        ".",
        "..",
        "/",
        "a/b",
        "host/../planted",
        "host/",
        "planted\0",
        "planted\n",
        "-planted",
        ".planted",
        &long,
        "ä",
        "Host",
        " host",
    ];
    let assert_unknown = |field: &str, name: &str| {
        let mut make = create(Uuid::now_v7(), Filesystem::ReadOnly);
        make["spec"][field] = json!(name);
        let unknown = json!({"kind": format!("unknown_{field}")});
        assert_eq!(raw.refused(make, &[]), unknown, "{name:?}");
    };
    for name in names {
        assert_unknown("image", name);
        assert_unknown("profile", name);
        if name != "Host" {
            let list = json!({"type": "list_images", "after": name});
            assert_eq!(raw.refused(list, &[]), invalid("after"), "{name:?}");
        }
    }
    for name in [
        "default.toml",
        "../sandbox-profiles/default",
        "seccomp/default",
        "unconfined",
    ] {
        assert_unknown("profile", name);
    }
    std::fs::remove_file(planted).expect("remove what was planted");
    raw.assert_well("names that are paths");
}

#[test]
fn ids_that_nobody_has_or_somebody_has_already_are_refused() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let order = memfd::seal(c"command", &shell("/", "true").encode()).expect("a memfd");
    for id in [Uuid::nil(), Uuid::max(), Uuid::now_v7()] {
        for kind in [
            "delete_runtime",
            "start_runtime",
            "stop_runtime",
            "pause_runtime",
            "resume_runtime",
        ] {
            let failure = raw.refused(json!({"type": kind, "id": id}), &[]);
            assert_eq!(failure, json!({"kind": "unknown_runtime"}), "{kind} {id}");
        }
        let resources = exec(id)["runtime_resources"].clone();
        let set = json!({"type": "set_resources", "id": id, "resources": resources});
        assert_eq!(raw.refused(set, &[])["kind"], "unknown_runtime");
        assert_eq!(
            raw.refused(exec(id), &[order.as_fd()])["kind"],
            "unknown_runtime"
        );
        let copy = json!({"type": "create_checkpoint", "id": Uuid::now_v7(), "runtime": id});
        assert_eq!(raw.refused(copy, &[])["kind"], "unknown_runtime");
        let gone = json!({"type": "delete_checkpoint", "id": id});
        assert_eq!(raw.refused(gone, &[])["kind"], "unknown_checkpoint");
        let mut make = create(Uuid::now_v7(), Filesystem::Persistent);
        make["checkpoint"] = json!(id);
        assert_eq!(raw.refused(make, &[])["kind"], "unknown_checkpoint");
    }
    for id in [Uuid::nil(), raw.runtime] {
        assert_eq!(
            raw.refused(create(id, Filesystem::ReadOnly), &[]),
            invalid("id")
        );
    }
    let copy = json!({"type": "create_checkpoint", "id": Uuid::nil(), "runtime": raw.runtime});
    assert_eq!(raw.refused(copy, &[]), invalid("id"));
    // There is nothing to copy in a runtime without a disk.
    let copy = json!({"type": "create_checkpoint", "id": Uuid::now_v7(), "runtime": raw.runtime});
    assert_eq!(raw.refused(copy, &[]), invalid("runtime"));
    raw.assert_well("ids that nobody has");
}

#[test]
fn what_is_on_disk_and_no_record_stays_and_keeps_its_id() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let source = Uuid::now_v7();
    raw.create(source, Filesystem::Persistent);
    let id = Uuid::now_v7();
    let copy = json!({"type": "create_checkpoint", "id": id, "runtime": source});
    // As of a record that this release can't read.
    for (kind, request) in [
        ("runtimes", create(id, Filesystem::Persistent)),
        ("checkpoints", copy),
    ] {
        let place = raw.data().join(kind).join(id.to_string());
        fs::create_dir(&place).expect("create");
        fs::write(place.join("disk"), "precious").expect("write");
        assert_eq!(raw.refused(request, &[]), invalid("id"), "{kind}");
        let kept = fs::read_to_string(place.join("disk")).expect("it stays");
        assert_eq!(kept, "precious", "{kind}");
        fs::remove_dir_all(place).expect("remove");
    }
    raw.delete(source);
    raw.assert_well("ids of what is no record");
}

#[test]
fn a_host_name_that_is_none_is_refused() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let order = memfd::seal(c"command", &shell("/", "true").encode()).expect("a memfd");
    let long = "x".repeat(64);
    for name in ["", "a/b", "a b", "a\0b", "a\nb", "ä", "$(id)", &long] {
        let mut run = exec(raw.runtime);
        run["hostname"] = json!(name);
        assert_eq!(
            raw.refused(run, &[order.as_fd()]),
            invalid("hostname"),
            "{name:?}"
        );
    }
    raw.assert_well("host names that are none");
}

/// A number in use can't be given out again, so that a kill or a signal never reaches another cell than was meant; a number
/// of nobody's is nothing to do for.
#[test]
fn a_number_in_use_names_one_cell_and_no_other_can_be_ended_by_it() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let sleeper = raw.sleeper(exec(raw.runtime));
    let seq = sleeper.seq;
    let mut again = exec(raw.runtime);
    again["seq"] = json!(seq);
    raw.send(again.to_string().as_bytes(), &[sleeper.order.as_fd()]);
    let (reply, _) = raw.reply(seq);
    let reply = serde_json::to_value(reply).expect("plain data");
    assert_eq!(reply["failure"], invalid("seq"));
    for other in [0, seq + 1, seq + 1000, u64::MAX] {
        raw.kill(other);
        let signal = json!({"type": "signal", "seq": other, "signal": "kill"});
        raw.send(signal.to_string().as_bytes(), &[]);
    }
    raw.assert_silent("kills of nobody");
    assert_eq!(sleeper.processes(), [sleeper.pid], "ended by another's");
    // Twice, and for one more time when it has ended.
    raw.kill(seq);
    raw.kill(seq);
    let (reply, _) = raw.reply(seq);
    assert!(matches!(reply, Reply::Ended { .. }), "{reply:?}");
    raw.kill(seq);
    raw.assert_silent("a kill of what has ended");
    raw.assert_well("numbers in use");
}

/// What becomes of a checkpoint is its own: it can't be laid over another image, profile or kind of runtime.
#[test]
fn a_checkpoint_becomes_a_runtime_of_its_own_kind_only() {
    needs!(Root);
    let _turn = together();
    let raw = Raw::start();
    let (runtime, checkpoint) = (Uuid::now_v7(), Uuid::now_v7());
    raw.create(runtime, Filesystem::Persistent);
    let copy = json!({"type": "create_checkpoint", "id": checkpoint, "runtime": runtime});
    let reply = raw.ask(copy, &[]);
    assert!(matches!(reply, Reply::Checkpointed { .. }), "{reply:?}");
    let of = |field: &str, value: Value| {
        let mut make = create(Uuid::now_v7(), Filesystem::Persistent);
        make["checkpoint"] = json!(checkpoint);
        if !field.is_empty() {
            make["spec"][field] = value;
        }
        make
    };
    for (field, value) in [
        ("profile", json!("strict")),
        ("image", json!("other")),
        ("filesystem", json!("ephemeral")),
        ("filesystem", json!("read_only")),
    ] {
        let failure = raw.refused(of(field, value.clone()), &[]);
        assert_eq!(failure, invalid("checkpoint"), "{field} {value}");
    }
    let good = of("", Value::Null);
    let reply = raw.ask(good.clone(), &[]);
    assert!(matches!(reply, Reply::Created { .. }), "{reply:?}");
    let made: Uuid = serde_json::from_value(good["spec"]["id"].clone()).expect("an id");
    assert_eq!(raw.sh(made, "echo well").text(), "well\n");
    for request in [
        json!({"type": "delete_runtime", "id": made}),
        json!({"type": "delete_runtime", "id": runtime}),
        json!({"type": "delete_checkpoint", "id": checkpoint}),
    ] {
        let reply = raw.ask(request, &[]);
        assert!(matches!(reply, Reply::Done { .. }), "{reply:?}");
    }
    raw.assert_well("checkpoints of another kind");
}
