//! The disk under the data directory is full while an image is imported, a disk is copied or a detached command's output is
//! kept: the reason is told, nothing half made stays, and all is well once there is room again.

use crate::needs;
use crate::support::server::Options;
use crate::support::{Server, alone, assert_error, bound};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A server whose data directory is on a small disk, of which nothing is kept back for root.
fn small(mib: u32) -> Server {
    Server::start(Options::on_small_disk(mib, "-m 0"))
}

/// Takes all room there is but `left` bytes, until it is dropped.
struct Filler(PathBuf);

impl Filler {
    fn leave(server: &Server, left: u64) -> Filler {
        let path = server.own_data_dir().join("filler");
        let mut file = File::create(&path).expect("start to fill the disk");
        let (mut written, mut size) = (0, 1 << 20);
        while size > 0 {
            match file.write(&vec![0; size]) {
                Ok(count) => written += count as u64,
                Err(_) => size /= 2,
            }
        }
        assert!(written > left, "there was no room from the start");
        // Blocks are taken when they are written back, unless asked for before.
        file.sync_all().expect("write it back");
        file.set_len(written - left).expect("leave a little");
        file.sync_all().expect("write it back");
        Filler(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// All names below a directory.
fn names(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let mut found: Vec<PathBuf> = entries
        .flat_map(|entry| {
            let path = entry.path();
            let below = match path.is_dir() && !path.is_symlink() {
                true => names(&path),
                false => Vec::new(),
            };
            std::iter::once(path).chain(below)
        })
        .collect();
    found.sort();
    found
}

/// Imports an image, where the server's file system is mounted.
fn import(server: &Server, name: &str, source: &Path) -> Output {
    Command::new("nsenter")
        .args(["-t", &server.pid.to_string(), "-m"])
        .args([env!("CARGO_BIN_EXE_cellblock"), "image", "import", name])
        .arg(source)
        .arg("--data-dir")
        .arg(server.data_dir())
        .output()
        .expect("run nsenter")
}

#[test]
fn an_image_that_finds_no_room_leaves_nothing() {
    needs!(Root, Unshare);
    let _turn = alone();
    let server = small(96);
    let tree = tempfile::tempdir().expect("a directory");
    for number in 0..8 {
        let file = tree.path().join(format!("file-{number}"));
        fs::write(file, vec![number; 1 << 20]).expect("write a file");
    }
    let beside = tempfile::tempdir().expect("a directory");
    let archive = beside.path().join("image.tar");
    let packed = Command::new("tar")
        .arg("-cf")
        .arg(&archive)
        .arg("-C")
        .arg(tree.path())
        .arg(".")
        .status();
    assert!(packed.expect("run tar").success());
    let images = server.own_data_dir().join("images");
    // The store is there from the first image on.
    let small = tempfile::tempdir().expect("a directory");
    fs::write(small.path().join("file"), "small").expect("write a file");
    let made = import(&server, "small", small.path());
    assert!(made.status.success(), "{made:?}");
    let before = names(&images);
    let listed = || server.api.get("/v1/images").data(200);
    let known = listed();
    for source in [tree.path(), archive.as_path()] {
        // Enough to begin with, and not for the whole.
        let filler = Filler::leave(&server, 3 << 20);
        let refused = import(&server, "large", source);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success(), "it found room");
        assert!(said.contains("No space left on device"), "{said}");
        let added: Vec<_> = names(&images)
            .into_iter()
            .filter(|path| before.binary_search(path).is_err())
            .collect();
        assert_eq!(added, [""; 0].map(PathBuf::from), "something half made");
        assert_eq!(listed(), known);
        drop(filler);
    }
    let made = import(&server, "large", &archive);
    assert!(made.status.success(), "{made:?}");
    let has = |list: &Value| {
        let mut all = list.as_array().expect("a list").iter();
        all.any(|image| image["name"] == "large")
    };
    assert!(has(&listed()), "{}", listed());
}

#[test]
fn a_checkpoint_that_finds_no_room_leaves_nothing() {
    needs!(Root, Unshare);
    let _turn = alone();
    let server = small(160);
    let api = &server.api;
    let body = json!({"name": "source", "limits": {"disk_mib": 64}});
    api.post("/v1/runtimes", &body).data(200);
    let exec = "/v1/runtimes/source/exec";
    let write =
        json!({"command": "head -c 24000000 /dev/urandom > /root/file; sync; md5sum < /root/file"});
    let sum = api.post(exec, &write).data(200)["stdout"].clone();
    let data = server.own_data_dir();
    // What is in the disks themselves is not looked at.
    let all = || {
        let mut all = names(&data);
        all.retain(|path| !path.starts_with(data.join("state")));
        all
    };
    let before = all();
    let filler = Filler::leave(&server, 6 << 20);
    let with_filler = all();
    let refused = api.post("/v1/runtimes/source/checkpoints", &json!({}));
    assert_error(&refused, 503, "unavailable");
    assert_eq!(refused.json()["error"]["details"]["reason"], "no_room");
    assert_eq!(all(), with_filler, "something half made");
    let list = api.get("/v1/checkpoints").data(200);
    assert_eq!(list, json!([]), "it is listed");
    let works = json!({"command": "md5sum < /root/file"});
    assert_eq!(api.post(exec, &works).data(200)["stdout"], sum);
    drop(filler);
    assert_eq!(all(), before);
    let made = api
        .post("/v1/runtimes/source/checkpoints", &json!({}))
        .data(200);
    assert_eq!(api.get("/v1/checkpoints").data(200)[0]["id"], made["id"]);
}

#[test]
fn output_that_finds_no_room_is_counted_and_the_command_goes_on() {
    needs!(Root, Unshare);
    let _turn = alone();
    let server = small(160);
    let api = &server.api;
    let body = json!({"name": "small", "limits": {"disk_mib": 16}});
    api.post("/v1/runtimes", &body).data(200);
    let exec = "/v1/runtimes/small/exec";
    let run = |line: &str| {
        let body = json!({"command": "sh", "args": ["-c", line], "detach": true});
        let id = api.post(exec, &body).data(200)["exec_id"].clone();
        api.ended(id.as_str().expect("an id"), bound(30_000))
    };
    let line = "head -c 1000000 /dev/zero; echo whole >&2; exit 7";
    let kept = run(line);
    let output = |record: &Value| {
        let id = record["exec_id"].as_str().expect("an id");
        api.get(&format!("/v1/execs/{id}/output"))
    };
    assert_eq!(output(&kept).body.len(), 1_000_000);
    let filler = Filler::leave(&server, 8 << 20);
    let record = run(line);
    let said = ["outcome", "exit_code", "stdout_bytes", "stdout_truncated"].map(|key| &record[key]);
    assert_eq!(
        said,
        [&json!("exited"), &json!(7), &json!(1_000_000), &json!(true)],
        "{record}"
    );
    let reply = output(&record);
    match reply.status {
        200 => assert!(reply.body.len() < 1_000_000, "it was kept"),
        _ => assert_error(&reply, 404, "not_found"),
    }
    drop(filler);
    let again = run(line);
    assert_eq!(again["stdout_truncated"], false, "{again}");
    assert_eq!(output(&again).body.len(), 1_000_000);
}
