//! Layers that are attacks: each is refused with the entry named, and nothing outside the target is touched.

use crate::archives::{Head, Place, Tar, assert_refused, gzip, zstd};
use crate::needs;
use cellblock::image::unpack::UnpackError;
use std::os::unix::fs::symlink;

#[test]
fn names_that_lead_out_are_refused() {
    needs!(Root);
    let canary = Place::new();
    let absolute = canary.canary().display().to_string();
    assert_refused(
        &Tar::new().file(&absolute, b"x").end(),
        &absolute,
        "absolute",
    );
    for name in ["../canary/file", "a/../../canary/file", "..", "a/.."] {
        let archive = Tar::new().dir("a").file(name, b"x").end();
        assert_refused(&archive, name, "\"..\"");
    }
    assert_refused(
        &Tar::new().file("a//b", b"x").end(),
        "a//b",
        "empty component",
    );
    assert_refused(&Tar::new().file("", b"x").end(), "\"\"", "empty name");
    let nul = Tar::new().pax(&[("path", b"a\0b")]).file("a", b"x").end();
    assert_refused(&nul, "a\\0b", "NUL");
    canary.assert_untouched();
}

#[test]
fn a_file_through_a_link_is_refused() {
    needs!(Root);
    let place = Place::new();
    let outside = place
        .canary()
        .parent()
        .expect("a parent")
        .display()
        .to_string();
    for target in [outside.as_str(), "../canary", "real", "."] {
        let archive = Tar::new()
            .dir("real")
            .symlink("link", target)
            .file("link/file", b"x")
            .end();
        assert_refused(&archive, "link/file", "symbolic link");
        let deeper = Tar::new()
            .dir("real")
            .symlink("link", target)
            .dir("link/a/b")
            .end();
        assert_refused(&deeper, "link/a/b", "symbolic link");
        let whiteout = Tar::new()
            .dir("real")
            .symlink("link", target)
            .file("link/.wh.file", b"");
        assert_refused(&whiteout.end(), "link/.wh.file", "symbolic link");
    }
    // It is replaced, not followed.
    let canary = place.canary().display().to_string();
    place
        .unpack(&Tar::new().symlink("a", &canary).file("a", b"new").end())
        .expect("fine");
    assert_eq!(std::fs::read(place.at("a")).expect("read"), b"new");
}

#[test]
fn a_link_that_was_there_before_is_not_followed() {
    needs!(Root);
    let place = Place::new();
    symlink("../canary", place.at("d")).expect("make a link");
    let refused = place.unpack(&Tar::new().file("d/file", b"x").end());
    assert!(
        matches!(refused, Err(UnpackError::Entry { .. })),
        "{refused:?}"
    );
}

#[test]
fn cyclic_links_are_links_and_no_way() {
    needs!(Root);
    let archive = Tar::new()
        .symlink("a", "b")
        .symlink("b", "a")
        .symlink("c", "c");
    let place = Place::new();
    place
        .unpack(&archive.clone().end())
        .expect("links may lead anywhere");
    assert_refused(&archive.file("a/f", b"x").end(), "a/f", "symbolic link");
    let chain = Tar::new().symlink("c", "c").dir("c/d/e").end();
    assert_refused(&chain, "c/d/e", "symbolic link");
}

#[test]
fn hard_links_lead_to_earlier_files_of_the_layer_only() {
    needs!(Root);
    let place = Place::new();
    let absolute = place.canary().display().to_string();
    let refused = |target: &str, words: &str| {
        let archive = Tar::new()
            .dir("d")
            .symlink("link", "../canary")
            .symlink("self", ".");
        let archive = archive.file("d/f", b"x").hard_link("hard", target).end();
        assert_refused(&archive, "hard", words);
    };
    refused(&absolute, "no name inside the layer");
    refused("/d/f", "no name inside the layer");
    refused("../canary/file", "no name inside the layer");
    refused("d/../../canary/file", "no name inside the layer");
    refused("link/file", "symbolic link");
    refused("self/d/f", "symbolic link");
    refused("missing", "no earlier file");
    refused("missing/f", "no earlier file");
    refused("d/f/x", "no earlier file");
    refused("d", "no earlier file");
    refused(".", "no earlier file");
    refused("hard", "itself");
    refused("./hard", "itself");
    let later = Tar::new()
        .hard_link("hard", "later")
        .file("later", b"x")
        .end();
    assert_refused(&later, "hard", "no earlier file");
    let whiteout = Tar::new()
        .file(".wh.gone", b"")
        .hard_link("hard", "gone")
        .end();
    assert_refused(&whiteout, "hard", "no earlier file");
}

#[test]
fn devices_pipes_and_unknown_things_are_refused() {
    needs!(Root);
    for (flag, words) in [(b'3', "device"), (b'4', "device"), (b'6', "pipe")] {
        assert_refused(
            &Tar::new().entry(&Head::new("dev0", flag), b"").end(),
            "dev0",
            words,
        );
    }
    for flag in [b'V', b'M', b'D', b'N', b'A', 0xff] {
        let archive = Tar::new().entry(&Head::new("odd", flag), b"").end();
        assert_refused(&archive, "odd", "unknown type");
    }
}

#[test]
fn mount_points_have_to_be_directories() {
    needs!(Root);
    for name in ["dev", "proc", "tmp"] {
        let words = "has to be a directory";
        assert_refused(&Tar::new().symlink(name, "/etc").end(), name, words);
        assert_refused(&Tar::new().file(name, b"x").end(), name, words);
        let replaced = Tar::new()
            .dir(name)
            .symlink(format!("./{name}/"), "/etc")
            .end();
        assert_refused(&replaced, name, words);
        let linked = Tar::new().file("f", b"x").hard_link(name, "f").end();
        assert_refused(&linked, name, words);
        Place::new()
            .unpack(&Tar::new().dir(name).end())
            .expect("a directory");
    }
    Place::new()
        .unpack(&Tar::new().symlink("usr/dev", "/etc").end())
        .expect("deeper");
}

#[test]
fn ids_of_nobody_are_refused() {
    needs!(Root);
    for (uid, gid, words) in [
        (65_535, 0, "uid 65535"),
        (0, 65_535, "gid 65535"),
        (1 << 31, 0, "uid 2147483648"),
        (0, u64::from(u32::MAX), "gid 4294967295"),
        (1 << 32, 0, "uid 4294967296"),
    ] {
        let mut head = Head::new("f", b'0');
        (head.uid, head.gid) = (uid, gid);
        assert_refused(&Tar::new().entry(&head, b"").end(), "f", words);
    }
    let pax = Tar::new().pax(&[("uid", b"70000")]).file("f", b"x").end();
    assert_refused(&pax, "f", "uid 70000");
    let negative = Tar::new().pax(&[("gid", b"-1")]).file("f", b"x").end();
    assert_refused(&negative, "f", "gid -1");
}

#[test]
fn what_ends_early_is_refused() {
    needs!(Root);
    let whole = Tar::new()
        .file("first", b"x")
        .file("second", &vec![b'y'; 5000])
        .end();
    let (plain, packed) = (&whole[..3000], gzip(&whole));
    assert_refused(plain, "second", "ends early");
    assert_refused(&packed[..packed.len() - 12], "", "ends early");
    // More than a block of zstd's, so that the first entry is whole.
    let noise: Vec<u8> = (0..200_000u32)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes())
        .collect();
    let frame = zstd(&Tar::new().file("first", b"x").file("second", &noise).end());
    assert_refused(&frame[..frame.len() - 40], "second", "ends early");
    // In the middle of a header: told with the last entry that was whole.
    assert_refused(&whole[..1024 + 100], "first", "ends early");
    let announced = Tar::new().file("f", b"x").pax(&[("path", b"long")]);
    assert_refused(&announced.0, "f", "announces");
}

#[test]
fn damaged_archives_are_refused() {
    needs!(Root);
    let whole = Tar::new()
        .file("first", &vec![b'x'; 4000])
        .file("second", b"y")
        .end();
    let mut header = whole.clone();
    header[512 + 4096] ^= 1;
    assert_refused(&header, "first", "damaged");
    let mut sum = gzip(&whole);
    let at = sum.len() - 8;
    sum[at] ^= 1;
    let refused = Place::new().unpack(&sum).expect_err("a wrong checksum");
    assert!(refused.to_string().contains("gzip"), "{refused}");
    let mut frame = zstd(&whole);
    let at = frame.len() - 1;
    frame[at] ^= 1;
    let refused = Place::new().unpack(&frame).expect_err("a wrong checksum");
    assert!(refused.to_string().contains("zstd"), "{refused}");
    let garbage = [gzip(&whole), b"garbage".to_vec()].concat();
    assert!(Place::new().unpack(&garbage).is_err());
    let after = [&whole[..whole.len() - 512], &[7; 512]].concat();
    assert_refused(&after, "second", "goes on");
    for (bytes, words) in [
        (&b""[..], "is empty"),
        (b"\xfd7zXZ\0rest", "xz"),
        (b"BZh91AY", "bzip2"),
        (&[b'x'; 2000], "no tar archive"),
        (&gzip(b""), "is empty"),
    ] {
        match Place::new().unpack(bytes) {
            Err(UnpackError::Archive { reason }) => assert!(reason.contains(words), "{reason}"),
            other => panic!("{words}: {other:?}"),
        }
    }
}

#[test]
fn names_in_errors_hold_nothing_that_a_terminal_obeys() {
    needs!(Root);
    let name = b"../\x1b[2J\nroot: all is well\xff\xe2\x80\xae";
    let archive = Tar::new().file(name, b"x").end();
    let text = Place::new()
        .unpack(&archive)
        .expect_err("refused")
        .to_string();
    assert!(
        text.contains("\\u{1b}[2J\\nroot: all is well\\xff\\u{202e}"),
        "{text}"
    );
    assert!(
        !text.contains(|c: char| c.is_control() || c == '\u{202e}'),
        "{text:?}"
    );
    let link = Tar::new().hard_link("hard", b"\x1b]0;x\x07").end();
    let text = Place::new().unpack(&link).expect_err("refused").to_string();
    assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
    let long = Tar::new()
        .pax(&[("path", &[b'n'; 100_000])])
        .file("f", b"x")
        .end();
    let text = Place::new().unpack(&long).expect_err("refused").to_string();
    assert!(text.len() < 1000, "{} bytes", text.len());
}
