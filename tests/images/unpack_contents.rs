//! Layers that are fine: what is kept of them, what is made harmless, what they say of lower layers.

use crate::archives::{Head, Place, Tar, assert_refused, gzip, unpacked, zstd};
use crate::needs;
use cellblock::image::digest::Digest;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("look").mode() & 0o7777
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    Some(value[..length].to_vec())
}

fn is_opaque(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque") == Some(b"y".to_vec())
}

fn is_whiteout(path: &Path) -> bool {
    let status = fs::symlink_metadata(path).expect("look");
    status.file_type().is_char_device() && status.rdev() == 0
}

#[test]
fn files_directories_and_links_are_unpacked_with_owner_mode_and_time() {
    needs!(Root);
    let mut dir = Head::new("./d/", b'5');
    (dir.mode, dir.uid, dir.gid, dir.mtime) = (0o750, 12, 34, 1_234_567_890);
    let mut file = Head::new("./d/f", b'0');
    (file.mode, file.uid, file.gid, file.mtime, file.size) = (0o640, 65_534, 1000, 987_654_321, 3);
    let mut link = Head::new("d/l", b'2');
    (link.link, link.uid, link.mtime) = (b"/etc/../anywhere".to_vec(), 7, 555);
    let archive = Tar::new()
        .entry(&dir, b"")
        .entry(&file, b"abc")
        .entry(&link, b"");
    let archive = archive.hard_link("d/h", "./d/f").dir("./").end();
    for packed in [archive.clone(), gzip(&archive), zstd(&archive)] {
        let place = Place::new();
        let unpacked = place.unpack(&packed).expect("fine");
        assert_eq!(unpacked.diff_id, Digest::of(&archive));
        assert_eq!((unpacked.bytes, unpacked.entries), (3, 5));
        let look = |name: &str| fs::symlink_metadata(place.at(name)).expect("look");
        let (d, f, l) = (look("d"), look("d/f"), look("d/l"));
        assert_eq!((d.uid(), d.gid(), d.mtime()), (12, 34, 1_234_567_890));
        assert_eq!((f.uid(), f.gid(), f.mtime()), (65_534, 1000, 987_654_321));
        assert_eq!((l.uid(), l.gid(), l.mtime()), (7, 0, 555));
        assert_eq!(
            (mode(&place.at("d")), mode(&place.at("d/f"))),
            (0o750, 0o640)
        );
        assert_eq!(fs::read(place.at("d/f")).expect("read"), b"abc");
        assert_eq!(
            fs::read_link(place.at("d/l")).expect("read"),
            Path::new("/etc/../anywhere")
        );
        assert_eq!((f.nlink(), look("d/h").ino()), (2, f.ino()));
        let root = fs::metadata(place.fs()).expect("look");
        assert_eq!(
            (root.uid(), root.mode() & 0o7777, root.mtime()),
            (0, 0o755, 1_000_000_000)
        );
    }
}

#[test]
fn the_digest_is_of_all_bytes_up_to_the_end_of_the_stream() {
    needs!(Root);
    let mut archive = Tar::new().file("f", b"x").end();
    archive.extend_from_slice(&[0; 9000]);
    unpacked(&archive);
    archive.extend_from_slice(b"what other tools pass over as well");
    unpacked(&archive);
    // Some writers leave the end out.
    unpacked(&Tar::new().file("f", b"x").0);
    unpacked(&Tar::new().end());
    // Several members and frames, one of them to be skipped.
    let (one, two) = archive.split_at(700);
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"index"].concat();
    for packed in [
        [gzip(one), gzip(two)].concat(),
        [zstd(one), skipped.clone(), zstd(two), skipped.clone()].concat(),
        [skipped, zstd(&archive)].concat(),
    ] {
        let unpacked = Place::new().unpack(&packed).expect("fine");
        assert_eq!(unpacked.diff_id, Digest::of(&archive));
    }
}

#[test]
fn set_id_bits_of_files_go_and_those_of_directories_stay() {
    needs!(Root);
    let with = |name: &str, flag, mode| {
        let mut head = Head::new(name, flag);
        (head.mode, head.uid, head.gid) = (mode, 1000, 50);
        head
    };
    let archive = Tar::new()
        .entry(&with("su", b'0', 0o6755), b"")
        .entry(&with("sticky-file", b'0', 0o1644), b"")
        .entry(&with("shared", b'5', 0o6775), b"")
        .entry(&with("public", b'5', 0o1777), b"")
        .hard_link("su2", "su");
    let (place, _) = unpacked(&archive.file("shared/f", b"").end());
    assert_eq!(mode(&place.at("su")), 0o755);
    assert_eq!(mode(&place.at("su2")), 0o755);
    assert_eq!(mode(&place.at("sticky-file")), 0o644);
    assert_eq!(mode(&place.at("shared")), 0o2775);
    assert_eq!(mode(&place.at("public")), 0o1777);
    let gid = fs::metadata(place.at("shared/f")).expect("look").gid();
    assert_eq!(gid, 0, "the archive's, not the directory's");
}

#[test]
fn of_extended_attributes_the_users_own_are_kept() {
    needs!(Root);
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.user.note", b"a\n\0=b"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        (
            "SCHILY.xattr.security.capability",
            b"\x01\0\0\x02\xff\xff\xff\xff\0\0\0\0\xff\0\0\0\0\0\0\0",
        ),
        ("SCHILY.xattr.system.posix_acl_access", b"\x02\0\0\0"),
    ];
    let archive = Tar::new()
        .pax(records)
        .file("f", b"x")
        .pax(records)
        .dir("d")
        .pax(records);
    let (place, unpacked) = unpacked(&archive.symlink("l", "f").end());
    for name in ["f", "d", "l"] {
        let path = place.at(name);
        let mut names = [0; 1024];
        let length = rustix::fs::llistxattr(&path, &mut names[..]).expect("list");
        let kept: &[u8] = if name == "l" { b"" } else { b"user.note\0" };
        assert_eq!(&names[..length], kept, "{name}");
    }
    assert_eq!(
        xattr(&place.at("f"), "user.note"),
        Some(b"a\n\0=b".to_vec())
    );
    assert!(unpacked.bytes > 1, "they count");
}

#[test]
fn whiteouts_become_overlayfss_own() {
    needs!(Root);
    let archive = Tar::new()
        .dir("a")
        .file("a/.wh.gone", b"")
        .file(".wh.top", b"content that nobody wants")
        .file("new/deep/.wh.gone", b"")
        .file("a/.wh..wh.plnk", b"")
        .file(".wh..wh.aufs", b"")
        .file(".wh..wh.orph/f", b"");
    let (place, _) = unpacked(&archive.file("after", b"x").end());
    for name in ["a/gone", "top", "new/deep/gone"] {
        assert!(is_whiteout(&place.at(name)), "{name}");
    }
    let names: Vec<_> = place
        .tree()
        .into_keys()
        .map(|name| name.display().to_string())
        .collect();
    assert_eq!(
        names,
        [
            "a",
            "a/gone",
            "after",
            "new",
            "new/deep",
            "new/deep/gone",
            "top"
        ]
    );
    let wrong = |name: &str, words| assert_refused(&Tar::new().file(name, b"").end(), name, words);
    wrong("a/.wh.", "whiteout of nothing");
    wrong("a/.wh..", "whiteout of nothing");
    wrong("a/.wh...", "whiteout of nothing");
    wrong(".wh.a/b", "below a whiteout");
}

#[test]
fn opaque_directories_are_marked_where_overlayfs_looks() {
    needs!(Root);
    let archive = Tar::new()
        .dir("a")
        .file("a/f", b"x")
        .file("a/.wh..wh..opq", b"");
    let archive = archive.file("b/c/.wh..wh..opq", b"").dir("plain");
    let archive = archive
        .file("gone/.wh..wh..opq", b"")
        .file("gone", b"a file now");
    let (place, _) = unpacked(&archive.end());
    assert!(is_opaque(&place.at("a")) && is_opaque(&place.at("b/c")));
    for name in ["b", "plain", "a/f", "gone", "."] {
        assert!(!is_opaque(&place.at(name)), "{name}");
    }
    let root = Tar::new().file(".wh..wh..opq", b"").end();
    assert_refused(&root, ".wh..wh..opq", "all of the lower layers");
}

#[test]
fn a_whiteout_means_lower_layers_and_spares_its_own() {
    needs!(Root);
    let archive = Tar::new()
        .file("f1", b"x")
        .file(".wh.f1", b"")
        .file(".wh.f2", b"")
        .file("f2", b"x")
        .file("d1/f", b"x")
        .file(".wh.d1", b"")
        .file(".wh.d2", b"")
        .file("d2/f", b"x")
        .file(".wh.d3", b"")
        .dir("d3");
    let (place, _) = unpacked(&archive.end());
    for file in ["f1", "f2", "d1/f", "d2/f"] {
        assert_eq!(fs::read(place.at(file)).expect("read"), b"x", "{file}");
    }
    for dir in ["d1", "d2", "d3"] {
        assert!(is_opaque(&place.at(dir)), "{dir}");
    }
}

#[test]
fn a_whiteout_of_a_mount_point_leaves_an_empty_directory() {
    needs!(Root);
    let archive = Tar::new()
        .file(".wh.dev", b"")
        .file(".wh.proc", b"")
        .file(".wh.tmp", b"");
    let (place, _) = unpacked(&archive.file("usr/.wh.tmp", b"").end());
    for name in ["dev", "proc", "tmp"] {
        assert!(is_opaque(&place.at(name)), "{name}");
    }
    assert_eq!(
        (mode(&place.at("dev")), mode(&place.at("tmp"))),
        (0o755, 0o1777)
    );
    assert!(is_whiteout(&place.at("usr/tmp")));
}

#[test]
fn later_entries_replace_earlier_ones() {
    needs!(Root);
    let mut again = Head::new("d", b'5');
    (again.mode, again.uid) = (0o700, 5);
    let deep = Tar::new()
        .dir("x")
        .file("x/a/b/c/f", b"1")
        .dir("x/a2")
        .symlink("x/l", "/etc");
    let archive = deep
        .file("x", b"a file")
        .file("y", b"1")
        .file("y", b"2")
        .symlink("y2", "y")
        .dir("y2")
        .file("y2/f", b"x")
        .file("d/f", b"x")
        .entry(&again, b"")
        .file("keep", b"x")
        .hard_link("other", "keep")
        .file("other", b"y");
    let (place, _) = unpacked(&archive.end());
    assert_eq!(fs::read(place.at("x")).expect("read"), b"a file");
    assert_eq!(fs::read(place.at("y")).expect("read"), b"2");
    assert!(place.at("y2/f").is_file() && is_opaque(&place.at("y2")));
    assert!(place.at("d/f").is_file());
    assert_eq!(
        (
            mode(&place.at("d")),
            fs::metadata(place.at("d")).expect("look").uid()
        ),
        (0o700, 5)
    );
    assert_eq!(
        fs::read(place.at("keep")).expect("read"),
        b"x",
        "only the name went"
    );
}

#[test]
fn long_names_and_other_extensions_are_read() {
    needs!(Root);
    let long = format!("{}/{}", "n".repeat(255), "m".repeat(200));
    let target = "t/".repeat(300);
    let records: &[(&str, &[u8])] = &[
        ("path", b"pax\nname"),
        ("uid", b"1234"),
        ("gid", b"4321"),
        ("mtime", b"1000.25"),
        ("size", b"5"),
        ("comment", b"none"),
    ];
    let archive = Tar::new()
        .extension(b'g', b"20 comment=whatever\n")
        .extension(b'L', format!("{long}\0").as_bytes())
        .file("short", b"gnu")
        .extension(b'K', format!("{target}\0").as_bytes())
        .symlink("link", "short")
        .pax(records)
        .entry(&Head::new("short", b'0'), b"12345")
        .pax(&[("linkpath", b"pax\nname")])
        .hard_link("hard", "x");
    let (place, _) = unpacked(&archive.end());
    assert_eq!(fs::read(place.at(&long)).expect("read"), b"gnu");
    assert_eq!(
        fs::read_link(place.at("link")).expect("read"),
        Path::new(&target)
    );
    let status = fs::metadata(place.at("pax\nname")).expect("look");
    assert_eq!((status.uid(), status.gid(), status.len()), (1234, 4321, 5));
    assert_eq!((status.mtime(), status.mtime_nsec()), (1000, 250_000_000));
    assert_eq!(
        fs::metadata(place.at("hard")).expect("look").ino(),
        status.ino()
    );
}

#[test]
fn sparse_files_have_their_pieces_and_their_holes() {
    needs!(Root);
    let pieces: Vec<(u64, &[u8])> = (0..30).map(|n| (n * 1_000_000, &b"piece"[..])).collect();
    let archive = Tar::new()
        .sparse("holes", 32 << 20, &pieces)
        .file("after", b"x")
        .end();
    let (place, unpacked) = unpacked(&archive);
    let status = fs::metadata(place.at("holes")).expect("look");
    assert_eq!((status.len(), unpacked.bytes), (32 << 20, (32 << 20) + 1));
    assert!(
        status.blocks() * 512 < 4 << 20,
        "{} blocks",
        status.blocks()
    );
    let content = fs::read(place.at("holes")).expect("read");
    for (offset, piece) in pieces {
        assert_eq!(&content[offset as usize..][..5], piece);
    }
    assert_eq!(content.iter().filter(|byte| **byte != 0).count(), 30 * 5);
    let overlap: &[(u64, &[u8])] = &[(0, b"12345"), (4, b"12345")];
    let beyond: &[(u64, &[u8])] = &[(8, b"12345")];
    for (pieces, size) in [(overlap, 100), (beyond, 10)] {
        let archive = Tar::new().sparse("holes", size, pieces).end();
        assert_refused(&archive, "holes", "makes no sense");
    }
    let pax = Tar::new()
        .pax(&[("GNU.sparse.major", b"1")])
        .file("f", b"x")
        .end();
    assert_refused(&pax, "f", "sparse");
}
