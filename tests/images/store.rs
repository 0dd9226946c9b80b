//! The store under interruption, removal and company.

use crate::fixtures::{Image, Place, cellblock, failed, succeeded};
use crate::needs;
use crate::support::server::{Options, Server};
use crate::support::{Runtime, bound, eventually, image, together};
use cellblock::image::ImageStore;
use cellblock::image::digest::Digest;
use cellblock::image::import::Staging;
use serde_json::json;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// An import that has read a part of its source and waits for the rest.
struct Stalled {
    child: Child,
    /// The other end of its source.
    _source: File,
}

impl Stalled {
    fn begin(place: &Place) -> Stalled {
        let fifo = place.path("fifo");
        let _ = fs::remove_file(&fifo);
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("make a FIFO");
        let child = Command::new(env!("CARGO_BIN_EXE_cellblock"))
            .args(["image", "import", "stalled"])
            .arg(&fifo)
            .arg("--data-dir")
            .arg(place.data())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the import");
        let mut source = File::options()
            .write(true)
            .open(&fifo)
            .expect("open the FIFO");
        source.write_all(&[0; 20_000]).expect("write a part");
        let staged = || {
            let imports = place.stored("staging");
            let size = |import: &String| {
                let path = place
                    .data()
                    .join("images/staging")
                    .join(import)
                    .join("source");
                path.metadata().map_or(0, |status| status.len())
            };
            imports.iter().any(|import| size(import) == 20_000)
        };
        assert!(eventually(bound(5000), staged), "nothing is staged");
        Stalled {
            child,
            _source: source,
        }
    }

    fn end(mut self, signal: i32) -> Option<i32> {
        // SAFETY: kill(2) takes numbers only; the child has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
        let mut status = None;
        let ended = eventually(bound(5000), || {
            status = self.child.try_wait().expect("wait");
            status.is_some()
        });
        assert!(ended, "signal {signal} does not end it");
        status.and_then(|status| status.code())
    }
}

#[test]
fn a_killed_import_leaves_what_the_next_command_removes() {
    needs!(Root);
    let _turn = together();
    let place = Place::new();
    Stalled::begin(&place).end(libc::SIGKILL);
    assert_eq!(place.stored("staging").len(), 1);
    for directory in ["layers", "contents"] {
        assert_eq!(place.stored(directory), [""; 0]);
    }
    // One that is under way is left alone, by prune too.
    let running = Stalled::begin(&place);
    // The first one's child may have outlived it for a moment, with its lock.
    assert!(eventually(bound(5000), || {
        succeeded(&place.cellblock(&["prune"]));
        place.stored("staging").len() == 1
    }));
    running.end(libc::SIGKILL);
    let directory = place.path("docker");
    let image = Image::sample(&place);
    image.write_docker(&directory, "sample:1");
    assert_eq!(place.must_import("stalled", &directory, &[]), image.id());
    assert!(eventually(bound(5000), || {
        succeeded(&place.cellblock(&["prune"]));
        place.stored("staging").is_empty()
    }));
    assert_eq!(place.stored("trash"), [""; 0]);
}

#[test]
fn an_interrupted_import_leaves_nothing() {
    needs!(Root);
    let _turn = together();
    let place = Place::new();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        assert_eq!(Stalled::begin(&place).end(signal), Some(128 + signal));
        place.assert_empty("interrupted");
    }
}

#[test]
fn an_import_that_fills_the_disk_says_so_and_leaves_nothing() {
    needs!(Root, Unshare);
    let _turn = together();
    let place = Place::new();
    let [source, disk] = ["rootfs", "disk.img"].map(|name| place.path(name));
    fs::create_dir_all(&source).expect("make");
    fs::write(source.join("file"), vec![1; 12 << 20]).expect("write");
    let made = File::create(&disk).and_then(|file| file.set_len(8 << 20));
    made.expect("make a disk");
    let line = "mkfs.ext4 -q -O ^has_journal \"$1\"; mount -o loop \"$1\" \"$2\"
        \"$4\" image import full \"$3\" --data-dir \"$2\" && exit 9
        find \"$2\"/images -mindepth 2; \"$4\" image ls -q --data-dir \"$2\"";
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-ec", line, "sh"])
        .args([&disk, &place.data(), &source])
        .arg(env!("CARGO_BIN_EXE_cellblock"))
        .output()
        .expect("run unshare");
    assert_eq!(succeeded(&output), "host\n");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("No space left"), "{text}");
}

#[test]
fn a_start_of_the_service_removes_what_an_import_left() {
    needs!(Root);
    let _turn = together();
    let server = Server::start(Options::default());
    server.stop();
    let images = server.data_dir().join("images");
    for left in ["staging/a/layers", "trash/b"] {
        fs::create_dir_all(images.join(left)).expect("make");
    }
    let server = server.restart();
    let images = server.data_dir().join("images");
    for place in ["staging", "trash"] {
        assert_eq!(crate::fixtures::entries(&images.join(place)), [""; 0]);
    }
}

#[test]
fn what_is_referred_to_stays_and_what_is_not_goes() {
    needs!(Root);
    let _turn = together();
    let place = Place::new();
    let image = Image::sample(&place);
    let mut other = Image::of(vec![image.layers[0].clone()]);
    other.config["config"] = json!({});
    let import = |image: &Image, name: &str| {
        let directory = place.path(&format!("source-{name}"));
        image.write_docker(&directory, "sample:1");
        place.must_import(name, &directory, &[])
    };
    import(&image, "one");
    import(&image, "two");
    import(&other, "other");
    assert_eq!(
        (place.stored("layers").len(), place.stored("contents").len()),
        (2, 2)
    );

    // Another name has it.
    succeeded(&place.cellblock(&["rm", "one"]));
    assert_eq!(
        (place.stored("layers").len(), place.stored("contents").len()),
        (2, 2)
    );
    failed(&place.cellblock(&["rm", "one"]));
    failed(&place.cellblock(&["rm", "host"]));

    // A runtime, one under construction and a checkpoint have it, one after the other.
    let records = [
        (
            "runtimes/a/runtime.json",
            json!({ "spec": { "image": "two" }, "image_id": image.id(), "more": 1 }),
        ),
        (
            "runtimes/.b/runtime.json",
            json!({ "spec": { "image": "two" }, "image_id": image.id() }),
        ),
        (
            "checkpoints/c/checkpoint.json",
            json!({ "image": "two", "image_id": image.id(), "more": 1 }),
        ),
    ];
    let path = |file: &str| -> PathBuf { place.data().join(file) };
    for (index, (file, record)) in records.iter().enumerate() {
        fs::create_dir_all(path(file).parent().expect("a parent")).expect("make");
        fs::write(path(file), record.to_string()).expect("write");
        if index == 0 {
            assert_eq!(place.show("two")["runtimes"], 1);
            succeeded(&place.cellblock(&["rm", "two"]));
        } else {
            fs::remove_file(path(records[index - 1].0)).expect("remove");
            succeeded(&place.cellblock(&["prune"]));
        }
        let left = (place.stored("layers").len(), place.stored("contents").len());
        assert_eq!(left, (2, 2), "{file}");
    }
    // What can't be read may refer to anything.
    fs::write(path(records[0].0), "{").expect("write");
    let text = failed(&place.cellblock(&["prune"]));
    assert!(text.contains("runtime.json"), "{text}");
    fs::remove_file(path(records[0].0)).expect("remove");
    fs::remove_file(path(records[2].0)).expect("remove");
    let text = succeeded(&place.cellblock(&["prune"]));
    assert!(text.starts_with("1 image and 1 layer deleted"), "{text}");
    assert_eq!(place.stored("layers"), [Digest::of(&image.layers[0]).hex()]);
    succeeded(&place.cellblock(&["rm", "other"]));
    place.assert_empty("removed");
}

#[test]
fn a_layer_that_an_import_relies_on_is_not_removed_meanwhile() {
    needs!(Root);
    let _turn = together();
    let place = Place::new();
    let image = Image::sample(&place);
    let directory = place.path("docker");
    image.write_docker(&directory, "sample:1");
    place.must_import("image", &directory, &[]);
    let staging = Staging::new(&ImageStore::new(&place.data())).expect("a staging directory");
    let claimed = Digest::of(&image.layers[1]);
    assert!(staging.claim(&claimed).expect("look"));
    assert!(!staging.claim(&Digest::of(b"")).expect("look"));
    succeeded(&place.cellblock(&["rm", "image"]));
    assert_eq!(place.stored("layers"), [claimed.hex()]);
    drop(staging);
    succeeded(&place.cellblock(&["prune"]));
    place.assert_empty("nothing relies on it");
}

#[test]
fn many_imports_of_one_image_at_a_time_are_one_image() {
    needs!(Root);
    let _turn = together();
    let place = Place::new();
    let image = Image::sample(&place);
    let directory = place.path("docker");
    image.write_docker(&directory, "sample:1");
    std::thread::scope(|scope| {
        for number in 0..8 {
            // Half of them want the same name too.
            let name = format!("image-{}", number / 2 * (number % 2));
            let (place, directory, id) = (&place, &directory, image.id());
            scope.spawn(move || assert_eq!(place.must_import(&name, directory, &[]), id));
        }
    });
    assert_eq!(
        (place.stored("layers").len(), place.stored("contents").len()),
        (2, 1)
    );
    assert_eq!(place.stored("staging"), [""; 0]);
}

#[test]
fn an_image_that_comes_while_the_service_runs_is_there_at_once() {
    needs!(Root);
    let _turn = together();
    let server = Server::start(Options::default());
    let place = Place::new();
    let source = place.path("rootfs");
    image::rootfs(&source);
    fs::write(source.join("etc/marker"), "imported").expect("write");
    let source = source.to_str().expect("UTF-8");
    succeeded(&cellblock(&server.data_dir(), &["import", "mine", source]));
    let runtime = Runtime::create(&server.api, &json!({ "image": "mine" }));
    runtime
        .sh("cat /etc/marker; id -u")
        .assert_stdout("imported0\n");
    fs::write(place.path("rootfs/etc/marker"), "changed").expect("write");
    runtime.sh("cat /etc/marker").assert_stdout("imported");
}
