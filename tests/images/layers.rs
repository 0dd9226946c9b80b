//! What a command sees of an image's layers, one above the other.

use crate::needs;
use crate::support::{Runtime, api, assert_invalid, image, server, store, together};
use cellblock::image::digest::Digest;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

const FILESYSTEMS: [&str; 3] = ["persistent", "ephemeral", "read_only"];

fn runtime_of(name: &str, filesystem: &str) -> Runtime {
    let body = json!({"image": name, "filesystem": filesystem});
    Runtime::create(api(), &body)
}

/// A layer of small files, whose content is the layer's name.
fn files(name: &str, paths: &[&str]) -> Digest {
    store::layer(server(), name, |tree| {
        for path in paths {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("make a directory");
            fs::write(path, format!("{name}\n")).expect("write a file");
        }
    })
}

/// Every file of a layer: content, owner, mode, time.
fn state(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, [i64; 5])> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("list a layer").flatten() {
        let path = entry.path();
        let status = fs::symlink_metadata(&path).expect("look at a file");
        let bytes = match status.is_file() {
            true => fs::read(&path).expect("read a file"),
            false => Vec::new(),
        };
        let facts = [
            i64::from(status.uid()),
            i64::from(status.gid()),
            i64::from(status.mode()),
            status.mtime(),
            status.mtime_nsec(),
        ];
        if status.is_dir() {
            found.extend(state(&path));
        }
        found.insert(path, (bytes, facts));
    }
    found
}

#[test]
fn whiteouts_and_opaque_directories_hide_what_is_below() {
    needs!(Root);
    let _turn = together();
    let low = files(
        "low",
        &[
            "d/gone", "d/kept", "d/over", "o/low", "w/x", "f/x", "home/low",
        ],
    );
    let middle = store::layer(server(), "middle", |tree| {
        fs::create_dir_all(tree.join("d")).expect("make a directory");
        store::whiteout(&tree.join("d/gone"));
        fs::write(tree.join("d/over"), "middle\n").expect("write a file");
        store::opaque(&tree.join("o"));
        fs::write(tree.join("o/middle"), "middle\n").expect("write a file");
        store::whiteout(&tree.join("w"));
        fs::write(tree.join("f"), "a file\n").expect("write a file");
        // Also what every image has beneath it.
        store::whiteout(&tree.join("home"));
    });
    // What is there again above a whiteout does not bring back what was below.
    let high = files("high", &["w/y", "d/new"]);
    store::plain(
        server(),
        "hiding",
        &[store::base(server()), low, middle, high],
    );
    for filesystem in FILESYSTEMS {
        let runtime = runtime_of("hiding", filesystem);
        let exec = runtime.sh(
            "cd /; for p in d/* o/* w/* f home; do [ -f $p ] && echo $p $(cat $p) || echo $p; done",
        );
        let expected = [
            "d/kept low",
            "d/new high",
            "d/over middle",
            "o/middle middle",
            "w/y high",
            "f a file",
            "home",
        ];
        assert_eq!(exec.lines(), expected, "{filesystem}");
    }
}

#[test]
fn a_layer_that_replaces_the_whole_root_does() {
    needs!(Root);
    let _turn = together();
    let old = files("old", &["old/x"]);
    let new = store::layer(server(), "new-root", |tree| {
        image::rootfs(tree);
        store::opaque(tree);
    });
    store::plain(server(), "replaced", &[old, new]);
    for filesystem in FILESYSTEMS {
        let runtime = runtime_of("replaced", filesystem);
        runtime
            .sh("cat /old/x 2> /dev/null || echo gone")
            .assert_stdout("gone\n");
    }
}

#[test]
fn as_many_layers_as_an_image_may_have() {
    needs!(Root);
    let _turn = together();
    let numbered = |n: u32| files(&format!("layer {n}"), &[&format!("n/{n}"), "n/last"]);
    let mut layers = vec![store::base(server())];
    layers.extend((1..127).map(numbered));
    store::plain(server(), "many", &layers);
    for filesystem in FILESYSTEMS {
        let runtime = runtime_of("many", filesystem);
        runtime
            .sh("set -- /n/*; echo $#; cat /n/last")
            .assert_stdout("127\nlayer 126\n");
    }
}

#[test]
fn a_layer_that_stands_there_twice_counts_where_it_is_uppermost() {
    needs!(Root);
    let _turn = together();
    let twice = files("twice", &["t/a", "t/b"]);
    let between = store::layer(server(), "between", |tree| {
        fs::create_dir_all(tree.join("t")).expect("make a directory");
        store::whiteout(&tree.join("t/a"));
        for name in ["b", "c"] {
            fs::write(tree.join("t").join(name), "between\n").expect("write a file");
        }
    });
    let base = store::base(server());
    store::plain(server(), "twice", &[base, twice, between, twice]);
    for filesystem in FILESYSTEMS {
        runtime_of("twice", filesystem)
            .sh("cat /t/a /t/b /t/c")
            .assert_stdout("twice\ntwice\nbetween\n");
    }
}

#[test]
fn the_root_can_be_entered_whatever_mode_a_layer_has() {
    needs!(Root);
    let _turn = together();
    let closed = store::layer(server(), "closed", |tree| {
        fs::set_permissions(tree, Permissions::from_mode(0o700)).expect("chmod the root");
    });
    let layers = [store::base(server()), closed];
    let user = store::user(33, 33, "app", "/");
    store::put(server(), "closed", &store::content("closed", &layers, user));
    for filesystem in FILESYSTEMS {
        runtime_of("closed", filesystem)
            .sh("pwd; stat -c '%u %a' /")
            .assert_stdout("/\n0 755\n");
    }
}

#[test]
fn what_runtimes_write_is_neither_others_nor_the_images() {
    needs!(Root);
    let _turn = together();
    let layer = files("shared", &["s/kept", "s/changed", "s/removed"]);
    let layers = [store::base(server()), layer];
    store::plain(server(), "shared", &layers);
    let trees = || layers.map(|layer| state(&store::tree(server(), layer)));
    let before = trees();
    let change = "echo mine > /s/changed; rm /s/removed; echo new > /s/new; chmod 700 /s/kept /bin; \
                  rm -r /etc; echo ok";
    let see = "cat /s/changed; echo /s/*";
    for filesystem in ["persistent", "ephemeral"] {
        let [writes, reads] = [(); 2].map(|()| runtime_of("shared", filesystem));
        let exec = writes.sh(&format!("{change}; {see}"));
        exec.assert_stdout("ok\nmine\n/s/changed /s/kept /s/new\n");
        reads
            .sh(see)
            .assert_stdout("shared\n/s/changed /s/kept /s/removed\n");
    }
    let read_only = runtime_of("shared", "read_only");
    read_only.sh("echo mine > /s/changed").assert_failed();
    read_only
        .sh("echo tmp > /tmp/x; cat /tmp/x")
        .assert_stdout("tmp\n");
    assert!(trees() == before, "a layer was changed");

    let [one, other] = [(); 2].map(|()| runtime_of("shared", "persistent"));
    let (ours, theirs) = (one.host_uids(), other.host_uids());
    assert!(
        ours.end <= theirs.start || theirs.end <= ours.start,
        "{ours:?} and {theirs:?} overlap"
    );
}

#[test]
fn a_setuid_program_in_an_image_gives_nothing() {
    needs!(Root);
    let _turn = together();
    // Nothing that unpacking would leave.
    let setuid = store::layer(server(), "setuid", |tree| {
        fs::create_dir(tree.join("bin")).expect("make bin");
        image::add_program(tree, Path::new("/usr/bin/id"), "bin/rootid");
        let mode = Permissions::from_mode(0o6755);
        fs::set_permissions(tree.join("bin/rootid"), mode).expect("chmod");
    });
    let layers = [store::base(server()), setuid];
    let user = store::user(33, 33, "app", "/");
    store::put(server(), "setuid", &store::content("setuid", &layers, user));
    for filesystem in FILESYSTEMS {
        let runtime = runtime_of("setuid", filesystem);
        runtime.sh("stat -c %a /bin/rootid").assert_stdout("6755\n");
        runtime.sh("rootid -u; rootid -g").assert_stdout("33\n33\n");
    }
}

#[test]
fn an_image_with_a_missing_layer_makes_no_runtime() {
    needs!(Root);
    let _turn = together();
    let layers = [store::base(server()), Digest::of(b"nowhere")];
    store::plain(server(), "lacking", &layers);
    let refused = api().post("/v1/runtimes", &json!({"image": "lacking"}));
    assert_invalid(&refused, "image");
}
