//! The user that an image names, looked up in its layers.

use crate::archives::{Place, Tar, unpacker};
use crate::needs;
use cellblock::image::content::ImageUser;
use cellblock::image::unpack::UnpackError;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

fn layer(archive: Tar) -> Place {
    let place = Place::new();
    place.unpack(&archive.end()).expect("fine");
    place
}

fn find(layers: &[&Place], user: &str) -> Result<ImageUser, UnpackError> {
    let layers: Vec<PathBuf> = layers.iter().map(|place| place.fs()).collect();
    unpacker().user(&layers, user)
}

fn uid(layers: &[&Place], user: &str) -> Option<u32> {
    find(layers, user).ok().map(|user| user.uid)
}

#[test]
fn a_user_is_found_in_the_uppermost_file() {
    needs!(Root);
    let passwd = b"root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
    let lower = layer(
        Tar::new()
            .file("etc/passwd", passwd)
            .file("etc/group", b"staff:x:50:\n"),
    );
    let upper = layer(Tar::new().file("etc/passwd", b"app:x:7:8::/srv:/bin/sh\n"));
    let other = layer(Tar::new().file("etc/hosts", b"").file("usr/f", b""));
    let app = ImageUser {
        uid: 1000,
        gid: 50,
        name: "app".to_owned(),
        home: "/home/app".to_owned(),
    };
    assert_eq!(find(&[&other, &lower], "app:staff").expect("found"), app);
    assert_eq!(uid(&[&upper, &other, &lower], "app"), Some(7));
    assert_eq!(
        uid(&[&upper, &lower], "root"),
        None,
        "the upper file is the whole truth"
    );
    assert_eq!(uid(&[&other], "app"), None);
    assert_eq!(uid(&[&other], "12"), Some(12));
    assert_eq!(uid(&[], "0"), Some(0));
    let text = find(&[&other], "app\x1b").expect_err("unknown").to_string();
    assert!(
        text.contains("/etc/passwd") && !text.contains('\x1b'),
        "{text}"
    );
}

#[test]
fn what_an_upper_layer_hides_is_not_found() {
    needs!(Root);
    let lower = layer(Tar::new().file("etc/passwd", b"app:x:1000:1000::/:\n"));
    let hiding = [
        Tar::new().file("etc/.wh.passwd", b""),
        Tar::new().file("etc/.wh..wh..opq", b""),
        Tar::new().file(".wh.etc", b""),
        Tar::new().file("etc", b"a file"),
        Tar::new().dir("etc/passwd"),
    ];
    for (index, archive) in hiding.into_iter().enumerate() {
        assert_eq!(
            uid(&[&layer(archive), &lower], "app"),
            None,
            "number {index}"
        );
    }
    assert_eq!(
        uid(&[&layer(Tar::new().dir("etc")), &lower], "app"),
        Some(1000)
    );
}

#[test]
fn no_link_is_followed_to_a_user() {
    needs!(Root);
    let real = b"app:x:1000:1000::/:\n";
    let links = [
        Tar::new().symlink("etc/passwd", "/etc/passwd"),
        Tar::new()
            .symlink("etc/passwd", "../real")
            .file("real", real),
        Tar::new()
            .symlink("etc", "usr/etc")
            .file("usr/etc/passwd", real),
        Tar::new().symlink("etc", "/etc"),
    ];
    for (index, archive) in links.into_iter().enumerate() {
        let place = layer(archive);
        assert_eq!(uid(&[&place], "app"), None, "number {index}");
        assert_eq!(uid(&[&place], "daemon"), None, "number {index}");
        assert_eq!(uid(&[&place], "1"), Some(1), "number {index}");
    }
    // Nor one that no archive could have made.
    let place = Place::new();
    std::fs::create_dir(place.at("etc")).expect("make /etc");
    symlink(place.canary(), place.at("etc/passwd")).expect("make a link");
    std::fs::write(place.canary(), real).expect("write");
    assert_eq!(uid(&[&place], "app"), None);
}

#[test]
fn a_file_that_is_too_long_is_not_read() {
    needs!(Root);
    let long = "x".repeat(1 << 20) + "\napp:x:1000:1000::/:\n";
    let place = layer(Tar::new().file("etc/passwd", long.as_bytes()));
    let text = find(&[&place], "app").expect_err("too long").to_string();
    assert!(text.contains("longer than 1048576 bytes"), "{text}");
}
