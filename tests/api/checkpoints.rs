//! Checkpoints: what they hold, what becomes of them, and what they refuse.

use crate::needs;
use crate::support::client::is_uuid_v7;
use crate::support::{
    Runtime, alone, api, assert_error, assert_invalid, bound, eventually, procs, runtime,
    runtime_with, server, together,
};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A checkpoint, deleted when it goes out of scope.
struct Checkpoint(Value);

impl Checkpoint {
    #[track_caller]
    fn of(runtime: &Runtime) -> Checkpoint {
        Checkpoint::with(runtime, json!({}))
    }

    #[track_caller]
    fn with(runtime: &Runtime, body: Value) -> Checkpoint {
        let path = format!("/v1/runtimes/{}/checkpoints", runtime.id);
        let made = Checkpoint(api().post(&path, &body).data(200));
        assert_eq!(made.0["state"], "ready", "{}", made.0);
        made
    }

    fn id(&self) -> &str {
        self.0["id"].as_str().expect("an id")
    }

    fn path(&self) -> String {
        format!("/v1/checkpoints/{}", self.id())
    }

    fn restore(&self) -> Runtime {
        runtime_with(json!({"checkpoint_id": self.id()}))
    }

    fn disk(&self) -> PathBuf {
        let all = server().data_dir().join("checkpoints");
        all.join(self.id()).join("disk.img")
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        let _ = api().try_send("DELETE", &self.path(), &[], None);
    }
}

fn list(query: &str) -> Value {
    let reply = api().get(&format!("/v1/checkpoints{query}"));
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn operate(runtime: &Runtime, operation: &str) -> Value {
    let path = format!("/v1/runtimes/{}/{operation}", runtime.id);
    api().send("POST", &path, &[], None).data(200)["status"].clone()
}

/// Everything about a tree that a copy could lose.
const LOOK: &str = "
import os, stat
for top, dirs, files in sorted(os.walk(os.path.expanduser('~'))):
    for name in sorted(dirs + files):
        path = os.path.join(top, name)
        s = os.lstat(path)
        link = os.readlink(path) if stat.S_ISLNK(s.st_mode) else ''
        text = open(path).read(100) if stat.S_ISREG(s.st_mode) and s.st_mode & 0o400 else ''
        xattrs = [] if link else [(x, os.getxattr(path, x)) for x in sorted(os.listxattr(path))]
        print(path, oct(s.st_mode), s.st_uid, s.st_gid, s.st_size, s.st_nlink, s.st_mtime_ns, link, text, xattrs)
print(os.path.exists('/etc/hosts'), os.stat('/tmp').st_mode)
";

#[test]
fn a_restored_runtime_has_the_files_of_that_moment() {
    needs!(Root, Python);
    let _turn = together();
    for profile in ["default", "strict"] {
        let source = runtime_with(json!({
            "profile": profile,
            "limits": {"disk_mib": 64},
            "environment_variables": {"FROM": "source"},
        }));
        source
            .sh("cd; echo old > file; chmod 4640 file; ln file hard; ln -s file soft; mkdir -p d/e; \
                 chmod 1711 d; echo secret > d/locked; chmod 0 d/locked; mkfifo fifo; \
                 truncate -s 1G sparse; touch -d 2001-02-03 d/e; rm -f /etc/hosts; \
                 /usr/bin/python3 -c 'import os; os.setxattr(\"file\", \"user.note\", b\"x\")'")
            .assert_code(0);
        let before = source.python(LOOK);
        before.assert_code(0);
        assert!(before.stdout().contains("user.note"), "{before:?}");
        let checkpoint = Checkpoint::of(&source);
        source
            .sh("cd; echo changed > file; rm soft; echo new > new")
            .assert_code(0);

        let restored = checkpoint.restore();
        let uids = (source.host_uids(), restored.host_uids());
        assert_ne!(uids.0, uids.1, "two runtimes share a uid range");
        restored.python(LOOK).assert_stdout(before.stdout());
        restored.sh("echo $FROM").assert_stdout("source\n");
        // They are its own: all that an owner may do, it may.
        restored
            .sh(
                "cd; echo more >> file; chmod 600 d/locked; cat d/locked; rm -r d; mv soft soft2; \
                 echo 127.0.0.1 > /etc/hosts; echo t > /tmp/t; cat file soft2",
            )
            .assert_stdout("secret\nold\nmore\nold\nmore\n");
        source
            .sh("cd; cat file; ls d")
            .assert_stdout("changed\ne\nlocked\n");

        // And once more, from the copy of a copy.
        let again = Checkpoint::of(&restored);
        drop(restored);
        drop(source);
        let third = again.restore();
        third
            .sh("cd; cat file; echo x > y; rm y; id -u")
            .assert_code(0);
        let first = checkpoint.restore();
        first.python(LOOK).assert_stdout(before.stdout());
    }
}

#[test]
fn what_is_being_written_is_caught_between_two_writes() {
    needs!(Root, Python);
    let _turn = together();
    let source = runtime_with(json!({"limits": {"disk_mib": 128}}));
    // The first file is always as new as the second or one newer.
    let code = "
import os
n = 0
while True:
    n += 1
    for name in 'ab':
        with open('/root/' + name + '.new', 'w') as f: f.write('%d ' % n * 500)
        os.rename('/root/' + name + '.new', '/root/' + name)
    os.makedirs('/root/many', exist_ok=True)
    open('/root/many/%d' % (n % 3000), 'w').write(str(n))
";
    let body = json!({"command": "/usr/bin/python3", "args": ["-c", code]}).to_string();
    let path = source.exec_path();
    let _running = api().begin(&path, body.len() as u64, body.as_bytes());
    assert!(eventually(bound(10_000), || !procs::with_arg(code).is_empty()));
    source
        .sh("i=0; until [ -e /root/b ] || [ $i -ge 200 ]; do sleep 0.05; i=$((i+1)); done")
        .assert_code(0);
    for _ in 0..4 {
        let checkpoint = Checkpoint::of(&source);
        let check = std::process::Command::new("e2fsck")
            .args(["-f", "-n"])
            .arg(checkpoint.disk())
            .output()
            .expect("run e2fsck");
        let said = String::from_utf8_lossy(&check.stdout);
        assert!(check.status.success(), "{said}");
        assert!(!said.contains("recovering journal"), "{said}");
        let restored = checkpoint.restore();
        let numbers =
            restored.sh("for f in a b; do tr ' ' '\\n' < /root/$f | sort -u | grep .; done");
        let numbers: Vec<u64> = numbers
            .lines()
            .iter()
            .map(|n| n.parse().expect("a number"))
            .collect();
        let [a, b] = numbers[..] else {
            panic!("a file of mixed versions: {numbers:?}")
        };
        assert!(a == b || a == b + 1, "written in another order: {a} {b}");
        // The writer goes on.
        let look = "a=$(head -c 20 /root/a); i=0; while [ \"$a\" = \"$(head -c 20 /root/a)\" ]; do \
                    sleep 0.05; i=$((i+1)); [ $i -lt 200 ] || exit 1; done";
        source.sh(look).assert_code(0);
    }
}

#[test]
fn commands_wait_while_the_disk_is_copied() {
    needs!(Root);
    let _turn = together();
    let source = runtime_with(json!({"limits": {"disk_mib": 512}}));
    source
        .sh_with(
            "head -c 300M /dev/urandom > /root/big",
            json!({"timeout_secs": 120}),
        )
        .assert_code(0);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let copy = scope.spawn(|| Checkpoint::of(&source));
        let mut statuses = Vec::new();
        while !copy.is_finished() {
            statuses.push(
                source
                    .try_exec(&json!({"command": "true", "timeout_secs": 1}))
                    .status,
            );
        }
        let checkpoint = copy.join().expect("no panic");
        assert!(
            checkpoint.0["disk_bytes"].as_u64() >= Some(300 << 20),
            "{}",
            checkpoint.0
        );
        statuses
    });
    assert!(
        !statuses.is_empty() && statuses.iter().all(|s| *s == 200),
        "{statuses:?}"
    );
}

#[test]
fn the_object_has_every_field_that_clients_parse() {
    needs!(Root);
    let _turn = together();
    let source = runtime_with(json!({
        "name": "cp-object", "limits": {"disk_mib": 64, "pids": 50},
        "resources": {"requests": {"memory_mib": 128, "vcpus": 1}, "limits": {"memory_mib": 256}},
    }));
    let unnamed = Checkpoint::of(&source);
    let name = unnamed.0["display_name"].as_str().expect("a name");
    assert!(name.starts_with("cp-object-"), "{name}");
    let named = Checkpoint::with(&source, json!({"name": "Worker ready ✓", "kind": "full"}));
    let object = &named.0;
    assert!(is_uuid_v7(named.id()));
    for (pointer, value) in [
        ("/display_name", json!("Worker ready ✓")),
        ("/state", json!("ready")),
        ("/kind", json!("full")),
        ("/includes_memory", json!(false)),
        ("/runtime_id", json!(source.id)),
        ("/resources/requests/memory_mib", json!(128)),
        ("/resources/requests/vcpus", json!(1)),
        ("/resources/limits/memory_mib", json!(256)),
        ("/resources/current/memory_mib", json!(128)),
        ("/vcpus", json!(1)),
        ("/cur_memory_mib", json!(128)),
        ("/max_memory_mib", json!(256)),
        ("/min_memory_mib", json!(128)),
        ("/arch", source.object["arch"].clone()),
        ("/image", json!("host")),
        ("/profile", json!("default")),
        ("/filesystem", json!("persistent")),
        ("/limits", json!({"disk_mib": 64, "pids": 50})),
    ] {
        assert_eq!(object.pointer(pointer), Some(&value), "{pointer}");
    }
    assert!(
        object["created_at"]
            .as_str()
            .is_some_and(|t| t.ends_with('Z'))
    );
    let bytes = object["disk_bytes"].as_u64().expect("a size");
    let on_disk = std::fs::metadata(named.disk()).expect("the copy");
    assert_eq!(bytes, on_disk.blocks() * 512);
    assert!(
        bytes < 32 << 20,
        "{bytes} bytes for an empty disk: its holes were filled"
    );
    assert_eq!(on_disk.len(), 64 << 20);
    assert_eq!(&api().get(&named.path()).data(200), object);
}

#[test]
fn lists_page_and_cursors_are_for_their_own_list() {
    needs!(Root);
    let _turn = alone();
    let source = runtime_with(json!({"limits": {"disk_mib": 32}}));
    let made: Vec<Checkpoint> = (0..3)
        .map(|_| Checkpoint::with(&source, json!({"name": "same"})))
        .collect();
    let all = list("");
    assert_eq!(all["pagination"]["total"], 3);
    let ids: Vec<&str> = made.iter().map(Checkpoint::id).collect();
    let found = |list: &Value| -> Vec<String> {
        let data = list["data"].as_array().expect("a list");
        data.iter()
            .map(|item| item["id"].as_str().expect("an id").to_owned())
            .collect()
    };
    assert_eq!(found(&all), ids);
    assert_eq!(
        all["pagination"].as_object().map(|keys| keys.len()),
        Some(6)
    );
    let first = list("?limit=2");
    let cursor = first["pagination"]["next_cursor"]
        .as_str()
        .expect("a cursor");
    assert_eq!(found(&first), ids[..2]);
    assert_eq!(found(&list(&format!("?limit=2&after={cursor}"))), ids[2..]);
    assert_eq!(
        found(&list("?limit=1&offset=1&include_system=true")),
        ids[1..2]
    );
    assert_invalid(
        &api().get(&format!("/v1/runtimes?limit=2&after={cursor}")),
        "after",
    );
    assert_invalid(&api().get("/v1/checkpoints?limit=0"), "limit");
    assert_invalid(&api().get("/v1/checkpoints?after=AAAA"), "after");
}

#[test]
fn a_deleted_checkpoint_is_gone_and_its_disk_too() {
    needs!(Root);
    let _turn = together();
    let source = runtime_with(json!({"limits": {"disk_mib": 32}}));
    let checkpoint = Checkpoint::of(&source);
    let restored = checkpoint.restore();
    assert_eq!(api().delete(&checkpoint.path()).data(200), json!({}));
    for reply in [
        api().delete(&checkpoint.path()),
        api().get(&checkpoint.path()),
    ] {
        assert_error(&reply, 404, "not_found");
    }
    assert!(!checkpoint.disk().exists());
    let body = json!({"checkpoint_id": checkpoint.id()});
    assert_error(&api().post("/v1/runtimes", &body), 404, "not_found");
    restored
        .sh("echo mine > /root/x; cat /root/x")
        .assert_stdout("mine\n");
    for id in [
        "x",
        "..",
        "%00",
        "%ff",
        "0198f3c2-7b5e-7cc3-98d5-1f2a3b4c5d6e",
    ] {
        assert_error(
            &api().get(&format!("/v1/checkpoints/{id}")),
            404,
            "not_found",
        );
        assert_error(
            &api().delete(&format!("/v1/checkpoints/{id}")),
            404,
            "not_found",
        );
    }
}

#[test]
fn stopped_and_paused_runtimes_stay_so() {
    needs!(Root);
    let _turn = together();
    let source = runtime_with(json!({"limits": {"disk_mib": 32}}));
    source.sh("echo 1 > /root/n").assert_code(0);
    for (operation, status, back) in [("stop", "shutdown", "start"), ("pause", "paused", "resume")]
    {
        assert_eq!(operate(&source, operation), status);
        let checkpoint = Checkpoint::of(&source);
        let now = api().get(&format!("/v1/runtimes/{}", source.id)).data(200);
        assert_eq!(now["status"], status);
        assert_error(
            &source.try_exec(&json!({"command": "true"})),
            409,
            "failed_precondition",
        );
        let restored = checkpoint.restore();
        assert_eq!(restored.object["status"], "running");
        restored.sh("cat /root/n").assert_stdout("1\n");
        assert_eq!(operate(&source, back), "running");
    }
}

#[test]
fn a_restored_disk_may_be_larger_and_not_smaller() {
    needs!(Root);
    let _turn = together();
    let source = runtime_with(json!({"limits": {"disk_mib": 64}}));
    source.sh("echo kept > /root/file").assert_code(0);
    let checkpoint = Checkpoint::of(&source);
    let body = |fields: Value| {
        let mut body = json!({"checkpoint_id": checkpoint.id()});
        body.as_object_mut()
            .expect("an object")
            .extend(fields.as_object().expect("fields").clone());
        body
    };
    let larger = runtime_with(body(json!({"limits": {"disk_mib": 300}})));
    assert_eq!(larger.object["limits"]["disk_mib"], 300);
    larger
        .sh("cat /root/file; dd if=/dev/zero of=/root/big bs=1M count=200 2>/dev/null && echo fits")
        .assert_stdout("kept\nfits\n");
    for (fields, field) in [
        (json!({"limits": {"disk_mib": 63}}), "limits.disk_mib"),
        (json!({"image": "other"}), "image"),
        (json!({"profile": "strict"}), "profile"),
        (json!({"filesystem": "ephemeral"}), "filesystem"),
        (json!({"filesystem": "read_only"}), "filesystem"),
        (json!({"checkpoint_id": "x"}), "checkpoint_id"),
        (json!({"checkpoint_id": 1}), "checkpoint_id"),
    ] {
        assert_invalid(&api().post("/v1/runtimes", &body(fields)), field);
    }
    let same = body(json!({"image": "host", "profile": "default", "filesystem": "persistent"}));
    runtime_with(same)
        .sh("cat /root/file")
        .assert_stdout("kept\n");
    let unknown = json!({"checkpoint_id": "0198f3c2-7b5e-7cc3-98d5-1f2a3b4c5d6e"});
    assert_error(&api().post("/v1/runtimes", &unknown), 404, "not_found");
}

#[test]
fn what_keeps_no_files_has_no_checkpoint() {
    needs!(Root);
    let _turn = together();
    for kind in ["ephemeral", "read_only"] {
        let runtime = runtime_with(json!({"filesystem": kind}));
        let path = format!("/v1/runtimes/{}/checkpoints", runtime.id);
        let reply = api().post(&path, &json!({}));
        assert_error(&reply, 409, "failed_precondition");
        assert!(reply.text().contains(kind), "{}", reply.text());
    }
}

#[test]
fn a_bad_request_makes_nothing() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let path = format!("/v1/runtimes/{}/checkpoints", runtime.id);
    let total = || list("")["pagination"]["total"].clone();
    let before = total();
    for (body, field) in [
        (json!({"kind": "partial"}), "kind"),
        (json!({"kind": 1}), "kind"),
        (json!({"name": ""}), "name"),
        (json!({"name": "a\nb"}), "name"),
        (json!({"name": "x".repeat(129)}), "name"),
        (json!({"name": 1}), "name"),
    ] {
        assert_invalid(&api().post(&path, &body), field);
    }
    assert_error(
        &api().post_bytes(&path, "application/json", b"{"),
        400,
        "invalid_argument",
    );
    let unknown = api().post("/v1/runtimes/no-such/checkpoints", &json!({}));
    assert_error(&unknown, 404, "not_found");
    assert_eq!(total(), before);
}
