//! Layers that are too much: bytes, entries, what they grow by, names.

use crate::archives::{Head, Place, Tar, assert_refused, gzip, open, unpacker, zstd};
use crate::needs;
use cellblock::image::unpack::{Bounds, UnpackError};
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// 10 GiB of zeros: a header, then a packed piece of zeros again and again, as both formats allow.
fn bomb(pack: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut head = Head::new("zeros", b'0');
    head.size = 10 * GIB;
    let piece = pack(&vec![0; 64 * MIB as usize]);
    let mut archive = pack(&Tar::new().file("before", b"x").entry(&head, b"").0);
    for _ in 0..160 {
        archive.extend_from_slice(&piece);
    }
    archive
}

#[test]
fn ten_gibibytes_in_ten_mebibytes_are_refused() {
    needs!(Root);
    for pack in [gzip, zstd] {
        let archive = bomb(pack);
        assert!(archive.len() < 64 * MIB as usize, "{} bytes", archive.len());
        assert_refused(&archive, "zeros", "200 times its packed size");
        // Where any ratio is fine, the size that it claims is not.
        let bounds = Bounds {
            bytes: GIB,
            ratio: u64::MAX,
            ..Bounds::default()
        };
        let place = Place::new();
        let refused = place
            .unpack_within(&archive, &bounds)
            .expect_err("too much");
        assert!(
            refused.to_string().contains("\"zeros\": brings"),
            "{refused}"
        );
        let sizes = place.tree().into_values().map(|status| status.len());
        assert_eq!(sizes.sum::<u64>(), 1, "only what came before");
    }
}

#[test]
fn zeros_after_the_last_entry_count_as_well() {
    needs!(Root);
    let mut archive = gzip(&Tar::new().file("f", b"x").end());
    let piece = gzip(&vec![0; 64 * MIB as usize]);
    for _ in 0..16 {
        archive.extend_from_slice(&piece);
    }
    let ratio = Place::new().unpack(&archive).expect_err("too much");
    assert!(ratio.to_string().contains("200 times"), "{ratio}");
    let bounds = Bounds {
        bytes: MIB,
        entries: 10,
        ratio: u64::MAX,
        ..Bounds::default()
    };
    let bytes = Place::new()
        .unpack_within(&archive, &bounds)
        .expect_err("too much");
    assert!(
        bytes.to_string().contains("unpacks to more than"),
        "{bytes}"
    );
}

#[test]
fn files_that_come_to_too_much_are_refused_one_by_one_and_together() {
    needs!(Root);
    let bounds = Bounds {
        bytes: 1000,
        ..Bounds::default()
    };
    let archive = Tar::new().file("a", &[1; 600]).file("b", &[2; 401]).end();
    let refused = Place::new()
        .unpack_within(&archive, &bounds)
        .expect_err("too much");
    assert!(refused.to_string().contains("\"b\": brings"), "{refused}");
    let fits = Tar::new().file("a", &[1; 600]).file("b", &[2; 400]).end();
    assert_eq!(
        Place::new()
            .unpack_within(&fits, &bounds)
            .expect("fits")
            .bytes,
        1000
    );
    // Holes count: a sparse file of one byte and a gibibyte of nothing.
    let sparse = Tar::new().sparse("holes", GIB, &[(GIB - 1, b"x")]).end();
    let refused = Place::new()
        .unpack_within(&sparse, &bounds)
        .expect_err("too much");
    assert!(
        refused.to_string().contains("\"holes\": brings"),
        "{refused}"
    );
}

#[test]
fn holes_count_in_the_ratio_of_the_whole_layer() {
    needs!(Root);
    let sparse = Tar::new().sparse("holes", GIB, &[(GIB - 1, b"x")]).end();
    let refused = Place::new().unpack(&gzip(&sparse)).expect_err("too much");
    assert!(refused.to_string().contains("200 times"), "{refused}");
    // What comes later may make up for it.
    let bytes: Vec<u8> = (0..8 * MIB as u32)
        .map(|n| (n.wrapping_mul(2654435761) >> 24) as u8)
        .collect();
    let much = Tar::new()
        .sparse("holes", GIB, &[(GIB - 1, b"x")])
        .file("much", &bytes);
    Place::new()
        .unpack(&much.end())
        .expect("the ratio is right in the end");
}

#[test]
fn too_many_entries_are_refused() {
    needs!(Root);
    let bounds = Bounds {
        entries: 100,
        ..Bounds::default()
    };
    let many = |count: usize| (0..count).fold(Tar::new(), |tar, n| tar.file(format!("f{n}"), b""));
    Place::new()
        .unpack_within(&many(100).end(), &bounds)
        .expect("100 are allowed");
    let refused = Place::new()
        .unpack_within(&many(101).end(), &bounds)
        .expect_err("too many");
    assert!(
        refused
            .to_string()
            .contains("\"f100\": is one more than the 100"),
        "{refused}"
    );
    // Directories that only a name tells of are entries, too.
    let deep = "d/".repeat(100);
    let deep = |tar: Tar| tar.pax(&[("path", deep.as_bytes())]).dir("d").end();
    Place::new()
        .unpack_within(&deep(Tar::new()), &bounds)
        .expect("99 and itself");
    let refused = Place::new().unpack_within(&deep(Tar::new().dir("x")), &bounds);
    assert!(refused.is_err(), "one more: {refused:?}");
}

#[test]
fn a_million_entries_are_refused_by_default() {
    needs!(Root);
    let (read, write) = std::io::pipe().expect("make a pipe");
    // The cheapest entries there are: of aufs's bookkeeping nothing is made.
    let writer = std::thread::spawn(move || {
        let block = Head::new(".wh..wh.aufs", b'0').block();
        let piece = block.repeat(1024);
        let mut write = write;
        // The reader goes away before the end.
        (0..1_000_000 / 1024)
            .take_while(|_| write.write_all(&piece).is_ok())
            .count()
    });
    let place = Place::new();
    let source = OwnedFd::from(read);
    let refused = unpacker().layer(source, None, &place.fs(), &Bounds::default(), &mut |_| {});
    let refused = refused.expect_err("too many").to_string();
    assert!(
        refused.contains("one more than the 500000 entries"),
        "{refused}"
    );
    assert!(writer.join().expect("no panic") < 600, "it was not read on");
}

#[test]
fn names_may_be_as_long_as_the_kernel_takes() {
    needs!(Root);
    let component = "n".repeat(256);
    let archive = Tar::new()
        .extension(b'L', component.as_bytes())
        .file("n", b"x")
        .end();
    assert_refused(&archive, "nnn", "component of 256 bytes");
    let path = format!("{}f", "d/".repeat(2048));
    let archive = Tar::new()
        .extension(b'L', path.as_bytes())
        .file("d", b"x")
        .end();
    assert_refused(&archive, "d/d/d", "4095 are allowed");
    // Nothing is read of what says that it is longer.
    let mut head = Head::new("././@LongLink", b'L');
    head.size = 64 * MIB;
    assert_refused(
        &Tar::new().entry(&head, b"").end(),
        "LongLink",
        "1048576 are allowed",
    );
}

#[test]
fn a_source_is_read_from_its_offset_and_no_further_than_its_length() {
    needs!(Root);
    let layer = gzip(&Tar::new().file("f", b"x").end());
    let outer = [&b"before"[..], &layer, b"after"].concat();
    let mut file = std::fs::File::from(open(&outer));
    file.seek(std::io::SeekFrom::Start(6)).expect("seek");
    let place = Place::new();
    let (length, mut heard) = (Some(layer.len() as u64), 0);
    let source = file.try_clone().expect("clone");
    unpacker()
        .layer(
            source.into(),
            length,
            &place.fs(),
            &Bounds::default(),
            &mut |read| heard = read,
        )
        .expect("fine");
    assert!(place.at("f").exists());
    let mut rest = String::new();
    file.read_to_string(&mut rest).expect("read the rest");
    assert_eq!(rest, "after");
}

#[test]
fn an_outer_archive_is_expanded_within_its_bounds() {
    needs!(Root);
    let content: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    for archive in [content.clone(), gzip(&content), zstd(&content)] {
        let mut target = tempfile::tempfile().expect("make a file");
        let fd = target.try_clone().expect("clone").into();
        let mut heard = Vec::new();
        let bounds = Bounds::default();
        let written = unpacker().expand(open(&archive), None, fd, &bounds, &mut |n| heard.push(n));
        assert_eq!(written.expect("expands"), content.len() as u64);
        let mut found = Vec::new();
        target.rewind().expect("rewind");
        target.read_to_end(&mut found).expect("read");
        assert!(found == content);
        assert!(heard.is_sorted() && !heard.is_empty(), "{heard:?}");
    }
    let bounds = Bounds {
        bytes: 1000,
        ..Bounds::default()
    };
    let target = tempfile::tempfile().expect("make a file");
    let fd = target.try_clone().expect("clone").into();
    let refused = unpacker().expand(open(&gzip(&content)), None, fd, &bounds, &mut |_| {});
    assert!(
        matches!(refused, Err(UnpackError::Archive { .. })),
        "{refused:?}"
    );
    assert!(target.metadata().expect("look").len() <= 1000);
}
